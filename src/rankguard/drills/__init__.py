"""Real failures to make on purpose, to see what rankguard says of them on this machine. `cli/drill.py` is the door.

`catalogue.py` has one record a drill, most of them a fault of the laboratory (`testing/faults/`), whose stage and
checks serve the others too; `play.py` shows and compares.
"""
