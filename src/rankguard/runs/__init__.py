"""Runs from outside: where they are kept and which of them live (`folder.py`), how a live one is asked (`live.py`), what
one left that ended without a verdict (`remains.py`), and what the next one says of it (`previous.py`).
"""
