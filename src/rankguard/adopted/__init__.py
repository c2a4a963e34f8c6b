"""Processes that somebody else started: watched, ended on request, and never reaped.

`process.py` is one such process and the ladder to its status; `watch.py` the loop over several of them; `course.py` the
core's job over them; `readers.py` the messages that they owe; `witnesses.py` what the kernel tells of memory; `guard.py`
the watch in a thread; `teardown.py` the end of whole trees. The public doors are in `rankguard/adopt.py`.
"""
