"""`rankguard doctor`: what this machine allows, what each missing thing costs, and how to get it.

Exit status 0 when nothing essential is missing, 1 when ranks could not be run here. Read next: `doctor/`, docs/doctor.md.
"""

import os
import socket
from collections.abc import Sequence

from rankguard.cli import say
from rankguard.cli.verbs import parse
from rankguard.errors import UsageError


def doctor(words: Sequence[str]) -> int:
    """Examine this machine and tell."""
    asked = parse("doctor", words)
    if asked is None:
        return 0
    ranks = len(os.sched_getaffinity(0)) if asked.ranks is None else asked.ranks
    if not 1 <= ranks <= 1 << 20:
        raise UsageError(f"`--ranks {ranks}`: expected 1 or more", "rankguard doctor -n 8")
    from rankguard.doctor import leftovers, page
    from rankguard.doctor.catalogue import checks_for
    from rankguard.doctor.check import Machine
    from rankguard.doctor.probes import examine

    removed = _clean() if asked.clean else None
    findings = examine(checks_for(getattr(asked, "for")), Machine(ranks, os.getpid()))
    leftovers.remove_groups_of_doctor(os.getpid())
    node = socket.gethostname()
    if asked.json:
        print(page.as_json(findings, node, removed))
    else:
        for one in removed or ():
            print(f"removed  {one['path']}" if one["error"] is None else f"left     {one['path']}: {one['error']}")
        for line in page.as_text(findings, node, color=say.in_color(1)):
            print(line)
    return 0 if page.can_run(findings) else 1


def _clean() -> list[dict[str, str | None]]:
    """Remove what is provably dead; what was removed, and why not where it was not."""
    from rankguard.doctor import leftovers

    return [
        {"kind": dead.kind, "path": dead.path, "because": dead.because, "error": leftovers.remove(dead)}
        for dead in leftovers.of_dead_runs()
    ]
