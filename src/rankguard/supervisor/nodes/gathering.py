"""What all nodes are asked, and made one answer of: the stacks of every rank, what all are doing when one is late.

For the coordinator of a job on several machines. A node that does not answer in time is done without.
Read next: `world.py`, `../examination.py` (what an agent does), `../snapshots.py`.
"""

import itertools
from collections.abc import Callable, Iterator

from rankguard.core.job import Job
from rankguard.facts import Examined, Fact
from rankguard.launchers.fleet import Fleet, Node
from rankguard.launchers.nodes import NodeRanks
from rankguard.record import from_data, to_data
from rankguard.report.files import RunFiles
from rankguard.stacks import Stack
from rankguard.supervisor.examination import EACH_S, MOST_S, told_groups
from rankguard.wire import Message

_STACKS_S = 10.0
_MORE_S = 1.0
"""For the way there and back, above what an agent takes at most."""
_KEPT = 100
"""Files of stacks in one run's folder."""


class Gathering:
    """Of one attempt; a part of it. `numbers` are those of the run's files of stacks."""

    def __init__(
        self,
        job: Job,
        fleet: Fleet,
        ranks: NodeRanks,
        files: RunFiles,
        clock: Callable[[], float],
        *,
        emit: Callable[[Fact], None],
        redact: Callable[[str], str],
        numbers: Iterator[int],
    ) -> None:
        self._job, self._fleet, self._ranks, self._files, self._clock = job, fleet, ranks, files, clock
        self._emit, self._redact, self._numbers = emit, redact, numbers
        self._asked = itertools.count(1)
        self._open: list[_Asked] = []
        self._examining: _Asked | None = None
        self._examined: list[Examined] = []
        ranks.examined = self._on_examined

    def next_wake(self) -> float | None:
        self._open = [asked for asked in self._open if asked.awaited]
        return min((asked.until for asked in self._open), default=None)

    def wake(self, now: float) -> None:
        """Who has not answered by now is done without."""
        for asked in tuple(self._open):
            if now >= asked.until:
                asked.end()

    # ── Stacks, on request ───────────────────────────────────────────────────────────────────────────────────────

    def stacks(self, message: Message, now: float, reply: Callable[[Message], None]) -> None:
        """`{"do": "stacks", "rank": null or N}`, as `../snapshots.py` answers it on one machine."""
        rank, each, size = message.get("rank"), self._fleet.plan.nproc, self._job.spec.nprocs
        if rank is not None and (type(rank) is not int or not 0 <= rank < size):
            reply({"is": "error", "statement": f"there is no rank `{str(rank)[:20]}`; the ranks are 0 to {size - 1}"})
            return
        found: dict[int, Stack] = {}

        def done() -> None:
            text, saved = self._keep(found, range(size) if rank is None else (rank,))
            told: Message = {"is": "stacks", "text": text, "saved": saved}
            if message.get("data") is True:
                told["stacks"] = [{"rank": number} | to_data(stack) for number, stack in sorted(found.items())]
            reply(told)

        nodes = [node for node in self._at_work() if rank is None or node.number == rank // each]
        asked = self._ask(nodes, now + _STACKS_S, done)
        for node in nodes:

            def answered(answer: Message, node: Node = node) -> None:
                for data in answer.get("stacks", ()):
                    stack = {name: value for name, value in data.items() if name != "rank"}
                    found[node.number * each + data["rank"]] = from_data(Stack, stack)
                asked.heard(node.number)

            self._ranks.ask_stacks(node, next(self._asked), None if rank is None else rank % each, answered)

    def _at_work(self) -> list[Node]:
        """Those that have ranks."""
        return [node for node in self._fleet.living() if node.begun and not node.done]

    def _ask(self, nodes: list[Node], until: float, done: Callable[[], None]) -> "_Asked":
        asked = _Asked({node.number for node in nodes}, until, done)
        if asked.awaited:
            self._open.append(asked)
        else:
            done()
        return asked

    def _keep(self, found: dict[int, Stack], wanted: "range | tuple[int, ...]") -> tuple[str, str | None]:
        """Stacks as text, and the file of the run that has it."""
        from rankguard.report.stacks import stacks_text  # words that no start waits for

        states = [self._job.ranks[rank] for rank in wanted]
        ended = sum(rank.pid is None or rank.gone for rank in states)
        elapsed = self._clock() - (self._job.started_at or self._clock())
        text = self._redact(stacks_text(found, len(states), ended, elapsed, None))
        number = next(self._numbers)
        name = f"stacks-{number}.txt"
        kept = number <= _KEPT and self._files.save(name, text)
        return text, f"{self._files.folder}/{name}" if kept else None

    # ── What all are doing when one is late ──────────────────────────────────────────────────────────────────────

    def examine(self, number: int, now: float) -> None:
        """Ask every node; one `Examined` of all comes of it."""
        self._examined = []
        nodes = self._at_work()
        until = now + MOST_S + EACH_S * self._fleet.plan.nproc + _MORE_S
        self._examining = self._ask(nodes, until, lambda: self._tell(number))
        for node in nodes:
            self._ranks.ask_examine(node, number)

    def _on_examined(self, node: Node, examined: Examined, _now: float) -> None:
        if self._examining is not None and node.number in self._examining.awaited:
            self._examined.append(examined)
            self._examining.heard(node.number)

    def _tell(self, number: int) -> None:
        self._examining = None
        now, parts = self._clock(), self._examined
        found = {rank: group.stack for part in parts for group in part.groups for rank in group.ranks}
        _text, saved = self._keep(found, range(self._job.spec.nprocs)) if found else ("", None)
        self._emit(
            Examined(
                now,
                number,
                self._ranks.signs(now),
                tuple(each for part in parts for each in part.cpu),
                max((part.within_s for part in parts), default=0.0),
                told_groups(found),
                saved,
                tuple(each for part in parts for each in part.used),
                tuple(each for part in parts for each in part.below),
            )
        )


class _Asked:
    """Nodes whose answer is awaited until an instant; `done` is called once."""

    def __init__(self, awaited: set[int], until: float, done: Callable[[], None]) -> None:
        self.awaited, self.until, self._done = awaited, until, done

    def heard(self, node: int) -> None:
        """It has answered."""
        if node in self.awaited:
            self.awaited.discard(node)
            if not self.awaited:
                self._done()

    def end(self) -> None:
        """Nobody else is waited for."""
        if self.awaited:
            self.awaited.clear()
            self._done()
