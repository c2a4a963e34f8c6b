"""The front of one job: the terminal's side of `rankguard run`, from the first message to the exit status.

`main.py` is its life; a concern a file: signals, the live view and what it looks like, the lines where there is none, its
own lines, the terminal in a rank's hand, `--on-verdict`. Not what is started (`../plan.py`), nor the process that starts
it (`../../supervisor/`), which goes on without us.
"""
