"""The coordinator's nodes: who has joined, what they say, who is lost. It outlives an attempt; `nodes.py` is one attempt's.

Each node has an agent: an ordinary supervisor with its own ranks, which acts on a local death by itself. It dials us
(`../supervisor/nodes/uplink.py`); our own machine's agent is started here as a child, or a program that has all agents placed
(`../nodes/rayplace.py`). A heartbeat goes to each link and its answer is a measure of that node's clock.
Read next: `../nodes/link.py` (one connection), `../nodes/offset.py` (clocks).
"""

import errno
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector
from typing import Any, Protocol

from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec, NodesPlan, Share
from rankguard.launchers.placer import Placer
from rankguard.nodes.door import AT_ONCE
from rankguard.nodes.link import Door, Hello, Joining, Link, Message, address_of, listen, packed, part
from rankguard.nodes.offset import Offset
from rankguard.record import to_data

URGENT = 0
_PINGS = 8
"""Quick ones, to know a new node's clock."""
_REFUSALS = 32
"""That are told."""
_SAID = 400
"""Characters of what an agent said that has no meaning."""
_PLACERS_S = 5.0
"""Longer than whoever places agents, for him to speak first."""
_FLUSH_S = 2.0
"""For the last word to reach all nodes."""


class Node:
    """One node that has joined."""

    def __init__(self, number: int, hello: Message, link: Link) -> None:
        self.number, self.link = number, link
        self.name = str(hello.get("name") or f"node {number}")[:200]
        self.offset = Offset()
        self.port: int | None = None
        """The MASTER_PORT that it would have; null: its attempt does not stand yet."""
        self.begun = self.done = self.lost = self.writing = False
        self.silent_since: float | None = None
        self.pinged_at = float("-inf")
        self.pings = 0


class Taker(Protocol):
    """Who is told (`nodes.py`). `awaits`: it cannot begin before all nodes are there."""

    @property
    def awaits(self) -> bool: ...
    def joined(self, node: Node, now: float) -> None: ...
    def measured(self, node: Node, now: float) -> None: ...
    def standing(self, node: Node, now: float) -> None: ...
    def take(self, node: Node, message: Message, now: float) -> None: ...
    def silent(self, node: Node, silent_s: float, now: float) -> None: ...
    def heard(self, node: Node, silent_s: float, now: float) -> None: ...
    def lost(self, node: Node, how: str, statement: str, silent_s: float, now: float) -> None: ...
    def never(self, statement: str, missing: tuple[int, ...], now: float) -> None: ...
    def unplaced(self, statement: str, hint: str, missing: tuple[int, ...], now: float) -> None: ...


