"""`make matrix`: every fault in every circumstance, a table, and an exit status that is not 0 when a cell is wrong.

`make matrix ARGS="kill/all-ready/exec/own/root -v"` repeats one cell; words may be patterns (`'oom*/*/exec'`) or leave
out what follows (`kill`). `--write` writes docs/matrix.md. `--jsonl` prints each result as one line of JSON, which
`--from FILE` takes for made: so a run may be cut in pieces, or a fault that is new be added.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence

from tests.matrix import page
from tests.matrix.axes import Place, asked, everything, sample
from tests.matrix.place import forget_stale
from tests.matrix.runner import Result, run

JOBS = (os.cpu_count() or 1) + 1
"""Cells wait for processes to begin and end: one more than processors."""


def main() -> int:
    """0: all right. 1: a cell is wrong. 2: what was asked for has no meaning."""
    given = _given()
    try:
        places = _places(given)
        results = _kept(given.earlier)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if given.list:
        print(*places, sep="\n")
        return 0
    forget_stale()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # as Ctrl-C: what runs is ended and removed
    began = time.monotonic()
    for done, result in enumerate(run(places, given.jobs), 1):
        results[result.place] = result
        _tell(result, done, len(places), given)
    took = time.monotonic() - began
    told = [results[place] for place in everything() if place in results]
    if not given.jsonl:
        ended = page.total(told) + (f"; {page.took(took)}" if places else "")
        print(page.table(told), page.cannot(told), page.wrong(told), ended, sep="\n")
    if given.write:
        page.write(told, len(given.earlier) + bool(places))
    return 1 if any(result.wrong for result in told) else 0


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make matrix", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="FAULT/AT/START/GROUPS/USER")
    parser.add_argument("--sample", action="store_true", help="few cells that cover all pairs, as `make test`")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help=f"cells at once ({JOBS})")
    parser.add_argument("--list", action="store_true", help="the cells by name, none is made")
    parser.add_argument("--write", action="store_true", help="write docs/matrix.md, which tells of all cells")
    parser.add_argument("--jsonl", action="store_true", help="each result as one line of JSON")
    parser.add_argument(
        "--from", dest="earlier", action="append", default=[], metavar="FILE", help="results of earlier"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="each cell as it ends")
    return parser.parse_args()


def _places(given: argparse.Namespace) -> list[Place]:
    """The cells to be made now: those that are named, else all that are not known from earlier."""
    if given.sample:
        return sample()
    if given.cells or not given.earlier:
        return asked(given.cells)
    known = _kept(given.earlier)
    return [place for place in everything() if place not in known]


def _kept(files: Sequence[str]) -> dict[Place, Result]:
    """What earlier runs have told; of two results for a cell the later one."""
    kept: dict[Place, Result] = {}
    for name in files:
        with open(name) as lines:
            for line in lines:
                told = json.loads(line)
                result = Result(**told | {"place": Place(*told["place"]), "wrong": tuple(told["wrong"])})
                kept[result.place] = result
    return kept


def _tell(result: Result, done: int, of: int, given: argparse.Namespace) -> None:
    if given.jsonl:
        print(json.dumps(result._asdict()), flush=True)
    elif given.verbose or result.wrong:
        state = "WRONG" if result.wrong else "-" if result.why_not else "ok"
        print(f"{done:5} of {of}  {state:5} {result.place}", flush=True)
        for line in [result.why_not, *result.wrong]:
            if line:
                print(f"                {line}", flush=True)
        if given.verbose and result.said:
            print(result.said)
    elif done % 50 == 0:
        print(f"{done:5} of {of}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
