"""`python -m rankguard`."""

import sys

from rankguard.cli import main

if __name__ == "__main__":
    sys.exit(main())