def _other_address(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"`ss -ltnp sport = {port}` shows who has it; another node on this machine needs its --node-rank"
    return "--rdzv-endpoint HOST:PORT, with an address of this machine"


class Fleet:
    """Of one run. Raises `SpawnFailed` when nothing can be listened to, or our own agent cannot be started."""

    def __init__(
        self, spec: JobSpec, selector: BaseSelector, clock: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        assert spec.nodes is not None
        self.plan: NodesPlan = spec.nodes
        self._spec, self._selector, self._clock, self._tell = spec, selector, clock, tell
        self.nodes: dict[int, Node] = {}
        self._beats: dict[int, Node] = {}
        """Those that are there, the one whose heartbeat is longest ago first: what is due costs no look at all of them."""
        self._quiet: set[Node] = set()
        self.taker: Taker | None = None
        self._refused: set[str] = set()
        self._began = clock()
        self._said_at = 10.0
        # Whoever places agents is asked for the same, says better what is missing, and began later.
        self._patience = self.plan.join_timeout + (_PLACERS_S if self.plan.on == "ray" else 0.0)
        self._beat = min(1.0, self.plan.node_timeout / 5, self.plan.orphan_timeout / 5)
        try:
            listening = listen(self.plan.host, self.plan.port)
        except OSError as error:
            where = f"{self.plan.host or '*'}:{self.plan.port}"
            raise SpawnFailed(
                f"unable to listen on {where}: {error.strerror or error}",
                error.errno or 0,
                exit_code=125,
                hint=_other_address(error, self.plan.port),
            ) from error
        self.host, self.port = address_of(listening)
        at_once = max(AT_ONCE, self.plan.count)
        self._door = Door(listening, self.plan.token, selector, URGENT, self._on_hello, clock, at_once)
        self._turned_away = 0
        self.ray_says: dict[int, str] = {}
        """Of actors that it has lost."""
        self.placer_ended = False
        """The child that brings agents has: the program that has Ray keep them, or our own agent."""
        self._placer = self._place() if self.plan.agent else None

    # ── Our own agent, or whoever has agents placed ──────────────────────────────────────────────────────────────

    def agent_spec(self) -> JobSpec:
        """One node's part of the job, as far as all nodes have it alike."""
        spec, plan = self._spec, self.plan
        host = plan.host or ("127.0.0.1" if plan.on == "join" else "")
        share = Share(host, self.port, plan.count, plan.token, None, plan.join_timeout)
        share = share.replace(orphan_timeout=plan.orphan_timeout)
        folder = f"{spec.run_dir}/node-0" if spec.run_dir is not None and plan.on == "join" else None
        return spec.replace(
            nodes=None, share=share, nprocs=plan.nproc, run_dir=folder, http=None, console="none", events=False, verbose=False, termination_log=None, hidden=(),
            stdin_rank=None, debug_rank=None, debug_argv=(), prefix=None, filters=((), ()),
        )  # fmt: skip

    def _place(self) -> Placer:
        spec = self.agent_spec()
        asked: dict[str, Any]
        if self.plan.on == "join":
            assert spec.share is not None
            asked = to_data(spec.replace(share=spec.share.replace(node=0)))
        else:
            asked = {
                "spec": to_data(spec),
                "count": self.plan.count,
                "nproc": self.plan.nproc,
                "settings": dict(self.plan.settings),
                "join_timeout": self.plan.join_timeout,
            }
        return Placer(self.plan.agent, self._spec, json.dumps(asked).encode() + b"\n", self._selector, self._on_placer)

    def _on_placer(self, said: dict[str, Any] | None, now: float) -> None:
        """A line of it, or null: it has ended."""
        self.placer_ended = said is None
        if said is not None and "told" in said:
            self._tell(str(said["told"]))
        elif said is not None and "lost" in said:
            number, why = int(said["lost"]["node"]), str(said["lost"]["why"])
            self.ray_says[number] = why
            self._tell(f"Ray says of node {number}: {why}")
        elif not self._awaits or self.taker is None:
            return
        elif said is not None and "failed" in said:
            self.taker.unplaced(str(said["failed"]), str(said.get("hint") or ""), self.missing, now)
        elif said is None and self._placer is not None:
            words = self._placer.last_words()
            said_last = f": {words}" if words else ""
            if self.plan.on == "join":
                self.taker.never(f"the agent of this machine has ended{said_last}", self.missing, now)
            else:
                what = f"the program that has Ray place the agents has ended{said_last}"
                self.taker.unplaced(what, "", self.missing, now)

    # ── Joining ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def missing(self) -> tuple[int, ...]:
        """Nodes that are not there."""
        return tuple(n for n in range(self.plan.count) if n not in self.nodes or self.nodes[n].lost)

    @property
    def complete(self) -> bool:
        return not self.missing

    def living(self) -> Iterator[Node]:
        """Nodes that can be told something."""
        return (node for node in self.nodes.values() if not node.lost)

    def _on_hello(self, joining: Joining, came: Hello) -> None:
        hello = came.message
        number = self._place_of(hello)
        why = self._refuses(hello, number)
        if why is not None or number is None:
            joining.refuse(why or "")
            joining.close()
            self._tell_refused(joining.peer, why or "")
            return
        self._join(Node(number, hello, joining.accept()), self._clock())

    def _tell_refused(self, who: str, why: str) -> None:
        """Once: whoever is refused may come again and again."""
        if why not in self._refused and len(self._refused) < _REFUSALS:
            self._refused.add(why)
            self._tell(f"refused {who or 'somebody'}: {why}")

    def _place_of(self, hello: Message) -> int | None:
        """Node 0 is where the coordinator is, and given to nobody else."""
        number = hello.get("node")
        if number is not None:
            return number if type(number) is int else None
        return next((free for free in self.missing if free or self.plan.on != "join"), None)

    def _refuses(self, hello: Message, number: int | None) -> str | None:
        count, nproc = self.plan.count, self.plan.nproc
        if hello.get("count") != count:
            return f"it was started with --nnodes {hello.get('count')}, the coordinator with {count}"
        if hello.get("nproc") != nproc:
            return f"it was started with {hello.get('nproc')} ranks per node, the coordinator with {nproc}"
        if number is None:
            return f"all {count} nodes have joined"
        if not 0 <= number < count:
            return f"there is no node {number}; with --nnodes {count} they are 0 to {count - 1}"
        if number not in self.missing:
            return f"node {number} has joined already: {self.nodes[number].name}"
        return None

    def _join(self, node: Node, now: float) -> None:
        self.nodes[node.number] = node
        self._selector.register(node.link, EVENT_READ, (URGENT, partial(self._on_link, node)))
        self._ping(node, now)
        if self.taker is not None:
            self.taker.joined(node, now)
        self._on_link(node, now)

    # ── Links ────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, node: Node, message: Message) -> None:
        """To a node that is there."""
        if not node.lost:
            node.link.send(message)
            self._watch_writing(node)

    def _watch_writing(self, node: Node) -> None:
        link = node.link
        if not link.closed and link.pending != node.writing:
            node.writing = link.pending
            events = EVENT_READ | (EVENT_WRITE if node.writing else 0)
            self._selector.modify(link, events, (URGENT, partial(self._on_link, node)))

    def _on_link(self, node: Node, now: float) -> None:
        if node.lost:
            return
        node.link.flush()
        try:
            for message in node.link.receive():
                self._take(node, message, now)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            said = f"it said what has no meaning ({type(error).__name__}: {error})"
            self.lose(node, "closed", said[:_SAID], 0.0, now)
            return
        if node.link.closed and not node.lost:
            said = f": {node.link.error}" if node.link.error else ""
            self.lose(node, "closed", f"its agent is gone (the connection was closed{said})", 0.0, now)
        self._watch_writing(node)

    def _take(self, node: Node, message: Message, now: float) -> None:
        taker = self.taker
        if node.silent_since is not None and taker is not None:
            taker.heard(node, now - node.silent_since, now)
            node.silent_since = None
        match message.get("is"):
            case "pong":
                node.offset.exchanged(float(message["t"]), float(message["mine"]), self._clock())
                if node.pings < _PINGS:
                    self._ping(node, now)
                if taker is not None:
                    taker.measured(node, now)
            case "standing":
                node.port, node.begun, node.done = int(message["port"]), False, False
                if taker is not None:
                    taker.standing(node, now)
            case _:
                if taker is not None:
                    taker.take(node, message, now)

    def _ping(self, node: Node, now: float) -> None:
        node.pinged_at, node.pings = now, node.pings + 1
        self._beats.pop(node.number, None)
        self._beats[node.number] = node
        self.send(node, {"do": "ping", "t": self._clock()})

    def lose(self, node: Node, how: str, statement: str, silent_s: float, now: float) -> None:
        """Nothing more comes from it."""
        if node.lost:
            return
        node.lost = True
        self._beats.pop(node.number, None)
        self._quiet.discard(node)
        self._selector.unregister(node.link)
        node.link.close()
        if self.taker is not None:
            self.taker.lost(node, how, statement, silent_s, now)

    # ── Time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def next_wake(self) -> float | None:
        due = [node.pinged_at + self._beat for node in islice(self._beats.values(), 1)]
        due += [node.link.last_heard + self.plan.node_timeout for node in self._quiet]
        due += [at for at in (self._door.next_wake(),) if at is not None]
        if self._awaits:
            due += [self._began + self._said_at, self._began + self._patience]
        return min(due, default=None)

    def wake(self, now: float) -> None:
        """Heartbeats, silences, and who is still awaited."""
        while (oldest := next(iter(self._beats.values()), None)) and now >= oldest.pinged_at + self._beat:
            self._ping(oldest, now)
            if now - oldest.link.last_heard >= 2 * self._beat:
                self._quiet.add(oldest)
        for node in tuple(self._quiet):
            self._look_at_quiet(node, now)
        self._door.wake(now)
        if self._door.turned_away != self._turned_away:
            self._turned_away = self._door.turned_away
            self._tell_refused(*self._door.last_error.split(": ", 1))
        if self._awaits:
            self._look_at_missing(now)

    def _look_at_quiet(self, node: Node, now: float) -> None:
        """One whose heartbeats were not answered."""
        self._on_link(node, now)  # it may be we who were stopped
        silent = now - node.link.last_heard
        if node.lost:
            return
        if silent < 2 * self._beat:
            self._quiet.discard(node)
        elif silent >= self.plan.node_timeout:
            self.lose(node, "silent", f"nothing was heard of it for {silent:.1f} s", silent, now)
        elif node.silent_since is None and self.taker is not None:
            node.silent_since = node.link.last_heard
            self.taker.silent(node, silent, now)

    def again(self, now: float) -> None:
        """Another attempt: every node makes one, and who is missing has its time anew."""
        self._began, self._said_at = now, 10.0
        for node in tuple(self.living()):
            if node.begun:  # one that has come instead of another stands already
                node.port, node.begun, node.done = None, False, False
                self.send(node, {"do": "again"})

    @property
    def _awaits(self) -> bool:
        return self.taker is not None and self.taker.awaits and not self.complete

    def _look_at_missing(self, now: float) -> None:
        waited, missing = now - self._began, self.missing
        who = f"{self.plan.count - len(missing)} of {self.plan.count} nodes have joined"
        if waited >= self._patience and self.taker is not None:
            self._began = now  # it is said once
            self.taker.never(f"it has not joined within {self.plan.join_timeout:g} s", missing, now)
        elif waited >= self._said_at:
            self._said_at = {10.0: 30.0, 30.0: 60.0}.get(self._said_at, self._said_at + 60.0)
            self._tell(f"{waited:.0f} s: {who}; waiting for node {', '.join(map(str, missing[:16]))}")

    # ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, told: dict[str, Any]) -> None:
        """Every node ends with this verdict."""
        self.taker = None
        frame = packed({"do": "finish", "verdict": told}, squeezed=True)  # a row for each rank, to every node
        for node in tuple(self.living()):
            node.link.send_packed(frame)
            self._watch_writing(node)

    def close(self) -> None:
        """Let go of everything; our own agent ends by itself."""
        self.taker = None
        self._door.close()
        links = [node.link for node in self.living()]
        for node in tuple(self.living()):
            node.lost = True
            self._selector.unregister(node.link)
        part(links, _FLUSH_S)
        if self._placer is not None:
            self._placer.close()
