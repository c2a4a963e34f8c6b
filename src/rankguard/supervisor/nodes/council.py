"""`python -m rankguard.supervisor.nodes.council`: the coordinator of a watch over several nodes.

Each node watches its own engine and decides about it by itself (`watchlink.py`). Here their news meet: the first engine that
fails, a node that is lost and a request to end make all engines end, and when all have ended every node is told the same
verdict (`../../diagnosis/parts.py`). It holds no state that the nodes cannot tell again: a new one in its place knows as much
as soon as they have joined it.

stdin: one line of JSON, a JobSpec with `nodes`; its end means that node 0's supervisor is gone, and ends this. stdout:
lines of JSON, `{"told": …}` for who is waited for, `{"failed": …}` when it cannot listen. Read next: `seat.py`.
"""

import json
import os
import signal
import sys
import time
from selectors import EVENT_READ, DefaultSelector
from typing import Any

from rankguard._version import __version__
from rankguard.diagnosis.parts import Part, verdict_of_all
from rankguard.errors import SpawnFailed
from rankguard.facts import NodeJoined, NodeLost
from rankguard.jobspec import JobSpec, NodesPlan
from rankguard.launchers.fleet import Fleet, Node
from rankguard.linux.libc import set_name
from rankguard.model import Verdict
from rankguard.nodes.link import Message
from rankguard.record import from_data

clock = time.monotonic
BACK_S = 1.0
"""A connection that is closed may be made anew within so many seconds; then its node is lost."""


