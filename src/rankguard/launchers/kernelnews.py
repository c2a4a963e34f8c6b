"""What the kernel tells of ranks beside their pidfds: lines of its log, as facts about the ranks that they mean, and the
order in which exits began.

A process is told by its pid, where the log's pids are ours (the initial PID namespace), or by its group. Not a reader of
the log (`linux/kmsg.py`) or of the order (`linux/exitorder.py`), nor a judge of what it says (`diagnosis/`). Read next: `exec.py`.
"""

import os
from collections import ChainMap
from collections.abc import Mapping
from typing import Protocol

from rankguard.circumstances import KernelNote
from rankguard.facts import KernelKilled, KernelNoted
from rankguard.launchers.contract import Emit, Surroundings
from rankguard.launchers.redaction import redacted
from rankguard.linux import tree
from rankguard.linux.exitorder import ExitOrder
from rankguard.linux.kmsg import in_init_pid_namespace
from rankguard.model import Begun

_NOTES = 64
"""Lines that are told of one job, kills for memory apart."""
_TOLD = (4, 7, 8, 11)
"""SIGILL, SIGBUS, SIGFPE, SIGSEGV: the kernel has a line for a process that dies of one of these."""
_LONGEST_EXIT_S = 60.0
"""A main thread that began to exit longer ago than that has left its process to other threads."""


class Numbered(Protocol):
    """A process that is a rank. `started`: it was made between these instants."""

    @property
    def number(self) -> int: ...
    @property
    def started(self) -> tuple[float, float]: ...


class KernelNews:
    """Of the ranks `by_pid`, which changes as they come and go."""

    def __init__(self, around: Surroundings, by_pid: Mapping[int, Numbered], emit: Emit) -> None:
        self._around, self._emit = around, emit
        self._by_pid: ChainMap[int, Numbered] = ChainMap({}, by_pid)  # type: ignore[arg-type]  # only read
        self._same_pids = in_init_pid_namespace()
        self._noted = 0
        self._order = ExitOrder() if around.spec.nprocs > 1 or around.spec.watch is not None else None
        self._begun: dict[int, Begun] = {}

    def watch(self, members: Mapping[int, Numbered]) -> None:
        """Of these, too: processes of a watched tree."""
        self._by_pid.maps[0] = members  # type: ignore[call-overload]  # only read

    def take(self, now: float, ended_by: int | None = None) -> None:
        """What has come since the last call: OOM kills, ours and others'; GPU errors; crashes, of ours alone.

        `ended_by`: the signal that has just ended a rank, since of a crash the log names the thread, which is gone.
        """
        self.note_exits(now)
        for record in self._around.kernel_log.drain():
            number = self._around.groups.rank_of(record.cgroup) if record.cgroup is not None else None
            own = self._by_pid.get(record.pid) if self._same_pids else None
            is_child = False
            if own is not None:
                number = own.number
            elif number is not None:
                is_child = self._same_pids  # in the rank's group and not the rank; elsewhere pids tell nothing
            elif not self._same_pids and not self._around.groups.tells_ranks_apart:
                continue  # it may be one of ours: neither its pid nor its group says
            self._emit(KernelKilled(now, number, record, is_child))
        for note in self._around.kernel_log.notes():
            self._note(now, note, ended_by)

    def note_exits(self, now: float) -> None:
        """Read on what the kernel tells of exits."""
        for pid, place, lived_s in self._order.take() if self._order is not None else ():
            rank = self._by_pid.get(pid)
            if rank is not None and rank.started[1] + lived_s > now - _LONGEST_EXIT_S:
                earliest, latest = (at + lived_s for at in rank.started)
                self._begun[rank.number] = Begun(place, earliest, min(latest, now))

    def begun(self, rank: int) -> Begun | None:
        """When this rank began to exit, if the kernel tells."""
        return self._begun.get(rank)

    def close(self) -> None:
        """Nothing is asked any more. (The log is the supervisor's own.)"""
        if self._order is not None:
            self._order.close()

    def _note(self, now: float, note: KernelNote, ended_by: int | None) -> None:
        rank = self._rank_of(note.pid) if note.pid is not None and self._same_pids else None
        if rank is None and note.kind != "xid" and (ended_by not in _TOLD or os.path.exists(f"/proc/{note.pid}")):
            return  # somebody else's crash
        if self._noted < _NOTES:
            self._noted += 1
            self._emit(redacted(KernelNoted(now, rank, note), self._around.redact))

    def _rank_of(self, pid: int) -> int | None:
        """The rank that this process is, or is below."""
        above = pid if pid in self._by_pid else tree.nearest(pid, self._by_pid)
        return None if above is None else self._by_pid[above].number
