"""The failure that rankguard began with: ranks fill a host cache one after another under a memory limit, rank 0 is
alive and still loading, and the kernel kills a later one.

The limit is a real one where it can be made (`testing/faults/limits.py`), else RLIMIT_AS, which ends in a MemoryError
and shows neither the kernel's choice of a victim nor its proof.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rankguard.testing.faults.limits import OURS_MIB, limited
from rankguard.testing.faults.limits import RANK_MIB as INTERPRETER_MIB
from rankguard.testing.faults.limits import why_not as why_no_limit
from rankguard.testing.faults.stage import Stage

RANK_MIB = 96


@contextlib.contextmanager
def arranged(stage: Stage) -> Iterator[tuple[bool, str, Sequence[str], Sequence[str]]]:
    """(there is a real limit, how it is set, the words before the command, the program's words)."""
    size = RANK_MIB if stage.ranks > 3 else 2 * RANK_MIB  # few ranks: more each, or what is ours would not matter
    limit = OURS_MIB + stage.ranks * INTERPRETER_MIB + size * (stage.ranks - 1) * 2 // 3
    for rank in range(1, stage.ranks):
        stage.fifo(str(rank))
    program = str(Path(__file__).with_name("host_cache.py"))
    with limited(limit) as (how, wrap):
        own = size // 2 if wrap is None else 0
        said = f"a memory limit of {limit} MiB ({how})" if wrap is not None else f"an RLIMIT_AS of {own} MiB each"
        said += f", {size} MiB of host cache each but for rank 0"
        yield wrap is not None, said, wrap or (), [program, stage.folder, str(size), str(own)]


def why_not() -> str | None:
    """What stands in the way of a real OOM kill; null when nothing does."""
    reason = why_no_limit()
    return None if reason is None else f"{reason}; a rank meets RLIMIT_AS"