def main() -> int:
    """The program."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):  # these are for the front
        signal.signal(number, signal.SIG_IGN)
    set_name("rankguard-all")
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0
    try:
        council = Council(from_data(JobSpec, json.loads(line)))
    except SpawnFailed as error:
        _say({"failed": f"the other nodes cannot be met: {error.statement}"})
        return 1
    return council.run()


def _say(said: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(said).encode() + b"\n")
    except OSError:
        pass  # whoever reads it is gone, and so shall we be


class Council:
    """Of one watch. Raises `SpawnFailed` when nothing can be listened to."""

    def __init__(self, spec: JobSpec) -> None:
        assert spec.nodes is not None
        self._spec, self._plan = spec, spec.nodes
        self._selector = DefaultSelector()
        # What its nodes say of themselves is of a watch; nobody who launches ranks can join by mistake.
        self._fleet = Fleet(spec.replace(nodes=spec.nodes.replace(nproc=0)), self._selector, clock, self._told)
        self._fleet.taker = self
        self._began, self._wall = clock(), time.time()
        self._parts: dict[int, Part] = {}
        self._unheard: dict[int, list[Message]] = {}
        """What came of nodes whose clock is not known yet."""
        self._away: dict[int, tuple[Node, str, float]] = {}
        self._lost: dict[int, NodeLost] = {}
        self._order: Message | None = None
        """That all engines are to end, once it has been given."""
        self._asked_first: int | None = None
        self._ended_at: float | None = None
        self._gone = False
        self._selector.register(0, EVENT_READ, (0, self._on_stdin))

    @property
    def plan(self) -> NodesPlan:
        return self._plan

    def run(self) -> int:
        """Until all nodes have ended, or node 0's supervisor has."""
        while not self._gone and not self._over(clock()):
            now = clock()
            self._fleet.wake(now)
            self._look_at_away(now)
            due = [at for at in (self._fleet.next_wake(), self._away_until(), self._wait_until()) if at is not None]
            news = self._selector.select(max(0.0, min(due) - clock()) if due else None)
            for key, _events in sorted(news, key=lambda entry: entry[0].data[0]):
                key.data[1](clock())
        if not self._gone:
            self._fleet.finish(self.verdict().to_dict())
            self._fleet.close()
        return 0

    def _on_stdin(self, _now: float) -> None:
        self._gone = not os.read(0, 4096)

    def _told(self, text: str) -> None:
        _say({"told": text})

    # ── Who is there ─────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def awaits(self) -> bool:
        """Somebody has never joined."""
        return self._order is None and len(self._parts) < self._plan.count

    def joined(self, node: Node, now: float) -> None:
        self._away.pop(node.number, None)
        self._unheard[node.number] = []
        known = self._parts.get(node.number)
        at = NodeJoined(now, node.number, node.name, node.number, 1, node.link.peer)
        self._parts[node.number] = Part(node=at) if known is None else known.replace(node=at)
        if len(self._parts) == self._plan.count > 1 and known is None:
            self._tell_all("joining", f"all {self._plan.count} nodes are watched together")
        if self._order is not None:
            self._fleet.send(node, self._order)

    def measured(self, node: Node, now: float) -> None:
        part = self._parts[node.number]
        self._parts[node.number] = part.replace(uncertainty=node.offset.uncertainty())
        held, self._unheard[node.number] = self._unheard[node.number], []
        for message in held:
            self._take(node, message, now)

    def standing(self, node: Node, now: float) -> None:
        """No engine waits for the others."""

    def silent(self, node: Node, silent_s: float, now: float) -> None:
        """It is not lost yet."""

    def heard(self, node: Node, silent_s: float, now: float) -> None:
        """It is there."""

    def never(self, statement: str, missing: tuple[int, ...], now: float) -> None:
        missing = tuple(number for number in missing if number not in self._parts)
        if not missing:
            return
        which = f"node {', '.join(map(str, missing[:16]))} of {self._plan.count}"
        if self._spec.on_lost == "end":
            for number in missing:
                self._lose(NodeLost(now, number, "", "never", statement))
        else:
            self._tell_all("note", f"{which}: {statement}; the engines that are there are watched without it")

    def unplaced(self, statement: str, hint: str, missing: tuple[int, ...], now: float) -> None:
        """Nobody places nodes of a watch."""

    def lost(self, node: Node, how: str, statement: str, silent_s: float, now: float) -> None:
        if self._parts[node.number].verdict is None:
            if how == "closed":
                self._away[node.number] = (node, statement, now)
            else:
                self._lose(NodeLost(now, node.number, node.name, how, statement, silent_s))

    def _look_at_away(self, now: float) -> None:
        for number, (node, statement, at) in tuple(self._away.items()):
            if now >= at + BACK_S:
                del self._away[number]
                self._lose(NodeLost(now, number, node.name, "closed", statement, now - at))

    def _away_until(self) -> float | None:
        return min((at + BACK_S for _node, _statement, at in self._away.values()), default=None)

    def _lose(self, lost: NodeLost) -> None:
        if lost.node in self._lost:
            return
        self._lost[lost.node] = lost
        what = f"node {lost.node}{f' ({lost.name})' if lost.name else ''} was lost: {lost.statement}"
        if lost.how == "never":
            what = f"node {lost.node} is missing: {lost.statement}"
        self._tell_all("note", what)
        if not self._reports:
            self._end(15, f"the other nodes: {what}", failed=True)

    @property
    def _reports(self) -> bool:
        return self._plan.watch is not None and self._plan.watch.on_failure == "report"

    # ── What they say ────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, node: Node, message: Message, now: float) -> None:
        """Raises what its parsing raises, for a message that has no meaning."""
        if message.get("is") == "note":
            self._tell_all("note", f"{node.name}: {str(message['text'])[:1000]}", besides=node)
        elif node.offset.known:
            self._take(node, message, now)
        else:
            self._unheard[node.number].append(message)

    def _take(self, node: Node, message: Message, now: float) -> None:
        part = self._parts[node.number]
        match message.get("is"):
            case "failing":
                at = float(message["at"]) - node.offset.offset
                self._parts[node.number] = part.replace(at=at)
                because = f"the other nodes: {node.name} has failed: {str(message['text'])[:1000]}"
                self._end(15, because, failed=True, besides=node)
            case "asked":
                if self._asked_first is None:
                    self._asked_first = node.number
                self._end(
                    int(message["signal"]), f"the other nodes, asked on {node.name}", at_once=bool(message["at_once"]),
                    failed=False, besides=node,
                )  # fmt: skip
            case "done":
                told = Verdict.from_dict(message["verdict"])
                own = message["at"] is not None
                when = float(message["at"]) - node.offset.offset if own else None
                part = part.replace(verdict=told, at=when, strength=int(message["strength"]))
                self._parts[node.number] = part
                if own:
                    self._end(
                        15, f"the other nodes: {node.name} has failed: {told.statement}", failed=True, besides=node
                    )

    def _end(
        self, number: int, because: str, *, failed: bool, at_once: bool = False, besides: Node | None = None
    ) -> None:
        """Every engine is told once, and once more if it is to be at once."""
        if self._order is not None and (self._order["at_once"] or not at_once):
            return
        failed = failed if self._order is None else bool(self._order["failed"])
        self._order = {"do": "signal", "signal": number, "because": because, "at_once": at_once, "failed": failed}
        for node in tuple(self._fleet.living()):
            if node is not besides:
                self._fleet.send(node, self._order)

    def _tell_all(self, what: str, text: str, besides: Node | None = None) -> None:
        for node in tuple(self._fleet.living()):
            if node is not besides:
                self._fleet.send(node, {"do": what, "text": text})

    # ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _over(self, now: float) -> bool:
        """All have ended, or are lost; who has never come is waited for a little, to be told to end."""
        running = [n for n, part in self._parts.items() if part.verdict is None and n not in self._lost]
        if running or not self._parts:
            self._ended_at = None
            return False
        if len(self._parts) + len(self._lost.keys() - self._parts.keys()) == self._plan.count:
            return True
        self._ended_at = now if self._ended_at is None else self._ended_at
        return now >= self._ended_at + self._plan.orphan_timeout

    def _wait_until(self) -> float | None:
        return None if self._ended_at is None else self._ended_at + self._plan.orphan_timeout

    def verdict(self) -> Verdict:
        """Of all nodes."""
        parts = tuple(
            self._parts[number].replace(lost=self._lost.get(number)) for number in sorted(self._parts)
        )  # fmt: skip
        never = tuple(lost for number, lost in sorted(self._lost.items()) if number not in self._parts)
        return verdict_of_all(
            self._spec, parts, never, self._asked_first, (self._began, self._wall, clock()), __version__,
            reports=self._reports,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
