"""What runs in a rank's own process: the start of a Python program, its last words, and `this_rank()`.

Not the launcher's side (`launchers/`, `linux/`): nothing here looks at other processes. Everything is made to be
loaded in somebody else's program, so it imports the standard library only, late, and little of it.

Read next: `bootstrap.py` (how a rank's program is started), `this_rank.py` (what it can say).
"""

import os

BOOTSTRAP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap.py")
"""The file that a Python rank is started with."""

importing_main = False
"""True while a rank that runs a shipped function imports the caller's main module and its arguments: a launch at this
moment would start the same job in every rank of it, again and again."""
