"""What is said while ranks start, where nobody can be shown a live view: a line now and then, and one when all are ready.

One line at 10, 30 and 60 s and then each minute, while somebody who is expected to report readiness has not. Before that,
on several machines, lines of the supervisor about nodes that have not joined; of readiness only node 0 tells, for all.
"""

from typing import Any

FIRST = (10.0, 30.0, 60.0)
THEN = 60.0


class Progress:
    """Counts readiness; `line` and `told` give a line to print, or None; `asks` when it is time for one."""

    def __init__(self, nprocs: int, began: float, *, quiet: bool, watched: bool = False, part: bool = False) -> None:
        """`part`: these ranks are one node's part of a job."""
        self._nprocs, self._began, self._watched = nprocs, began, watched
        self._silent, self._quiet = quiet, quiet or part
        self._ready: dict[int, float] = {}
        self._said = 0
        self._waiting = False

    def ready(self, rank: int, now: float) -> None:
        """A rank became ready."""
        self._waiting = True
        self._ready.setdefault(rank, now - self._began)

    def told(self, message: dict[str, Any], now: float) -> str | None:
        """What the supervisor told."""
        match message["what"]:
            case "readiness-expected":
                self._waiting = True
            case "judged" | "attempt-failed" | "stopping":
                self._waiting = False
                self._quiet = True
            case "note":
                return f"warning: {message['text']}"
            case "joining" if not self._silent:
                return str(message["text"])
            case "all-ready" if not self._quiet:
                return self._all_ready(now)
        return None

    def _all_ready(self, now: float) -> str:
        from rankguard.report.text import all_ready_line

        self._waiting = False
        if self._watched:
            return f"the engine is ready after {now - self._began:.1f} s"
        order = sorted(self._ready.items(), key=lambda entry: entry[1])
        if not order:
            return f"all {self._nprocs} ranks ready in {now - self._began:.1f} s"
        slowest, took = order[-1]
        lead = took - order[-2][1] if len(order) > 1 else 0.0
        return all_ready_line(self._nprocs, took, slowest, lead)

    def due_at(self) -> float | None:
        """When the next line is due."""
        if self._quiet or not self._waiting:
            return None
        after = FIRST[self._said] if self._said < len(FIRST) else FIRST[-1] + THEN * (self._said - len(FIRST) + 1)
        return self._began + after

    def asks(self, now: float) -> bool:
        """A line is due: the supervisor is to be asked who is not ready."""
        due = self.due_at()
        if due is None or now < due:
            return False
        while due is not None and due <= now:  # one line, however many were due while a view stood in for them
            self._said += 1
            due = self.due_at()
        return True

    def line(self, message: dict[str, Any], now: float) -> str | None:
        """The progress line, from the supervisor's answer; none when somebody only asked whether it answers."""
        if self._quiet:
            return None
        from rankguard.report.text import engine_line, progress_line

        waiting = [tuple(entry) for entry in message["waiting"]]
        if self._watched and waiting:
            return engine_line(now - self._began, *waiting[0][1:], probe=message["probe"])
        return progress_line(now - self._began, message["ready"], self._nprocs, waiting) if waiting else None
