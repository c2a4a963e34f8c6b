"""The supervisor: the process that is every rank's parent. `main.py` builds its parts and is its life; a part a file.

`desk.py` and `control.py` answer the front and other terminals; `onscreen.py` is its end of the live view, `snapshots.py`
takes stacks, `examination.py` those of a stalled job, `samples.py` looks at memory. Not the loop (`../driver.py`), which
adopted processes have, too.
"""
