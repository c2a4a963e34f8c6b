"""When nothing happens nobody of ours wakes up: counted as the kernel counts it, on a terminal and off it."""

import re
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.view.stage import Stage

READY = """
import signal
import rankguard
rankguard.this_rank().ready()
signal.pause()
"""
WINDOW_S, WINDOWS = 3.0, 5
"""What looks once a second is seen three times in a window, per process, and in every window. Lines of the kernel's log
wake a supervisor, too, and are not ours: one window of several has to be quiet."""


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ours(front: int) -> tuple[int, int, int]:
    """Front, warden, supervisor."""
    (warden,) = _children(front)
    (supervisor,) = _children(warden)
    return front, warden, supervisor


def _woken(pids: tuple[int, ...]) -> list[int]:
    """How often each has gone to sleep so far, all threads together (proc(5): `voluntary_ctxt_switches`)."""
    told = []
    for pid in pids:
        texts = [(thread / "status").read_text() for thread in Path(f"/proc/{pid}/task").iterdir()]
        told.append(sum(int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)[0]) for text in texts))
    return told


def _for(seconds: float) -> None:
    select.select([], [], [], seconds)


def _asleep(pids: tuple[int, ...]) -> list[int]:
    """Once the start is over: nobody has woken for half a second."""
    until = time.monotonic() + 30
    before = _woken(pids)
    while time.monotonic() < until:
        _for(0.5)
        now = _woken(pids)
        if now == before:
            return now
        before = now
    raise AssertionError(f"still at work after 30 s: {before}")


def test_nobody_wakes_when_nothing_happens(tmp_path: Path) -> None:
    """All are ready, so that no deadline is to come; and in a terminal that is too low for the live view."""
    program = tmp_path / "ready.py"
    program.write_text(READY)
    words = [
        sys.executable,
        "-m",
        "rankguard",
        "run",
        "--sample",
        "0",
        "--ready-timeout",
        "600",
        "-n",
        "8",
        str(program),
    ]
    (tmp_path / "low").mkdir()
    with (
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as off,
        Stage(tmp_path / "low", 2, "--sample", "0", rows=6) as low,
    ):
        try:
            assert off.stderr is not None
            assert b"all 8 ranks ready" in off.stderr.readline()
            low.act(0, "say('begun\\n')")
            low.expect(lambda rows: "begun" in " ".join(rows))
            both = (*_ours(off.pid), *_ours(low.terminal.pid))
            windows = []
            while len(windows) < WINDOWS and min(windows, default=2) > 1:
                before = _asleep(both)
                _for(WINDOW_S)
                windows.append(max(now - then for now, then in zip(_woken(both), before, strict=True)))
        finally:
            off.terminate()

    assert min(windows) <= 1, windows
