"""What to do about a stalled job: hints from what the ranks were seen doing. Pure; used by `advice.py`."""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.stalls import is_busy, stack_of
from rankguard.diagnosis.words import seconds, whose
from rankguard.facts import Examined

SAY_SO = "`rankguard.this_rank().alive()`, WATCHDOG=1 on NOTIFY_SOCKET, or a line of output"


def holder(rank: RankCase, found: Examined) -> str | None:
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
    hints = []
    stack = stack_of(found, rank.rank) if rank else None
    limit = seconds(case.spec.stall_timeout or 0.0)
    if rank and stack and stack.tracer is not None:
        hints.append(f"a debugger (pid {stack.tracer}) held {whose(case, rank)}: use `--debug {rank.rank}` for that")
    elif rank and stack and stack.main.state == "T":
        hints.append(f"ask who stopped {whose(case, rank)} (`kill -STOP`, a shell's Ctrl-Z, a checkpoint tool)")
    elif rank and stack and stack.main.state == "D":
        hints.append("look at the disk or the network file system that it waits for: `dmesg`, `df`, `mount`")
    elif rank:
        busy = f"{whose(case, rank)} is busy and says nothing: if" if is_busy(found, rank.rank) else "if"
        hints.append(f"{busy} it is only slow, let it say so ({SAY_SO}), or raise --stall-timeout above {limit}")
    else:
        hints.append(f"if they are only slow, let each rank say so ({SAY_SO}), or raise --stall-timeout above {limit}")
    if found.saved is not None:
        hints.append(f"read what all ranks were doing: {found.saved}")
    if any(group.stack.lacks == "no py-spy is installed" for group in found.groups):
        hints.append("`pip install py-spy`, so that the next verdict says in which line each rank was")
    return hints
