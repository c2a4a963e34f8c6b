"""The page server (`--http`): a process of its own that tells of one run over HTTP; no client of it can slow the job.

It is fed the journal as it is written and replays it with the same pure core, so it knows what the supervisor knows and
asks it for nothing but a sign of life. Standard library only. It reads, and changes nothing.
Read next: `serve.py` (the program), `followed.py` (what it knows), `server.py` (the connections), `routes.py` (the
answers), `../supervisor/page.py` (who starts, feeds and ends it), docs/probes.md.
"""
