"""What this machine allows: each check is a real probe, and says what it found, what its lack costs, and the cure.

`check.py` has the nouns, `probes.py` runs checks each in a process of its own with a time limit, one file a family of
checks, `catalogue.py` lists them, `page.py` words the result, `leftovers.py` finds (and `--clean` removes) what killed
runs of ours have left. The door is `cli/doctor.py`. A check belongs here when its answer changes what rankguard can do
or how sure a verdict is.
"""
