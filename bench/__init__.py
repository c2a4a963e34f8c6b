"""The bench: rankguard beside its peers, on the same work, in turns, in one run. `make bench`, or `python -m bench`.

What it is not: a test; a machine that is busy gives figures that say nothing, and the page then says so.
Read next: `docs/bench.md`, `__main__.py`, `measure.py`, and a row in `rows/`.
"""
