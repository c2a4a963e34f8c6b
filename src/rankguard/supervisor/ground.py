"""What an attempt stands on: all that outlives it. `main.py` makes it, `attempt.py` uses it."""

from collections.abc import Callable, Iterator
from selectors import BaseSelector
from typing import TYPE_CHECKING, NamedTuple

from rankguard.jobspec import JobSpec
from rankguard.launchers.terminal import Terminal
from rankguard.launchers.warmstart import WarmStart
from rankguard.linux.awake import Awake
from rankguard.linux.console import Console
from rankguard.linux.memory import MemoryDomain
from rankguard.model import Verdict
from rankguard.report.files import RunFiles
from rankguard.report.terminationlog import TerminationLog
from rankguard.supervisor.backpressure import Backpressure
from rankguard.supervisor.failopen import FailOpen
from rankguard.wire import Wire

if TYPE_CHECKING:
    from rankguard.launchers.fleet import Fleet
    from rankguard.supervisor.keeping import Keeping
    from rankguard.supervisor.memorylog import MemoryLog
    from rankguard.supervisor.nodes.uplink import Uplink
    from rankguard.supervisor.nodes.watchlink import WatchLink
    from rankguard.supervisor.page import Page


class Ground(NamedTuple):
    """What outlives an attempt; `main.py` makes it. `redact` hides the job's secrets, `ours` are pids of rankguard."""

    spec: JobSpec
    wire: Wire
    files: RunFiles
    selector: BaseSelector
    consoles: tuple[Console | None, Console | None]
    on_terminal: bool
    """Stderr is a terminal."""
    terminal: Terminal
    passed: tuple[int, ...]
    private_dir: str
    memory: MemoryDomain
    redact: Callable[[str], str]
    ours: frozenset[int]
    few_fds: bool
    note: Callable[[str], None]
    """Tells the warden what to remove if we cannot."""
    reading: Backpressure
    warm: WarmStart
    awake: Awake
    stacks: Iterator[int]
    """Numbers for the run's files of stacks."""
    pids: set[int]
    """Those of ranks of attempts that are over."""
    last_word: TerminationLog
    heals: Callable[[Verdict], bool]
    """Whether a failure is followed by another attempt, as far as is known now."""
    failopen: FailOpen
    course: "MemoryLog"
    keeping: "Keeping | None" = None
    page: "Page | None" = None
    uplink: "Uplink | WatchLink | None" = None
    """To the coordinator, of whose job this is one node's part."""
    fleet: "Fleet | None" = None
    """The nodes that this run coordinates."""
