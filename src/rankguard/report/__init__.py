"""What is shown and kept: told facts and verdicts, may never block or raise into the driver.

`text.py` and `wording.py` are the final report; `output.py`, `lines.py` and `logfile.py` what the ranks print;
`files.py` the files of a run; `redact.py` keeps secrets out of all of it.
"""
