"""The nouns of stacks: what a process was doing at one instant, thread by thread. Frozen values, no behaviour.

Read next: `linux/stacks.py` (takes them), `diagnosis/stacks.py` (compares those of several ranks).
"""

from rankguard.record import Record

UNREAD = "it was not read in time"
"""`Stack.lacks` of a rank of which nothing but the kernel's words is known because there were too many."""


class Frame(Record):
    """One call. `line` is where it stands in `file`; null where the source does not tell (a frame of the kernel)."""

    function: str
    file: str | None = None
    line: int | None = None


class Thread(Record):
    """One thread. `frames` innermost first, empty where only the kernel could be asked.

    `state` is the kernel's letter (proc(5)): R runs, S sleeps, D sleeps and cannot be interrupted, T is stopped, t is
    traced, Z has ended, ? unknown. `waits_in`: the system call, else the kernel's function, in which it sleeps.
    """

    tid: int
    name: str
    state: str
    frames: tuple[Frame, ...] = ()
    waits_in: str | None = None
    active: bool | None = None
    """It was not idle, as the interpreter sees it; null is unknown."""
    holds_gil: bool = False
    waits_on: str | None = None
    """The file that `waits_in` is about: a path, `stdin (pipe:[4711])`, `a TCP socket to 10.0.0.5:443`, `socket:[4712]`."""
    locked_by: int | None = None
    """The process whose lock on that file it waits for."""
    channel: str | None = None
    """The kernel's function in which it sleeps, where it cannot be interrupted (state D)."""
    native: tuple[str, ...] = ()
    """The calls in C below its innermost Python frame, innermost first: `nanosleep (libc.so.6)`. Of the odd ones only."""


class Stack(Record):
    """One process, its main thread first. `tracer`: the pid of a debugger that holds it."""

    pid: int
    name: str
    threads: tuple[Thread, ...]
    tracer: int | None = None
    child_of: int | None = None
    """The rank's own process, when this is the Python program that it started."""
    lacks: str | None = None
    """Why there are no frames, or (`by` is `faulthandler`) those of the main thread only."""
    by: str | None = None
    """What told the frames: `py-spy`, or `faulthandler`; null where there are none."""

    @property
    def main(self) -> Thread:
        """The thread that the process began with."""
        return self.threads[0]


class Group(Record):
    """Ranks that do the same, and the stack of the first of them.

    Ranks that run need not be on the same line of the same function: then that frame has no line here.
    """

    ranks: tuple[int, ...]
    """Of a watched tree also processes that are none: each as its pid with a minus."""
    stack: Stack
    names: tuple[str, ...] = ()
    """Of a watched tree: what each of them is called, `worker_TP3 (pid 4711)`; empty for ranks."""
