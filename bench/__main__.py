"""`python -m bench`: all rows, one after the other, each with its peers in turns. What each measures: `docs/bench.md`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import rankguard
from bench import keep, machine, rows, table
from bench.keeper import kept
from bench.measure import Line, Series
from bench.peers import Peers
from bench.setting import Setting


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default=",".join(rows.FILES), help="such as a,e")
    parser.add_argument("--quick", action="store_true", help="one repeat of each, small: to see that it works")
    parser.add_argument("--no-torch", action="store_true", help="leave out what needs torch")
    parser.add_argument("--no-install", action="store_true", help="only peers that are there")
    parser.add_argument(
        "--write", action="store_true", help="keep the figures, and make bench/results and the README's table"
    )
    asked = parser.parse_args()
    chosen = [letter for letter in rows.FILES if letter in asked.rows.split(",")]
    if set(asked.rows.split(",")) - set(rows.FILES):
        parser.error(f"`--rows {asked.rows}`: expected letters of {', '.join(rows.FILES)}")
    if asked.quick and asked.write:
        parser.error("`--quick` gives no figures that could be kept")
    with tempfile.TemporaryDirectory(prefix="rankguard-bench-", dir="/var/tmp") as folder:
        return kept(lambda: bench(chosen, asked, Path(folder)))


def bench(chosen: list[str], asked: argparse.Namespace, folder: Path) -> int:
    """Ends with 1 where something that has to be reached was not, or a repeat failed."""
    here = machine.describe()
    peers = Peers(install=not asked.no_install, torch=not asked.no_torch)
    versions = {
        "rankguard": rankguard.__version__,
        **peers.prepared({name for letter in chosen for name in rows.PEERS.get(letter, ())}),
    }
    before = machine.look() if not asked.quick else 0.0
    print(f"{here['processors']} processors, load {here['load_at_start']}, others use {before * 100:.0f} % of them")
    began, others, lines = time.monotonic(), machine.Others(), []
    setting = Setting(folder, peers, asked.quick, tell=_tell)
    for letter in chosen:
        lines += _row(letter, setting)
    took, during = time.monotonic() - began, others.share()
    quiet = machine.quiet(before, during)
    print(f"{took:.0f} s; the machine was {'quiet' if quiet else 'NOT QUIET: the times are noise'}", end=" ")
    print(f"(others used {during * 100:.0f} % of it meanwhile)")
    if asked.write:
        run = {
            "schema": keep.SCHEMA, "machine": here, "versions": versions, "others_before": before, "others_during": during,
            "took_s": round(took, 1), "partial": chosen != list(rows.FILES), "lines": [line.data() for line in lines],
        }  # fmt: skip
        keep.keep(run)
        keep.pages()
    return 0 if all(line.reached is not False and not line.ours.failed for line in lines) else 1


def _row(letter: str, setting: Setting) -> list[Line]:
    began, heading = time.monotonic(), f"row {letter}"
    setting.tell = lambda text: _tell(f"{heading}: {text}")
    try:
        lines = rows.row(letter).run(setting)
    except Exception as error:  # the other rows are worth having
        lines = [
            Line(
                letter, "this row could not be measured", "", Series("rankguard", failed=[repr(error)[:400]]), reach="–"
            )
        ]
    _tell("")
    for line in lines:
        print(table.terminal(line))
    print(f"   row {letter} took {time.monotonic() - began:.0f} s\n", flush=True)
    return lines


def _tell(text: str) -> None:
    """What is going on, on a terminal; the next text takes its place."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
