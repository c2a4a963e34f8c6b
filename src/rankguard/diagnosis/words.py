"""The words of a verdict: who, in which phase, how much memory, which signal. Pure text, no judgement.

Not the layout of the final report (`report/`). Names are the field's own: rank, process, signal names, GiB.
Read next: `causes.py`, which makes statements of them.
"""

import signal
from collections.abc import Iterable

from rankguard.case import Case, RankCase
from rankguard.model import Ending, Phase

STATEMENT = 140
"""No statement is longer: it is the subject of an alert."""


def who(case: Case, rank: RankCase) -> str:
    """`rank 5 of 8`; of processes that somebody else started `process NAME`, of a watched engine's its title."""
    if case.spec.watch is not None:
        return whose(case, rank)
    if case.spec.adopted:
        return f"process {rank.name}" if rank.name else f"process {rank.rank} of {len(case.ranks)}"
    return f"rank {rank.rank} of {len(case.ranks)}"


def whose(case: Case, rank: RankCase) -> str:
    """As `who`, without the world size: `rank 5`."""
    if case.spec.watch is not None:
        return rank.name or f"the engine `{clip(' '.join(case.spec.command), 60)}`"
    return f"process {rank.name or rank.rank}" if case.spec.adopted else f"rank {rank.rank}"


def several(case: Case, numbers: Iterable[int]) -> str:
    """`rank 3`, `ranks 0-2, 5`; of a watched engine the names of its processes."""
    wanted = sorted(set(numbers))
    if case.spec.watch is not None:
        return ", ".join(whose(case, case.ranks[number]) for number in wanted)
    return f"rank{'' if len(wanted) == 1 else 's'} {ranges(wanted)}"


def shown(phase: Phase) -> Phase:
    """The phase as users see it: what was ordered and not yet executed is starting."""
    return Phase.STARTING if phase is Phase.LAUNCHING else phase


def during(rank: RankCase) -> str:
    """`while starting`, `after it was ready` …, with a space before it; empty when the phase says nothing."""
    return {
        Phase.LAUNCHING: " while starting",
        Phase.STARTING: " while starting",
        Phase.READY: " after it was ready",
        Phase.RUNNING: " while running",
        Phase.STOPPING: " while stopping",
    }.get(rank.phase, "")


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; `signal 40` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ended_by(ending: Ending) -> str:
    """`ended by SIGKILL`, `ended with exit code 3`, `still alive`."""
    if ending.kind == "signal":
        name = ending.signal or (signal_name(ending.number) if ending.number else "a signal")
        return f"ended by {name}" + (" (core dumped)" if ending.core_dumped else "")
    if ending.kind == "alive":
        return "still alive"
    if ending.kind == "lost":
        return "lost with its node"
    return "ended, status unknown" if ending.code is None else f"ended with exit code {ending.code}"


def clip(text: str, limit: int = STATEMENT) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def size(count: float) -> str:
    """`14.9 GiB`, `110 MiB`: three digits, binary units."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            value = count / scale
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{count:.0f} bytes"


def about(count: float) -> str:
    """`130 GiB`: two digits, for numbers that are inferred."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= scale:
            value = count / scale
            return f"{float(f'{value:.2g}'):g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
    return size(count)


def seconds(duration: float) -> str:
    """`14.2 s`, `600 s`, `0.03 s`."""
    return f"{duration:.2f} s" if duration < 0.95 else f"{duration:.1f} s".replace(".0 s", " s")


def ranges(numbers: Iterable[int]) -> str:
    """`0-4, 6, 7` for 0, 1, 2, 3, 4, 6, 7: three and more in a row become a range."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return ", ".join(parts)
