"""A fault of ours is never the engine's: under `--on-lost keep` a part that raises is dropped, told of, and done without.

What may be missed is named here: everything but the step, the ranks' own news, their output, and the front's requests. If
one of those raises, this process ends, and front and warden keep the engine (docs/decisions/0013-fail-open.md). Under
`--on-lost end` nothing is caught: whatever is raised ends the job, as ever. Read next: `keeping.py`, `attempt.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from selectors import SelectorKey
from typing import Any, ParamSpec, Protocol, TypeVar

from rankguard.driver import URGENT
from rankguard.launchers.contract import Told
from rankguard.launchers.exec import NEWS_EXIT, NEWS_NOTIFY, NEWS_OUTPUT
from rankguard.linux.console import Console
from rankguard.report.output import Output

NEEDED = frozenset({URGENT, NEWS_EXIT, NEWS_OUTPUT})
"""News that cannot be done without, by its priority."""
JOURNAL, DESK, OUTPUT, SAMPLES, NOTIFY = (
    "the journal",
    "news to the front",
    "output line by line",
    "memory samples",
    "sd_notify",
)
TREE, READINESS = "the watch of the tree", "the look at readiness"
PAGE = "the page (--http)"
_NAMES = {
    "Samples": SAMPLES,
    "OnScreen": "the live view",
    "Snapshots": "stacks",
    "Examination": "the look at a stall",
    "Muster": "the look at a collective",
    "Survey": "the look round at a failure",
    "ShmOwners": "owners of shared memory",
    "Control": "answers to other terminals",
    "Roster": TREE,
    "TreeWatch": TREE,
    "Readiness": READINESS,
    "NearAsk": READINESS,
    "FileLook": READINESS,
    "Output": OUTPUT,
    "Page": PAGE,
}
DEAF = {
    NOTIFY: ("ready", "stall"),
    READINESS: ("ready",),
    OUTPUT: ("stall",),
    "the look at a stall": ("ready", "stall"),
}
"""What cannot be heard without them: no engine is ended for it."""
_TEXT = 300

P = ParamSpec("P")
R = TypeVar("R")


class Part(Protocol):
    """What does its work now and then: `wake(now)` does what is due, `next_wake()` says when it wants to be called."""

    @property
    def wake(self) -> Callable[[float], None]: ...
    @property
    def next_wake(self) -> Callable[[], float | None]: ...


class FailOpen:
    """Of one run. `keep`: parts are dropped, else what they raise is raised. `told(part, statement, details)`."""

    def __init__(self, told: Callable[[str, str, str], None], *, keep: bool) -> None:
        self.keep, self._told = keep, told
        self.off: set[str] = set()
        """What is missing."""

    def part(self, name: str, call: Callable[P, R], instead: Callable[P, R]) -> Callable[P, R]:
        """The same, until it raises; then and from now on what `instead` gives."""
        if not self.keep:
            return call

        def guarded(*args: P.args, **named: P.kwargs) -> R:
            if name not in self.off:
                try:
                    return call(*args, **named)
                except Exception as error:  # noqa: BLE001  # whatever it is, the engine is not to blame
                    self.drop(name, error)
            return instead(*args, **named)

        return guarded

    def wake(self, parts: list[Part], now: float, needed: Part) -> float | None:
        """Each part does what is due; when the first wants to be called next. Only what `needed` raises is raised."""
        for part in tuple(parts):
            try:
                part.wake(now)
            except Exception as error:  # noqa: BLE001  # as in `part`
                self._drop_of(parts, part, error, needed)
        due: list[float] = []
        for part in tuple(parts):
            try:
                at = part.next_wake()
            except Exception as error:  # noqa: BLE001  # as in `part`
                self._drop_of(parts, part, error, needed)
            else:
                due += [] if at is None else [at]
        return min(due, default=None)

    def _drop_of(self, parts: list[Part], part: Part, error: Exception, needed: Part) -> None:
        if part is needed:
            raise error
        self.drop(name_of(part), error)
        parts.remove(part)

    def drop(self, name: str, error: Exception) -> None:
        """Done without from now on. Under `end` the error is raised."""
        if not self.keep:
            raise error
        if name in self.off:
            return
        self.off.add(name)
        said = f"{type(error).__name__}: {error}"[:_TEXT]
        import traceback  # no start waits for it

        details = "".join(traceback.format_exception(error))
        self._told(name, f"{name} failed and is switched off, all else goes on ({said})", details)

    def spare(self, key: SelectorKey, error: Exception) -> bool:
        """Whether news whose callback raised can be done without; then nobody listens to it any more."""
        owner = owner_of(key.data[1])
        if not self.keep or (key.data[0] in NEEDED and owner not in _NAMES):
            return False
        self.drop(NOTIFY if key.data[0] == NEWS_NOTIFY else name_of(key.data[1]), error)
        return True


def nothing(*_args: object) -> None:
    """In place of a part that failed."""


def name_of(part: Any) -> str:
    """A part or a callback of one, for people."""
    owner = owner_of(part)
    return _NAMES.get(owner, owner.lower())


def owner_of(part: Any) -> str:
    """The class that a part or a callback belongs to, a lambda within it, too; of another function its name."""
    while isinstance(part, partial):
        part = part.func
    owner = type(getattr(part, "__self__", part)).__name__
    return str(getattr(part, "__qualname__", owner)).partition(".")[0] if owner == "function" else owner


class SafeOutput:
    """The ranks' output line by line, in files and on the console; if that raises: its bytes on the console, as they are."""

    def __init__(self, output: Output, consoles: Sequence[Console | None], failopen: FailOpen) -> None:
        self._output, self._consoles, self._failopen = output, consoles, failopen
        guard = failopen.part
        self.ended = guard(OUTPUT, output.ended, lambda *_args, **_named: None)
        self.tail: Callable[[int], tuple[str, ...]] = guard(OUTPUT, output.tail, lambda rank: ())
        self.log_of: Callable[[int], str | None] = guard(OUTPUT, output.log_of, lambda rank: None)

    def feed(self, rank: int, which: int, data: bytes, now: float) -> None:
        """Bytes that a rank wrote. Those at which it raised may be shown twice, rather than not at all."""
        if OUTPUT not in self._failopen.off:
            try:
                self._output.feed(rank, which, data, now)
                return
            except Exception as error:  # noqa: BLE001  # as above
                self._failopen.drop(OUTPUT, error)
        console = self._consoles[which]
        if console is not None:
            console.write(data)


def safe_output(output: Output, consoles: Sequence[Console | None], failopen: FailOpen) -> Told:
    """`output` itself where nothing is caught."""
    return SafeOutput(output, consoles, failopen) if failopen.keep else output
