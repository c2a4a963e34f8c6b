"""How ranks come to be, and what they are given.

`contract.py` is what the driver asks of a launcher; `exec.py` executes programs on this machine; `function.py` ships a
Python function; `environment.py` is the environment of a rank; `mailbox.py` turns what it says into facts.
"""
