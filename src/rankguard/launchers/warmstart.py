"""How the ranks of a run come to be, attempt after attempt: forked of one warm server, or executed.

Built once for a run and older than any attempt. The server (`warm.py`) lives on while there may be another attempt, so
that ranks which are started again import nothing; it is no rank and in no group of the ranks, so what ends an attempt
spares it (`pids`). Whatever speaks against it makes ranks executed, and is told to the journal.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rankguard.jobspec import JobSpec
from rankguard.linux import spawn, tree

if TYPE_CHECKING:
    from rankguard.launchers.warm import WarmServer

LOST_MOST = 2
"""Servers that may die in one run before ranks are executed: whatever ends them ends the next one, too."""


class WarmStart:
    """`begin` before the first rank of each attempt, `started` after the last, `close` when no attempt follows.

    `ready` says whether ranks can be started by now: a server takes its time to import.
    """

    def __init__(self, spec: JobSpec, note: Callable[[str], None], redact: Callable[[str], str]) -> None:
        self._spec, self._note, self._redact = spec, note, redact
        self._server: WarmServer | None = None
        self._ending: list[WarmServer] = []
        self._wanted = spec.start == "warm"
        self._lost = 0
        self.ready = True

    def begin(self, port: int) -> int:
        """The descriptor that is readable once `on_answer` should be called, or -1: ranks can be started at once.

        `port`: MASTER_PORT of this attempt.
        """
        if not self._wanted:
            if self._spec.not_warm is not None:
                self._executed(self._spec.not_warm)
            return -1
        if self._server is not None:
            if self._server.is_alive():
                self._note("ranks are forked of the server that has imported their modules already")
                return -1
            self._end("the warm server has ended since")
            self._lost += 1
        from rankguard.launchers.warm import WarmServer, why_not_warm  # only for those who asked for it

        because = why_not_warm(self._spec)
        if self._lost >= LOST_MOST:
            because = f"{self._lost} warm servers have ended by themselves"
        if because is None:
            try:
                self._server = WarmServer(self._spec, port)
            except OSError as error:
                because = f"unable to start the warm server: {error.strerror or error}"
            else:
                self.ready = False
                return self._server.fileno()
        self._executed(because)
        return -1

    def on_answer(self) -> None:
        """The warm server can fork, or cannot."""
        assert self._server is not None
        answer = self._server.answered()
        if answer["is"] == "ready":
            self._note(f"ranks are forked of a server that has imported {', '.join(answer['modules']) or 'nothing'}")
        else:
            self._end()
            self._executed(answer["because"])
        self.ready = True

    def fork(self, command: spawn.Command) -> spawn.Started | None:
        """One rank; null when it has to be executed instead."""
        if self._server is None:
            return None
        try:
            return self._server.fork(command)
        except OSError as error:
            self._end()
            self._note(self._redact(f"ranks are executed, each anew: {error.strerror or error}"))
            self._lost += 1
            return None

    def started(self) -> None:
        """The last rank of an attempt has been started."""
        if not self._spec.max_restarts:
            self.close()

    def stop(self) -> None:
        """No further rank of this attempt is wanted."""
        if not self.ready or not self._spec.max_restarts:
            self.close()
        elif self._server is not None and tree.children(self._server.pid):
            self._end("the warm server has a child process, so it is ended with the attempt")

    def close(self) -> None:
        """No attempt follows: the server is made to end, which nobody waits for. A second time does nothing."""
        self._end()
        self.ready = True

    @property
    def kept(self) -> frozenset[int]:
        """The server, as long as it is wanted: a child of ours that is no rank, and lives on when an attempt has ended."""
        return frozenset() if self._server is None else frozenset({self._server.pid})

    @property
    def pids(self) -> frozenset[int]:
        """It, and those that have been told to end and are not gone yet: nobody else signals or reaps them."""
        self._ending = [server for server in self._ending if not server.gone()]
        return self.kept | {server.pid for server in self._ending}

    def _end(self, because: str | None = None) -> None:
        if self._server is not None:
            if because is not None:
                self._note(because)
            self._server.end()
            self._ending.append(self._server)
            self._server = None

    def _executed(self, because: str) -> None:
        """In all attempts: what speaks against a warm start does not change."""
        self._wanted = False
        self._note(f"ranks are executed, each anew: {self._redact(because)}")
