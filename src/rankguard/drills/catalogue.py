"""Every drill: what it is, the ranks and options that it runs, and what the verdict must say.

To add one: a part in `programs.py`, a record here; the tests, the list and `docs/drills.md` follow from it.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rankguard.drills import oom
from rankguard.linux.hierarchies import counter
from rankguard.record import Record
from rankguard.testing.faults.checks import Expect, Verdict
from rankguard.testing.faults.stage import Stage


class Setting(Record):
    """How one drill is set up on this machine. `wrap`: the words before the command; `lesser`: what it does not show."""

    program: tuple[str, ...]
    expect: Expect
    wrap: tuple[str, ...] = ()
    note: str | None = None
    lesser: str | None = None


class Drill(Record):
    """One drill. `part` is its function in `programs.py`; `act` is done once all ranks run."""

    name: str
    what: str
    expect: Expect
    part: str = ""
    ranks: int = 3
    options: tuple[str, ...] = ()
    act: Callable[[Stage], None] | None = None
    prepare: Callable[[Stage], None] | None = None
    setting: Callable[[Stage], AbstractContextManager[Setting]] | None = None
    why_not: Callable[[], str | None] = lambda: None
    """What of it cannot be made here; null when nothing stands in the way."""
    impossible: Callable[[], bool] = lambda: False
    """It cannot be made here at all."""


def _kill(which: str) -> Callable[[Stage], None]:
    def act(stage: Stage) -> None:
        assert stage.front is not None
        warden, supervisor = stage.ours()
        os.kill({"front": stage.front.pid, "warden": warden, "supervisor": supervisor}[which], signal.SIGKILL)

    return act


def _kill_rank_1(stage: Stage) -> None:
    os.kill(stage.pids[1], signal.SIGKILL)


def _left_a_segment(verdict: Verdict) -> bool:
    return any(left["kind"] == "shm" and left["bytes"] == 1 << 20 for left in verdict["teardown"]["left"])


def _last_words(text: str) -> Callable[[Verdict], bool]:
    return lambda verdict: text in str(verdict["culprit"]["cause"]["statement"])


def _seen(verdict: Verdict, source: str) -> list[str]:
    return [each["statement"] for each in verdict["culprit"]["cause"]["evidence"] if each["source"] == source]


def _pipes_between(stage: Stage) -> None:
    for rank in range(stage.ranks):
        if rank != 1:
            stage.fifo(f"peer-{rank}")


@contextmanager
def _oom(stage: Stage) -> Iterator[Setting]:
    with oom.arranged(stage) as (limited, how, wrap, words):
        expect = Expect("oom-kill", 137, culprits=tuple(range(1, stage.ranks)))
        lesser = None
        if not limited:
            expect = expect.replace(kind="memory-limit", status=1)
            lesser = "no memory cgroup can be made here: neither the kernel's OOM killer nor its proof was shown"
        yield Setting(tuple(words), expect, tuple(wrap), how, lesser)


def _no_dev_full() -> str | None:
    return None if os.path.exists("/dev/full") else "there is no /dev/full"


def _no_shm() -> str | None:
    return None if os.access("/dev/shm", os.W_OK) else "/dev/shm cannot be written"  # noqa: S108  # the subject


def _sure_of_a_kill() -> str:
    """A SIGKILL that was not the OOM killer's is known from a counter that stood still."""
    return "proven" if counter("/proc/vmstat") is not None else "likely"


_OURS_GONE = Expect("supervisor-lost", 125, culprits=None)

