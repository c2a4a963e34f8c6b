"""Row a. SIGKILL of rank 5 of 8 while rank 0 loads: how long until the caller that waits has the error in its hand.

From just before kill(2), in the bench, to the line after the `except` of the caller, another process that waits in
`wait_ready`, `launch(…).wait_ready`, or its peer (`caller.py`); both read CLOCK_MONOTONIC. The kill comes once the
caller sleeps. Nobody is ready at any time; the error has to name rank 5.

Beside it, in the same program, a bare poll on rank 5's pidfd: less is not possible. SGLang's wait (spawn, as it ships)
looks at all ranks each 5 s: the kill comes at moments spread evenly over that period, so the median is what a user
meets; a repeat takes 5 s. `torch.multiprocessing.spawn`: its `join`, which also ends the others before it raises.

`busy`: the caller's thread computes in pure Python at the moment of the kill. Measured is when the last rank is gone, by
pidfds in the bench: the caller has no say in it. Of ranks that are Python, as above, a part of it is what the kernel needs
to take eight interpreters down beside the busy caller; so there is a line with ranks of a C program, too.
"""

import select
import subprocess
import sys
import time
from pathlib import Path

from bench.jobs import PATIENCE_S, Ends, end, kill, settle
from bench.measure import Contender, Failed, Line, NotThere, at_most, times
from bench.setting import VICTIM, Setting
from rankguard.linux.tree import descendants

BUSY = {"launch-busy": "Python ranks", "launch-busy-c": "C ranks"}
CALLER = Path(__file__).parents[1] / "caller.py"
SGLANG_PERIOD_S = 5.0
LIMIT_MS, LIMIT_TIMES, BUSY_MS = 3.0, 5.0, 5.0


def run(setting: Setting) -> list[Line]:
    callers: list[Caller] = []

    def contender(kind: str, method: str = "", repeats: int = 12, peer: str | None = None) -> Contender:
        caller = Caller(setting, kind, method)
        callers.append(caller)
        repeats = setting.repeats(repeats)
        if kind == "sglang":
            caller.spread_s = [SGLANG_PERIOD_S * (number + 0.5) / repeats for number in range(repeats)]
        return Contender(
            peer or f"{kind} {method}".strip(), caller.once, repeats, warm_up=kind not in ("sglang", "spawn")
        )

    methods = ("fork",) if setting.quick else ("fork", "spawn", "forkserver")
    entries = [
        *(contender(kind, method) for method in methods for kind in ("pidfd", "wait_ready")),
        *(contender(kind, "fork", 10) for kind in ("delivered", "mid-message")),
        *(contender(kind) for kind in ("launch-pidfd", "launch", *BUSY)),
        contender("sglang", "spawn", 5, "SGLang"),
        contender("spawn", "", 5, "torch.multiprocessing.spawn"),
    ]
    try:
        found = setting.turns(entries)
    finally:
        for each in callers:
            each.close()

    def line(
        what: str, label: str, ours: str, bare: str, peers: tuple[str, ...] = (), *, promised: bool = True
    ) -> Line:
        series, floor = found[ours].series("ms"), found[bare].series("ms")
        series.name, floor.name = "rankguard", "bare pidfd"
        made = Line("a", what, "ms", series, [floor, *(found[name].series("ms") for name in peers)])
        made.label = f"rank killed → error in hand: {label}"
        if promised:
            made.reach = f"≤ {LIMIT_MS:.0f} ms and ≤ {LIMIT_TIMES:.0f} × bare pidfd"
            multiple, enough = times(series, floor), at_most(series, LIMIT_MS)
            made.reached = None if multiple is None or enough is None else enough and multiple <= LIMIT_TIMES
        return made

    kill_to = "rank 5 of 8 killed while rank 0 loads → error in hand:"
    lines = []
    for method in methods:
        peers = ("SGLang", "torch.multiprocessing.spawn") if method == methods[-1 if setting.quick else 1] else ()
        lines.append(
            line(
                f"{kill_to} `wait_ready`, {method}",
                f"wait_ready, {method}",
                f"wait_ready {method}",
                f"pidfd {method}",
                peers,
            )
        )
    lines.append(
        line("… rank 5 had been ready (fork)", "it had been ready", "delivered fork", "pidfd fork", promised=False)
    )
    lines.append(
        line(
            "… in the middle of its message (fork)", "in mid-message", "mid-message fork", "pidfd fork", promised=False
        )
    )
    peers = ("SGLang", "torch.multiprocessing.spawn")
    lines.append(line(f"{kill_to} `launch(…).wait_ready`", "launch", "launch", "launch-pidfd", peers))
    for kind, of in BUSY.items():
        busy = found[kind].series("gone_ms")
        busy.name = "rankguard"
        what = f"… the caller's thread busy in Python → all ranks of `launch` gone ({of})"
        lines.append(
            Line(
                "a",
                what,
                "ms",
                busy,
                [],
                f"≤ {BUSY_MS:.0f} ms",
                at_most(busy, BUSY_MS),
                label=f"… caller busy → all gone ({of})",
            )
        )
    return lines


class Caller:
    """`caller.py` of one kind, started at its first turn, and anew after a turn that went wrong."""

    def __init__(self, setting: Setting, kind: str, method: str) -> None:
        self._setting, self._kind, self._method = setting, kind, method
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self.spread_s: list[float] = []
        """How long after the beginning of the wait the kill comes, by number of repeat."""

    def once(self, number: int) -> dict[str, float]:
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(b"\n")
            pids = [int(word) for word in self._answer().split()]
            with Ends(pids) as ends:
                if self._kind in BUSY:
                    settle()
                else:
                    self._asleep()
                if self.spread_s:
                    time.sleep(self.spread_s[number])
                began = kill(pids[VICTIM])
                gone = ends.wait() if self._kind in BUSY else None
                learnt = int(self._answer())
        except BaseException:
            self.close()
            raise
        return {"ms": (learnt - began) / 1e6} | ({} if gone is None else {"gone_ms": (gone - began) / 1e6})

    def close(self) -> None:
        """End it and its ranks: between its turns it has none."""
        if self._process is not None:
            for pid in (*descendants(self._process.pid), self._process.pid):
                end(pid)
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process, self._unread = None, b""

    def _start(self) -> None:
        python: object = sys.executable
        if self._kind == "spawn":
            python = self._setting.peers.torch() / "python"
        folder = self._setting.peers.sglang() if self._kind == "sglang" else self._setting.folder
        words = [str(python), str(CALLER), self._kind, self._method or "spawn", str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(words, bufsize=0, start_new_session=True, **pipes)
        if self._answer() != "here":
            self.close()
            raise NotThere(f"`caller.py {self._kind}` cannot start")

    def _answer(self) -> str:
        """Its next line; it may be waiting in vain."""
        waiter, until = select.poll(), time.monotonic() + PATIENCE_S
        waiter.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._unread:
            if not waiter.poll(max(0.0, until - time.monotonic()) * 1000):
                raise Failed(f"the caller waits in vain, {PATIENCE_S:.0f} s by now")
            if not (data := self._process.stdout.read(4096)):
                raise Failed("the caller ended")
            self._unread += data
        line, _newline, self._unread = self._unread.partition(b"\n")
        if line.startswith(b"error"):
            raise Failed(line.decode(errors="replace"))
        return line.decode()

    def _asleep(self) -> None:
        """Until the caller's own thread has been asleep five times in a row: it waits."""
        seen = 0
        while seen < 5:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
            seen = seen + 1 if stat.rpartition(") ")[2][0] == "S" else 0
            time.sleep(0.002)
