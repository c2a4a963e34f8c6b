"""Real failures to make on purpose: what a drill runs, how it arranges for the failure, and what must come of it.

`catalogue.py` has one record a drill, `programs.py` the ranks that fail, `stage.py` runs them, `checks.py` compares.
`cli/drill.py` is the door. The rank programs are ordinary scripts; they know nothing of rankguard but `this_rank()`.
"""
