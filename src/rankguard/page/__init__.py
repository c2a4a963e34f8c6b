"""The page of a run, the same while it lives and after it died: what was asked for, what became of it, and when.

`chronicle.py` listens to the facts and keeps what the job's state does not; `data.py` makes of both the object that the
page shows; `course.py` is the memory over the run, `logs.py` the ends of what ranks printed; `assemble.py` puts page and
data into one file. It judges nothing: the verdict is the diagnosis's. Docs: docs/decisions/0016-one-page-two-lives.md.
"""
