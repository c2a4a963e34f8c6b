"""The pure core: facts in, one step, orders out. No clock, no process, no input or output.

`machine.py` has the table and `step`; `job.py` the state; `ranks.py`, `jobs.py` and `stopping.py` the cells of the
table; `clocks.py` the deadlines, `policy.py` how long they are; `story.py` the journal and its replay.
"""
