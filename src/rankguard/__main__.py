"""`python -m rankguard`."""

import os
import sys


def _forget_current_folder() -> None:
    """`-m` puts the current folder before the standard library, where a user's `signal.py` would be taken for it."""
    try:
        here = os.getcwd()
    except OSError:
        return
    if not sys.flags.safe_path and sys.path and sys.path[0] in ("", here):
        del sys.path[0]


if __name__ == "__main__":
    _forget_current_folder()  # our own modules are found beside the first of them

    from rankguard.cli import main

    sys.exit(main())
