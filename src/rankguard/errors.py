"""The errors, split by who must act: the caller, the machine, the user's program, us.

Each holds typed facts; layout and colour belong to `report/`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rankguard.model import Verdict


class UsageError(ValueError):
    """The caller asked for something that has no meaning. Raised before anything is started."""

    def __init__(self, statement: str, hint: str | None = None) -> None:
        super().__init__(statement if hint is None else f"{statement} ({hint})")
        self.statement, self.hint = statement, hint

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.statement, self.hint)


class SpawnFailed(OSError):
    """The machine or the command is at fault: no rank of the job is running.

    `errno` is the kernel's where there is one; `exit_code` is what the command line ends with: 126 (cannot be
    executed), 127 (not found), 125 (a limit of this machine).
    """

    def __init__(self, statement: str, errno: int | None = None, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(errno, statement)
        self.statement, self.exit_code, self.hint = statement, exit_code, hint

    def __str__(self) -> str:
        return self.statement if self.hint is None else f"{self.statement} ({self.hint})"

    def __reduce__(self) -> tuple[type, tuple[str, int | None, int, str | None]]:
        return type(self), (self.statement, self.errno, self.exit_code, self.hint)


class RankFailed(RuntimeError):
    """A rank of the user's program failed. `verdict` says which one came first, why, and what proves it."""

    def __init__(self, verdict: "Verdict | Callable[[], Verdict]") -> None:
        """`verdict` may be given as a function: the error is then raised at once, and worded when it is looked at."""
        super().__init__()
        self._verdict = verdict

    @property
    def verdict(self) -> "Verdict":
        if callable(self._verdict):
            self._verdict = self._verdict()
        return self._verdict

    def __reduce__(self) -> tuple[type, tuple["Verdict"]]:
        return type(self), (self.verdict,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.verdict.statement!r})"

    def __str__(self) -> str:
        from rankguard.report.text import error_block  # wording is loaded when somebody reads it

        return error_block(self.verdict)


class ReadyTimeout(RankFailed, TimeoutError):
    """Not every rank was ready in time. `verdict.culprit` is the one waited for, `verdict.either` the others."""


class RankguardBug(RuntimeError):
    """A fault of rankguard itself: a fact that has no meaning in the state it arrived in, told with its story."""
