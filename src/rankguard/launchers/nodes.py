"""Ranks on other machines: the launcher of a job that has agents, one a node. One attempt's part of the `Fleet`.

Orders of the core become messages to agents; what agents tell becomes facts of the world: ranks by their number among
all, instants on our clock. An agent ends, reaps and sweeps its ranks by itself; here that is only heard of.
Read next: `fleet.py` (the links), `../nodes/mapping.py` (facts), `../supervisor/nodes/uplink.py` (the other end).
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rankguard.facts import (
    LET_GO,
    Examined,
    Exited,
    Fact,
    FrontLost,
    Looked,
    NodeHeard,
    NodeJoined,
    NodeLost,
    NodeSilent,
    NodeStopping,
    NotSpawned,
    RankFact,
    Reaped,
    Silences,
    Spawned,
    StopRequested,
    TreeEmpty,
    WardenLost,
)
from rankguard.jobspec import JobSpec
from rankguard.launchers.contract import Emit, Told
from rankguard.launchers.fleet import Fleet, Node
from rankguard.launchers.signs import silences
from rankguard.model import Left, MemoryState, Sign, Survivor
from rankguard.nodes.link import Message
from rankguard.nodes.mapping import from_wire, record_from_wire, to_world
from rankguard.record import Record

R = TypeVar("R", bound=Record)

HOLDER_ENDED = "Ray ended the actor that held its agent (`ray.kill`, Ray's memory monitor, or somebody's kill)"
_BETTER = 0.5
"""A clock is told anew when it is known better by so much."""


class NodeRanks:
    """The launcher (`contract.py`) and the tree (`driver.Tree`) of one attempt."""

    def __init__(
        self,
        spec: JobSpec,
        fleet: Fleet,
        clock: Callable[[], float],
        *,
        emit: Emit,
        output: Told,
        on_payload: Callable[[int, bytes | None, int | None], None],
    ) -> None:
        assert spec.nodes is not None
        self._spec, self._fleet, self._clock, self._emit = spec, fleet, clock, emit
        self._output, self._on_payload = output, on_payload
        self._each = spec.nodes.nproc
        self._wanted = self._gone = False
        self._looked: dict[int, Looked] = {}
        self._signs: dict[int, Sign] = {}
        self._spawned: set[int] = set()
        self._ended: set[int] = set()
        self._held: dict[int, Message] = {}
        self.looked: Callable[[int], object] = bool
        """Told the number of a node whose agent has told what its ranks hold."""
        self._told: dict[int, float] = {}
        self._trees: dict[int, TreeEmpty] = {}
        self._asked: dict[int, Callable[[Message], None]] = {}
        self.killed: set[int] = set()
        self.patience: Callable[[], float] = lambda: spec.grace
        """How long ranks that are told to end may take, in seconds; 0: as long as they like."""
        self.examined: Callable[[Node, Examined, float], None] = lambda _node, _examined, _now: None
        """Told what a node's agent has found when it was asked to examine its ranks."""
        fleet.taker = self
        for node in fleet.living():
            self.joined(node, clock())

    @property
    def awaits(self) -> bool:
        """Ranks are to begin, and not all nodes are there."""
        return self._wanted and not self._gone

    # ── The fleet's news (`fleet.Taker`) ─────────────────────────────────────────────────────────────────────────

    def joined(self, node: Node, now: float) -> None:
        self._tell_joined(node, now, again=False)

    def measured(self, node: Node, now: float) -> None:
        known = self._told.get(node.number)
        if known is None or node.offset.uncertainty() < known * _BETTER:
            self._tell_joined(node, now, again=True)

    def _tell_joined(self, node: Node, now: float, *, again: bool) -> None:
        uncertainty = 0.0
        if node.offset.known:
            self._told[node.number] = uncertainty = round(node.offset.uncertainty(), 9)
        first, address = node.number * self._each, node.link.peer
        self._emit(NodeJoined(now, node.number, node.name, first, self._each, address, uncertainty, again))

    def standing(self, node: Node, now: float) -> None:
        """Its attempt waits for the word to begin: once all do, they get it."""
        self._go(now)

    def lost(self, node: Node, how: str, statement: str, silent_s: float, now: float) -> None:
        if not node.done:
            self._emit(NodeLost(now, node.number, node.name, how, statement, silent_s))

    def never(self, statement: str, missing: tuple[int, ...], now: float) -> None:
        for number in missing:
            node = self._fleet.nodes.get(number)
            self._emit(NodeLost(now, number, node.name if node is not None else "", "never", statement))

    def unplaced(self, statement: str, hint: str, missing: tuple[int, ...], now: float) -> None:
        for number in missing:
            self._emit(NodeLost(now, number, "", "unplaced", statement, hint=hint))

    def silent(self, node: Node, silent_s: float, now: float) -> None:
        self._emit(NodeSilent(now, node.number, node.name, silent_s))

    def heard(self, node: Node, silent_s: float, now: float) -> None:
        self._emit(NodeHeard(now, node.number, node.name, silent_s))

    def take(self, node: Node, message: Message, now: float) -> None:
        """Raises what its parsing raises, for a message that has no meaning."""
        match message.get("is"):
            case "facts":
                self._take_facts(node, message["facts"], now)
            case "out":
                rank = self._rank(node, message["rank"])
                self._output.feed(rank, int(message["which"]) & 1, message["data"].encode("latin-1"), now)
            case "payload":
                self._on_payload(self._rank(node, message["rank"]), message["json"].encode(), None)
            case "signs":
                self._take_signs(node, message)
            case "answer":
                answered = self._asked.pop(message["id"], None)
                if answered is not None:
                    answered(message["answer"])
            case "done":
                self._take_done(node, message["tree"], now)

    def _take_done(self, node: Node, tree: list[Any] | None, now: float) -> None:
        empty = self._in_world(node, from_wire(*tree)) if tree else None
        unsaid = set(self._ranks_of(node)) - self._ended
        if unsaid and node.begun:
            raise ValueError(f"it is done, and has not said how rank {min(unsaid)} ended")
        node.done = True
        self._trees[node.number] = empty if isinstance(empty, TreeEmpty) else TreeEmpty(now)

    def _ranks_of(self, node: Node) -> range:
        return range(node.number * self._each, (node.number + 1) * self._each)

    def _rank(self, node: Node, local: int) -> int:
        if type(local) is not int or not 0 <= local < self._each:
            raise ValueError(f"node {node.name} speaks of a rank {local!r}, and has {self._each}")
        return node.number * self._each + local

    def _take_facts(self, node: Node, told: Iterable[list[object]], now: float) -> None:
        """Those of one turn of the agent's loop. Its look at its ranks counts for all that came with it."""
        facts = [self._in_world(node, from_wire(str(name), data)) for name, data in told]
        for fact in facts:
            if isinstance(fact, Looked):
                self._looked[node.number] = fact
        stops = any(isinstance(fact, NodeStopping) for fact in facts)
        for fact in facts:
            if not isinstance(fact, Looked):
                self._pass_on(node, fact, now)
            elif not stops:  # it was asked to end its ranks, and looked first; else its `NodeStopping` says it
                self._emit(fact)

    def _in_world(self, node: Node, fact: R) -> R:
        return to_world(fact, node.number * self._each, node.offset.offset, node.name, self._each)

    def _pass_on(self, node: Node, fact: Fact, now: float) -> None:
        if isinstance(fact, FrontLost | WardenLost):
            what = "rankguard's own command there" if isinstance(fact, FrontLost) else "its warden"
            self._fleet.lose(node, "left", f"{what} was ended by somebody", 0.0, now)
            return
        if node.lost:
            return
        if isinstance(fact, Examined):
            self.examined(node, fact, now)
            return
        if isinstance(fact, RankFact):
            if not self._follows(fact):
                return
        elif isinstance(fact, StopRequested) and fact.by.startswith(LET_GO) and self._fleet.plan.on == "ray":
            # Ray has let go of this node, and not of all because the program that asked for them is gone.
            if not self._fleet.placer_ended or node.number in self._fleet.ray_says:
                why = fact.by.removeprefix(LET_GO).removeprefix(": ")
                why = why or _of_memory(self._fleet.ray_says.get(node.number, "")) or HOLDER_ENDED
                self._fleet.lose(node, "left", why, 0.0, now)
                return
            fact = fact.replace(to=f"node {node.number}", by="the program that has Ray place the agents has ended")
        elif isinstance(fact, StopRequested):
            fact = fact.replace(to=f"node {node.number}")
        elif isinstance(fact, NodeStopping):
            looked = self._looked.get(node.number)
            fact = fact.replace(node=node.number, name=node.name, dying=looked.dying if looked is not None else ())
        self._emit(fact)

    def _follows(self, fact: RankFact) -> bool:
        """Whether it may be told. Raises `ValueError` where it cannot be: the core would take that for a bug of ours."""
        rank, ended = fact.rank, fact.rank in self._ended
        if isinstance(fact, Spawned | NotSpawned):
            if ended and isinstance(fact, NotSpawned):
                return False  # we have cancelled it meanwhile
            if ended or rank in self._spawned:
                raise ValueError(f"rank {rank} was started twice")
            (self._ended if isinstance(fact, NotSpawned) else self._spawned).add(rank)
        elif rank not in self._spawned or (isinstance(fact, Reaped) and not ended):
            raise ValueError(f"{type(fact).__name__} of rank {rank}, of which that cannot be")
        elif isinstance(fact, Exited):
            if ended:
                raise ValueError(f"rank {rank} ended twice")
            self._ended.add(rank)
        return True

    def _take_signs(self, node: Node, message: Message) -> None:
        self._held[node.number] = message.get("held") or {}
        for data in message["signs"]:
            sign = self._in_world(node, record_from_wire(Sign, data))
            self._signs[sign.rank] = sign
        self.looked(node.number)

    # ── The driver's orders (`contract.Launcher`) ────────────────────────────────────────────────────────────────

    def spawn(self, first: int, last: int) -> None:
        """All of them, once every node is there."""
        self._wanted = True
        self._go(self._clock())

    def _go(self, now: float) -> None:
        nodes = self._fleet.nodes
        if not self._wanted or self._gone or not self._fleet.complete:
            return
        if any(node.port is None for node in nodes.values()):
            return
        self._gone = True
        zero = nodes[0]
        for node in nodes.values():
            node.begun = True
            self._fleet.send(
                node,
                {
                    "do": "go",
                    "run_id": self._spec.run_id,
                    "node": node.number,
                    "first_rank": node.number * self._each,
                    "world_size": self._spec.nprocs,
                    "master_addr": self._spec.master_addr or zero.link.peer,
                    "master_port": zero.port,
                },
            )

    def look(self, now: float) -> Looked:
        """What the agents saw when they looked: the one whose rank failed has, in the same breath."""
        looks = self._looked.values()
        dying = tuple(each for looked in looks for each in looked.dying)
        memory = tuple(each for looked in looks for each in looked.memory)
        state = next((looked.state for looked in looks), MemoryState())
        return Looked(self._clock(), dying, memory, state)

    def silences(self, now: float, since: float) -> Silences:
        return silences(self.signs(now), now, since)

    def signs(self, now: float) -> tuple[Sign, ...]:
        return tuple(sign for rank, sign in sorted(self._signs.items()) if rank not in self._ended)

    def heard_at(self, rank: int) -> float | None:
        """When a rank last said or printed anything, as far as its node has told."""
        sign = self._signs.get(rank)
        return None if sign is None else sign.at

    def signal_all(self, number: int, spare: frozenset[int], *, ends: bool) -> int:
        """Whom the core spares (they report an exception, and end by themselves) their own agent spares, and nobody else:
        alone it would spare all that only lost a peer, since it knows of nobody who is to blame for that.
        """
        because = "the job, since it ends on another node"
        for node in tuple(self._fleet.living()):
            if node.begun:
                first = node.number * self._each
                spared = [rank - first for rank in spare if first <= rank < first + self._each]
                order = {"do": "signal", "signal": number, "ends": ends, "because": because, "spare": spared}
                self._fleet.send(node, order | {"patience": self.patience()})
        if ends and not self._gone:
            self._cancel()
        return self._spec.nprocs - len(self._ended) if self._gone else 0

    def _cancel(self) -> None:
        """Nobody has begun: nobody shall."""
        self._gone = True
        now = self._clock()
        for node in tuple(self._fleet.living()):
            node.done = True
        for rank in set(range(self._spec.nprocs)) - self._ended:
            self._ended.add(rank)
            self._emit(NotSpawned(now, rank, "cancelled", 0, "the job was told to end before it started"))

    def signal_rank(self, rank: int, number: int) -> None:
        node = self._fleet.nodes.get(rank // self._each)
        if node is not None:
            self._fleet.send(node, {"do": "signal-rank", "rank": rank % self._each, "signal": number})

    def reap(self, rank: int) -> None:
        """Its agent does, and tells."""

    def next_wake(self) -> float | None:
        return None

    def wake(self, now: float) -> None:
        """The fleet is a part of the attempt."""

    def close(self, now: float) -> None:
        """Its links outlive the attempt."""
        for rank in range(self._spec.nprocs):
            for which in (0, 1):
                self._output.ended(rank, which)

    def ask_examine(self, node: Node, number: int) -> None:
        """What a node's ranks are doing: `examined` is told."""
        self._fleet.send(node, {"do": "examine", "number": number})

    def ask_stacks(self, node: Node, number: int, rank: int | None, answered: Callable[[Message], None]) -> None:
        """The stacks of a node's ranks (of one: its number there)."""
        self._asked[number] = answered
        self._fleet.send(node, {"do": "stacks", "id": number, "rank": rank})

    def held(self) -> list[tuple[int, Message]]:
        """What the nodes told last of their memory: (node, as `Samples.told`)."""
        return sorted(self._held.items())

    # ── The end (`driver.Tree`) ──────────────────────────────────────────────────────────────────────────────────

    def sweep(self, kill: bool) -> None:
        """Agents sweep by themselves; their own clock may be slower to run out than ours."""
        if kill:
            for node in tuple(self._fleet.living()):
                self._fleet.send(node, {"do": "kill", "because": "its time to end was over"})

    def empty(self) -> bool:
        """Every node has said so; of one that is lost nothing is known."""
        return all(node.done or node.lost or not node.begun for node in self._fleet.nodes.values())

    def survivors(self) -> tuple[Survivor, ...]:
        return tuple(each for tree in self._trees.values() for each in tree.survivors)

    def left(self) -> tuple[Left, ...]:
        return tuple(each for tree in self._trees.values() for each in tree.left)


def _of_memory(said: str) -> str:
    """That Ray's memory monitor has ended a worker, in its own figures; empty where Ray says something else (2.60)."""
    reason = said.partition("OOM kill reason: ")[2].partition(";")[0].strip()
    return f"Ray's memory monitor ended it: {reason}"[:200] if reason else ""
