"""rankguard: launch the ranks of a distributed job, and know within milliseconds which one failed first, and why.

The public names are here and nothing else is public. Each is loaded when it is first used, so that `import rankguard`
costs an engine nothing.
"""

from rankguard._version import __version__

TYPE_CHECKING = False
"""Not `typing`'s: nothing is loaded before `__main__.py` has put the standard library first."""
if TYPE_CHECKING:
    from rankguard.adopt import Guard, guard, stop, wait_ready
    from rankguard.errors import RankFailed, RankguardBug, ReadyTimeout, SpawnFailed, UsageError
    from rankguard.inside.this_rank import Rank, this_rank
    from rankguard.job import Job, launch
    from rankguard.model import Verdict
    from rankguard.readrun import Run, read_run

__all__ = [
    "Guard",
    "Job",
    "Rank",
    "RankFailed",
    "RankguardBug",
    "ReadyTimeout",
    "Run",
    "SpawnFailed",
    "UsageError",
    "Verdict",
    "__version__",
    "guard",
    "launch",
    "read_run",
    "stop",
    "this_rank",
    "wait_ready",
]

_HOMES = {
    "adopt": ("Guard", "guard", "stop", "wait_ready"),
    "errors": ("RankFailed", "RankguardBug", "ReadyTimeout", "SpawnFailed", "UsageError"),
    "inside.this_rank": ("Rank", "this_rank"),
    "job": ("Job", "launch"),
    "model": ("Verdict",),
    "readrun": ("Run", "read_run"),
}


if not TYPE_CHECKING:  # a type checker would take it for a module that has every name

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                value = globals()[name] = getattr(import_module(f"rankguard.{home}"), name)
                return value
        raise AttributeError(f"module 'rankguard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
