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
        self.statement = statement
        """What has no meaning, in one line."""
        self.hint = hint
        """What to write in its place; None where there is nothing better to say."""

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        return type(self), (self.statement, self.hint)


class SpawnFailed(OSError):
    """The machine or the command is at fault: no rank of the job is running. `errno` is the kernel's (errno(3)), None where
    there is none.
    """

    def __init__(self, statement: str, errno: int | None = None, exit_code: int = 125, hint: str | None = None) -> None:
        super().__init__(errno, statement)
        self.statement = statement
        """What could not be done and why, in one line."""
        self.exit_code = exit_code
        """What the command line ends with: 126 (cannot be executed), 127 (not found), 125 (a limit of this machine)."""
        self.hint = hint
        """What to do; None where there is nothing better to say."""

    def __str__(self) -> str:
        return self.statement if self.hint is None else f"{self.statement} ({self.hint})"

    def __reduce__(self) -> tuple[type, tuple[str, int | None, int, str | None]]:
        return type(self), (self.statement, self.errno, self.exit_code, self.hint)


class RankFailed(RuntimeError):
    """A rank of the user's program failed. `verdict` says which one came first, why, and what proves it; `str()` is one block
    to print: rank, node, pid, phase, how it ended, cause, evidence and its last lines.

        try:
            payloads = job.wait_ready(timeout=600)
        except rankguard.RankFailed as failed:
            print(failed, failed.verdict.culprit.cause.kind)
    """

    def __init__(self, verdict: "Verdict | Callable[[], Verdict]") -> None:
        """`verdict` may be given as a function: the error is then raised at once, and worded when it is looked at."""
        super().__init__()
        self._verdict = verdict

    @property
    def verdict(self) -> "Verdict":
        """Everything that is known: who, why, when, what proves it, what the others did. May take some milliseconds when it
        is looked at for the first time.
        """
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
