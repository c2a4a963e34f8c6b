"""What to do about a job that is stalled or not ready in time: hints from what the ranks were seen doing. Pure; used by `advice.py`."""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.stall_evidence import is_busy, stack_of
from rankguard.diagnosis.words import seconds, whose
from rankguard.facts import Examined, Mustered
from rankguard.stacks import Stack

SAY_SO = "`rankguard.this_rank().alive()`, WATCHDOG=1 on NOTIFY_SOCKET, or a line of output"


_CONNECTED = "a TCP socket to "
_RECEIVES = frozenset(["read", "recvfrom", "recvmsg"])


def holder(rank: RankCase, found: Examined | Mustered) -> str | None:
    """Who can do something about it, where something outside the program holds the rank (`Verdict.owner`)."""
    stack = stack_of(found, rank.rank)
    if stack is None:
        return None
    return (
        "outside"
        if stack.tracer is not None
        else {"T": "outside", "t": "outside", "D": "machine"}.get(stack.main.state)
    )


def stall_hints(case: Case, rank: RankCase | None, found: Examined) -> list[str]:
    """The most useful first."""
    stack = stack_of(found, rank.rank) if rank else None
    held = held_hint(case, rank, stack) if rank and stack else None
    peer = _peer_hint(case, rank, stack) if rank and stack else None
    hints = [held] if held is not None else [peer, _if_slow(case, rank, found)]
    if found.saved is not None:
        all_ = "all ranks" if case.spec.watch is None else "all its processes"
        hints.append(f"read what {all_} were doing: {found.saved}")
    missing = [group.stack.by for group in found.groups if group.stack.lacks == "no py-spy is installed"]
    if missing:
        what = "says in which line each rank was" if None in missing else "has every thread of each rank"
        hints.append(f"`pip install py-spy`, so that the next verdict {what}")
    return [hint for hint in hints if hint is not None]


def held_hint(case: Case, rank: RankCase, stack: Stack) -> str | None:
    """Where something outside the program holds it, or it waits for what it will not get."""
    name, main = whose(case, rank), stack.main
    if stack.tracer is not None:
        return f"a debugger (pid {stack.tracer}) held {name}: use `--debug {rank.rank}` for that"
    if main.state == "T":
        return (
            f"ask who stopped {name} (`kill -STOP`, a checkpoint tool); `kill -CONT {rank.pid}` would have let it go on"
        )
    if main.state == "D":
        return "look at the disk or the network file system that it waits for: `dmesg`, `df`, `mount`"
    if main.locked_by is not None:
        on = f" on `{main.waits_on}`" if main.waits_on else ""
        if main.locked_by == stack.pid:
            return f"{name} waits for a lock{on} that it has itself: it opened the file twice"
        return f"see why pid {main.locked_by} keeps its lock{on}"
    if main.waits_on is not None and main.waits_on.startswith("stdin"):
        return f"{name} waits for input that nobody gives: `--stdin none` lets it read an end of file instead"
    return None


def _peer_hint(case: Case, rank: RankCase, stack: Stack) -> str | None:
    """Whoever is at the other end of the connection may be at fault, or only slow."""
    main = stack.main
    if main.waits_on is None or main.waits_in not in _RECEIVES or not main.waits_on.startswith(_CONNECTED):
        return None
    peer = main.waits_on.removeprefix(_CONNECTED)
    return f"see why {peer} sends nothing: {whose(case, rank)} waits for it without a time-out of its own"


def _if_slow(case: Case, rank: RankCase | None, found: Examined) -> str:
    if case.failed_by == "ready-timeout":
        who, it = ("they are", "each rank") if rank is None else (f"{whose(case, rank)} is", "it")
        limit = case.spec.ready_timeout
        above = f"raise --ready-timeout above {seconds(limit)}" if limit is not None else "wait for longer"
        return f"if {who} only slow, {above} or let {it} send EXTEND_TIMEOUT_USEC"
    above = f"or raise --stall-timeout above {seconds(case.spec.stall_timeout or 0.0)}"
    if rank is None:
        return f"if they are only slow, let each rank say so ({SAY_SO}), {above}"
    busy = f"{whose(case, rank)} is busy and says nothing: if" if is_busy(found, rank.rank) else "if"
    return f"{busy} it is only slow, let it say so ({SAY_SO}), {above}"
