"""The command `python -m rankguard.testing.faults.play`: one cell, its checks, an exit status. Not to be imported: the
package has a function of this name. Read next: `cells.py`.
"""

import sys

from rankguard.testing.faults.cells import main

if __name__ == "__main__":
    sys.exit(main())
