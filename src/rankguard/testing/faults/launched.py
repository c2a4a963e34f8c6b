"""A program that launches its ranks by `rankguard.launch`: the front of a cell whose start is `function`.

`launched.py NPROCS RUN_DIR OPTIONS… NAME --at PHASE --victim RANK --folder FOLDER`. It ends with the verdict's exit
code, as the command does.
"""

import argparse
import signal
import sys
from types import FrameType

import rankguard
from rankguard.testing.faults.actor import play


class _AskedToEnd(Exception):  # no error
    """SIGTERM has come."""


def rank(_me: rankguard.Rank, name: str, folder: str, at: str, victim: int) -> None:
    """The function that is launched."""
    play(name, folder, at, victim)


def main() -> int:
    """Launch, wait, tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("nprocs", type=int)
    parser.add_argument("run_dir")
    parser.add_argument("name")
    parser.add_argument("--at")
    parser.add_argument("--victim", type=int)
    parser.add_argument("--folder")
    parser.add_argument("--ready-timeout", type=float)
    parser.add_argument("--stall-timeout", type=float)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--shutdown-timeout", type=float, default=30.0)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _asked_to_end)
    job = None
    try:
        job = rankguard.launch(
            rank, asked.nprocs, (asked.name, asked.folder, asked.at, asked.victim), run_dir=asked.run_dir,
            ready_timeout=asked.ready_timeout, stall_timeout=asked.stall_timeout, grace=asked.grace,
        )  # fmt: skip
        with job:
            return _to_the_end(job, asked.shutdown_timeout)
    except rankguard.RankFailed as error:
        sys.stderr.write(f"{error}\n")
        return error.verdict.exit_code if job is None or job.verdict is None else job.verdict.exit_code


def _to_the_end(job: rankguard.Job, shutdown_timeout: float) -> int:
    try:
        return job.wait().exit_code
    except _AskedToEnd:
        return job.stop(shutdown_timeout).exit_code


def _asked_to_end(_number: int, _frame: FrameType | None) -> None:
    raise _AskedToEnd


if __name__ == "__main__":
    sys.exit(main())