DRILLS = {
    drill.name: drill
    for drill in (
        Drill(
            "oom", "the OOM killer ends a rank while rank 0 still loads", Expect("oom-kill", 137), ranks=8,
            options=("--ready-timeout", "60"), setting=_oom, why_not=oom.why_not,
        ),
        Drill(
            "kill", "somebody sends SIGKILL to rank 1",
            Expect("killed", 137, confidence=_sure_of_a_kill()), part="wait", act=_kill_rank_1,
        ),
        Drill("segfault", "rank 1 reads address 0", Expect("crash", 139), part="segfault"),
        Drill(
            "exception", "rank 1 raises; its traceback is in the verdict",
            Expect("exception", 1, also=(("names the exception", _last_words("ValueError: shard 7")),)),
            part="exception",
        ),
        Drill(
            "exit-early", "rank 1 ends with 0 before it was ready", Expect("exit-before-ready", 1),
            part="exit-early", options=("--ready-timeout", "60"),
        ),
        Drill("exit-code", "rank 1 ends with exit code 3", Expect("exit-code", 3), part="exit-code"),
        Drill(
            "ready-timeout", "rank 1 never becomes ready", Expect(
                "ready-timeout", 124, also=(("says what it waited for", _last_words("waiting for the parameter")),)
            ), part="ready-timeout", options=("--ready-timeout", "2"),
        ),
        Drill(
            "hang", "rank 1 waits for its own lock, and the others for it",
            Expect("stall", 124, confidence="likely", also=(
                ("says where it hangs, or in which call", lambda verdict: bool(verdict["culprit"]["stacks"])),
                ("says that the others do something else", lambda verdict: len(_seen(verdict, "stacks")) >= 2),
            )), part="hang", options=("--stall-timeout", "3"), prepare=lambda stage: stage.fifo("all-here"),
        ),
        Drill(
            "reported-failure", "rank 1 says that it failed, and lives",
            Expect("reported-failure", 1, also=(("quotes it", _last_words("of another model")),)),
            part="reported-failure",
        ),
        Drill(
            "complaint", "rank 1 sends SIGQUIT to its parent, and ends with 0",
            Expect("reported-failure", 1, confidence="likely",
                   also=(("says that it told its parent", _last_words("SIGQUIT")),)),
            part="complaint",
        ),
        Drill("memory-limit", "rank 1 asks for more than its RLIMIT_AS", Expect("memory-limit", 1), part="memory-limit"),
        Drill(
            "disk-full", "rank 1 writes to a full disk (/dev/full)", Expect("disk-full", 1), part="disk-full",
            why_not=_no_dev_full, impossible=lambda: _no_dev_full() is not None,
        ),
        Drill(
            "cannot-start", "the program is not there", Expect("cannot-start", 127, culprits=(0, 1, 2), others=("stopped", "independent")),
        ),
        Drill(
            "cascade", "rank 1 raises; its peers fail and are gone first",
            Expect("exception", 1, others=("collateral",),
                   also=(("names the first exception", _last_words("loss is not finite")),)),
            part="cascade", prepare=_pipes_between,
        ),
        Drill(
            "signal-ignored", "rank 1 fails, and rank 0 ignores SIGTERM",
            Expect("exit-code", 3, also=(
                ("rank 0 needed SIGKILL", lambda verdict: len(verdict["teardown"]["killed"]) == 1),
                ("the grace was waited for once", lambda verdict: 0.4 < verdict["teardown"]["took_s"] < 5),
            )), part="signal-ignored", options=("--grace", "0.5"), prepare=lambda stage: stage.fifo("deaf"),
        ),
        Drill(
            "orphans", "rank 1 fails and leaves a grandchild elsewhere",
            Expect("exit-code", 3, also=(("the grandchild was ended", lambda v: bool(v["teardown"]["killed"])),)),
            part="orphans", options=("--grace", "0.5"), prepare=lambda stage: stage.fifo("away"),
        ),
        Drill(
            "shm-leak", "rank 1 is killed and leaves 1 MiB in /dev/shm",
            Expect("killed", 137, confidence=_sure_of_a_kill(),
                   also=(("names the segment that is left", _left_a_segment),)),
            part="shm-leak", why_not=_no_shm, impossible=lambda: _no_shm() is not None,
        ),
        Drill(
            "supervisor-killed", "somebody kills rankguard's supervisor", _OURS_GONE, part="wait",
            act=_kill("supervisor"),
        ),
        Drill("warden-killed", "somebody kills rankguard's warden", _OURS_GONE, part="wait", act=_kill("warden")),
        Drill(
            "front-killed", "somebody kills the command itself",
            _OURS_GONE.replace(ended_by=signal.SIGKILL), part="wait", act=_kill("front"),
        ),
    )
}  # fmt: skip
"""By name, in the order in which `drill all` plays them."""
