"""A rank program: `rankguard run -n 3 python -m rankguard.testing.faults NAME [--at PHASE] [--victim RANK]`.

`--folder` is where the ranks meet: any folder that all of them can write to, empty at first. Without it they meet in
the run's own.
"""

import argparse
import os
import sys

from rankguard.testing.faults.actor import play
from rankguard.testing.faults.catalogue import FAULTS
from rankguard.testing.faults.fault import PHASES


def main() -> None:
    """Play one rank's part."""
    parser = argparse.ArgumentParser(
        prog="python -m rankguard.testing.faults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("name", choices=FAULTS, metavar="NAME")
    parser.add_argument("--at", choices=PHASES, default="all-ready", help="when the victim fails (all-ready)")
    parser.add_argument("--victim", type=int, default=1, metavar="RANK", help="the rank that fails (1)")
    parser.add_argument("--folder", help="where the ranks meet (a folder of the run)")
    asked = parser.parse_args()
    run_dir = os.environ.get("RANKGUARD_RUN_DIR")
    folder = asked.folder or (f"{run_dir}/meeting" if run_dir else None)
    if folder is None:
        sys.exit("the ranks have no place to meet: give --folder, or run under `rankguard run`")
    play(asked.name, folder, asked.at, asked.victim)


if __name__ == "__main__":
    main()
