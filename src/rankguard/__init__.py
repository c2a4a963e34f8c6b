"""rankguard: launch the ranks of a distributed job, and know within milliseconds which one failed first, and why.

The public names are here and nothing else is public. Each is loaded when it is first used, so that `import rankguard`
costs an engine nothing.
"""

from typing import TYPE_CHECKING, Any

from rankguard._version import __version__

if TYPE_CHECKING:
    from rankguard.errors import RankFailed, RankguardBug, ReadyTimeout, SpawnFailed, UsageError
    from rankguard.inside.this_rank import Rank, this_rank
    from rankguard.job import Job, launch
    from rankguard.adopt import Guard, guard, stop, wait_ready
    from rankguard.model import Verdict

_HOME = {
    "Guard": "rankguard.adopt",
    "Job": "rankguard.job",
    "Rank": "rankguard.inside.this_rank",
    "RankFailed": "rankguard.errors",
    "RankguardBug": "rankguard.errors",
    "ReadyTimeout": "rankguard.errors",
    "SpawnFailed": "rankguard.errors",
    "UsageError": "rankguard.errors",
    "Verdict": "rankguard.model",
    "guard": "rankguard.adopt",
    "launch": "rankguard.job",
    "stop": "rankguard.adopt",
    "this_rank": "rankguard.inside.this_rank",
    "wait_ready": "rankguard.adopt",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rankguard' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
