"""Real failures to make on purpose: what a drill runs, how it arranges for the failure, and what the verdict must be.

`cli/drill.py` is the door. The rank programs are ordinary scripts; they know nothing of rankguard but `this_rank()`.
"""
