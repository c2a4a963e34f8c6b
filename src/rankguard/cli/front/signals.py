"""What the front does with each signal. The table, row by row: docs/signals.md.

All signals are blocked and read as news, so none ends us by its default. Ctrl-Z (and `kill -TSTP`) suspends the whole
job: the ranks lead sessions of their own, so the terminal stops none of them. The supervisor is asked to; only when it
says that every rank and every clock stands do we stop ourselves, so that the shell's `fg` and `bg` work as always.

Not here: what the supervisor does with a signal that is sent to it, or that a rank sends (`../../supervisor/`).
"""

import os
import signal
from collections.abc import Callable
from types import SimpleNamespace

from rankguard.client import Client
from rankguard.linux.child import state
from rankguard.linux.libc import ALL_SIGNALS
from rankguard.linux.signalpipe import signal_news
from rankguard.linux.signals import Received, name
from rankguard.record import to_data

STOP = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
PASS_ON = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH})
LEFT_ALONE = frozenset({signal.SIGTTIN, signal.SIGTTOU})
"""A background job that uses the terminal against the user's will is stopped by the kernel, as any other. Ranks run on."""
KEPT_IGNORED = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP})
"""Ignored when we started, ignored by us: `nohup`, and what a script's shell does for a command with `&`."""
_NO_WORD = frozenset({signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGIO})
"""Ours, or of no meaning to anybody: dropped without a word."""


class Signals:
    """Of one front. `step_aside` and `come_back` are called before and after we stand still, `say` for a warning."""

    def __init__(
        self,
        asked: SimpleNamespace,
        *,
        say: Callable[[str], None],
        step_aside: Callable[[], None],
        come_back: Callable[[], None],
        stays: Callable[[], bool],
        on_child: Callable[[], None],
        on_resize: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._end = STOP | (asked.signals_to_handle or frozenset())
        self._say, self._on_child, self._on_resize, self._on_end = say, on_child, on_resize, on_end
        self._step_aside, self._come_back, self._stays = step_aside, come_back, stays
        ignored = {number for number in KEPT_IGNORED if signal.getsignal(number) == signal.SIG_IGN}
        self._queue = signal_news(ALL_SIGNALS - LEFT_ALONE - ignored)
        self._suspends = False
        """We have asked for it, and nobody has told us to go on since."""
        self._said: set[int] = set()

    def fileno(self) -> int:
        return self._queue.fileno()

    def came(self) -> frozenset[int]:
        """What has come since the last look, and is not acted on (the job is over)."""
        return frozenset(received.signal for received in self._queue.drain())

    def act(self, client: Client) -> None:
        """Do what the signals that have come mean."""
        for received in self._queue.drain():
            self._on_signal(client, received)

    def told(self, client: Client, what: str) -> None:
        """What the supervisor told. (That the job goes on is told late: Ctrl-Z may have come again since.)"""
        if what == "suspended":
            self._stand_still(client)

    def _on_signal(self, client: Client, received: Received) -> None:
        number = received.signal
        if number in self._end:
            client.stop(number, sender=to_data(received.sender))
            self._on_end(number)
        elif number == signal.SIGTSTP:
            self._suspend(client)
        elif number == signal.SIGCONT and self._suspends:
            self._suspends = False
            client.send({"do": "resume"})
        elif number in PASS_ON:
            client.send({"do": "signal", "signal": int(number)})
            if number in (signal.SIGWINCH, signal.SIGCONT):
                self._on_resize()
        elif number == signal.SIGQUIT:
            client.send({"do": "stacks"})
        elif number == signal.SIGCHLD:
            self._on_child()
        elif number not in _NO_WORD:
            self._warn(number, "SIGUSR1 and SIGUSR2 are passed on to the ranks")

    def _warn(self, number: int, hint: str) -> None:
        """Once a signal."""
        if number not in self._said:
            self._said.add(number)
            self._say(f"warning: {name(number)} has no effect: {hint}")

    def _suspend(self, client: Client) -> None:
        if os.getpid() == 1 or _is_orphaned():
            self._warn(signal.SIGTSTP, "no shell is there to go on with `fg`; SIGSTOP and SIGCONT do it from outside")
        else:
            self._suspends = True
            client.send({"do": "suspend"})

    def _stand_still(self, client: Client) -> None:
        self.act(client)  # a SIGCONT that came meanwhile: to stop now would swallow it (signal(7))
        if not self._suspends:
            return
        self._step_aside()
        os.kill(os.getpid(), signal.SIGSTOP)
        while self._stays() and not signal.sigpending() & self._end:  # `bg`, and a rank would read what is typed there
            os.kill(os.getpid(), signal.SIGSTOP)
        self._come_back()
        client.send(
            {"do": "signal", "signal": int(signal.SIGWINCH)}
        )  # who is in the background is not told of a new size


def _is_orphaned() -> bool:
    """No process of our session could continue us, as POSIX has it: then the kernel lets SIGTSTP stop nobody, either.

    That is whoever has a parent in our session and outside of our process group, most often the shell of the first of us.
    """
    group, session, pid = os.getpgrp(), os.getsid(0), os.getpid()
    while (told := state(pid)) is not None and (pid := told[1]) > 0:
        try:
            if os.getsid(pid) != session:
                return True
            if os.getpgid(pid) != group:
                return False
        except (ProcessLookupError, PermissionError):
            return True
    return True
