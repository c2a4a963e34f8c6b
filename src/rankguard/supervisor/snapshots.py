"""Stacks of ranks on request, in the supervisor: who asked, which ranks, the answer, the file that keeps it.

One request at a time; the same question asked meanwhile gets the same answer. Nothing waits: the work is the
`Sampler`'s. `examination.py` asks here too (`take`). Read next: `linux/stacks.py`, `report/stacks.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from selectors import BaseSelector
from typing import Any

from rankguard.core import story
from rankguard.core.job import Job
from rankguard.linux.procstack import pythons
from rankguard.linux.stacks import Sampler
from rankguard.record import to_data
from rankguard.report.files import RunFiles
from rankguard.stacks import Stack, Thread
from rankguard.wire import Message

PRIORITY = 4
"""Behind all news of ranks."""
Reply = Callable[[Message], None]
_KEPT = 100
"""Files of stacks in one run's folder."""


_LOOKED_AT, _PYTHONS = 256, 64
"""Processes of a watched tree that are asked whether they run Python, and stacks that are taken of those that do."""


class Snapshots:
    """Of one attempt. `numbers` are those of the run's files of stacks, one after another."""

    def __init__(
        self,
        job: Job,
        files: RunFiles,
        selector: BaseSelector,
        clock: Callable[[], float],
        redact: Callable[[str], str],
        private_dir: str,
        numbers: Iterator[int],
    ) -> None:
        self._job, self._files, self._clock, self._redact = job, files, clock, redact
        self._sampler = Sampler(selector, PRIORITY, clock, lambda rank: f"{private_dir}/{rank}.stack")
        self._asking: dict[tuple[int, ...], list[tuple[Reply, bool]]] = {}
        self._numbers = numbers
        self.tree: Callable[[], Mapping[int, str]] | None = None
        """Of a watched engine: what every process of its tree is called, by pid."""
        self._closed = False
        self.next_wake, self.wake = self._sampler.next_wake, self._sampler.wake

    def ask(self, message: Message, _now: float, reply: Reply) -> None:
        """`{"do": "stacks", "rank": null or N, "data": false}` → `{"is": "stacks", "text": …, "saved": path or null}`."""
        rank = message.get("rank")
        if rank is not None and (type(rank) is not int or not 0 <= rank < len(self._job.ranks)):
            last = len(self._job.ranks) - 1
            reply({"is": "error", "statement": f"there is no rank `{str(rank)[:20]}`; the ranks are 0 to {last}"})
            return
        if self._closed:
            reply({"is": "error", "statement": "the job is ending"})
            return
        wanted = tuple(range(len(self._job.ranks))) if rank is None else (rank,)
        waiting = self._asking.setdefault(wanted, [])
        waiting.append((reply, message.get("data") is True))
        if len(waiting) > 1:
            return
        pids, names = self._alive(wanted), None
        if rank is None and self.tree is not None:
            others, names = self.of_tree(pids)
            pids |= others
        self.take_processes(pids, lambda found: self._answer(wanted, found, names))

    def take(
        self, ranks: Iterable[int], done: Callable[[dict[int, Stack]], None], *, native: bool = False
    ) -> dict[int, Stack]:
        """The stacks of those of `ranks` that have a process. They come into what is returned one by one."""
        return self._sampler.take(self._alive(ranks), done, native=native)

    def of_tree(self, alive: Mapping[int, int]) -> tuple[dict[int, int], dict[int, str]]:
        """Of a watched engine: every Python process that is not among `alive`, its pid with a minus for its number; and
        what all of them are called.
        """
        told = {} if self.tree is None else self.tree()
        ours = set(alive.values())
        others = pythons([pid for pid in told if pid not in ours][:_LOOKED_AT], _PYTHONS)
        found = {-pid: pid for pid in others}
        return found, {key: f"{told.get(pid, 'a process')} (pid {pid})" for key, pid in {**alive, **found}.items()}

    def _alive(self, ranks: Iterable[int]) -> dict[int, int]:
        states = [self._job.ranks[rank] for rank in ranks]
        return {rank.rank: rank.pid for rank in states if rank.pid is not None and rank.exited is None}

    def take_processes(self, pids: Mapping[int, int], done: Callable[[dict[int, Stack]], None]) -> dict[int, Stack]:
        """The stacks of processes that need not be ranks, by a key of the caller's. In a tree each is looked at itself."""
        return self._sampler.take(pids, done, itself=self.tree is not None)

    def keep(
        self, found: dict[int, Stack], wanted: Iterable[int], names: Mapping[int, str] | None = None
    ) -> tuple[str, str | None]:
        """Stacks as text, and the file of the run that has it, if there is one. `names`: of a watched tree's processes."""
        from rankguard.report.stacks import stacks_text  # words that no start waits for

        elapsed = self._clock() - (self._job.started_at or self._clock())
        states = [self._job.ranks[rank] for rank in wanted]
        ended = sum(rank.pid is None or rank.exited is not None for rank in states)
        text = self._redact(stacks_text(found, len(states), ended, elapsed, names))
        return text, self._save(text)

    def close(self) -> None:
        """The job ends: end what is at work, and tell those who wait."""
        self._closed = True
        self._sampler.close()
        for waiting in self._asking.values():
            for reply, _data in waiting:
                reply({"is": "error", "statement": "the job ended before all stacks were taken"})
        self._asking.clear()

    def _answer(self, wanted: tuple[int, ...], found: dict[int, Stack], names: Mapping[int, str] | None) -> None:
        text, saved = self.keep(found, wanted, names)
        message: dict[str, Any] = {"is": "stacks", "text": text, "saved": saved}
        for reply, data in self._asking.pop(wanted, []):
            reply(message | ({"stacks": self._data(found)} if data else {}))

    def _save(self, text: str) -> str | None:
        number = next(self._numbers)
        name = f"stacks-{number}.txt"
        if number > _KEPT or not self._files.save(name, text):
            return None
        self._files.append(story.note(f"stacks of ranks were taken: `{name}`"))
        return f"{self._files.folder}/{name}"

    def _data(self, found: dict[int, Stack]) -> list[dict[str, Any]]:
        """Names of threads and files are words of the program, and may hold what is to be hidden."""
        clean = {rank: stack.replace(threads=tuple(map(self._clean, stack.threads))) for rank, stack in found.items()}
        return [{"rank": rank} | to_data(stack) for rank, stack in sorted(clean.items())]

    def _clean(self, thread: Thread) -> Thread:
        on = None if thread.waits_on is None else self._redact(thread.waits_on)
        return thread.replace(name=self._redact(thread.name), waits_on=on)
