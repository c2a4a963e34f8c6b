"""`make matrix`: every fault in every circumstance, a table, and an exit status that is not 0 when a cell is wrong.

`make matrix ARGS="kill/all-ready/exec/own/root -v"` repeats one cell; words may be patterns (`'oom*/*/exec'`) or leave
out what follows (`kill`). `--write` writes docs/matrix.md, `--jsonl` prints each result as one line of JSON.
"""

import argparse
import json
import os
import sys
import time

from tests.matrix import page
from tests.matrix.axes import asked, sample
from tests.matrix.place import forget_stale_groups
from tests.matrix.runner import Result, run

JOBS = (os.cpu_count() or 1) + 1
"""Cells wait for processes to begin and end: one more than processors."""


def main() -> int:
    """0: all right. 1: a cell is wrong. 2: a word names no cell."""
    parser = argparse.ArgumentParser(prog="make matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="FAULT/AT/START/GROUPS/USER")
    parser.add_argument("--sample", action="store_true", help="few cells that cover all pairs, as `make test`")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"cells at once ({JOBS})")
    parser.add_argument("--list", action="store_true", help="the cells by name, none is made")
    parser.add_argument("--write", action="store_true", help="write docs/matrix.md; for a whole run only")
    parser.add_argument("--jsonl", action="store_true", help="each result as one line of JSON")
    parser.add_argument("-v", "--verbose", action="store_true", help="each cell as it ends")
    given = parser.parse_args()
    try:
        places = sample() if given.sample else asked(given.cells)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if given.write and (given.cells or given.sample):
        sys.stderr.write("error: `--write`: expected no cells, for the page tells of all\n")
        return 2
    if given.list:
        print(*places, sep="\n")
        return 0
    forget_stale_groups()
    began = time.monotonic()
    results: list[Result] = []
    for result in run(places, given.jobs):
        results.append(result)
        _tell(result, len(results), len(places), given)
    took = time.monotonic() - began
    if not given.jsonl:
        print(page.table(results), page.cannot(results), page.wrong(results), page.total(results, took), sep="\n")
    if given.write:
        page.write(results, took)
    return 1 if any(result.wrong for result in results) else 0


def _tell(result: Result, done: int, of: int, given: argparse.Namespace) -> None:
    if given.jsonl:
        print(json.dumps(result._asdict()), flush=True)
    elif given.verbose or result.wrong:
        state = "WRONG" if result.wrong else "-" if result.why_not else "ok"
        print(f"{done:5} of {of}  {state:5} {result.place}", flush=True)
        for line in [result.why_not, *result.wrong]:
            print(f"                {line}", flush=True) if line else None
        if given.verbose and result.said:
            print(result.said)
    elif done % 50 == 0:
        print(f"{done:5} of {of}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
