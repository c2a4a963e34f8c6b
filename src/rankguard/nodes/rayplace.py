"""`python -m rankguard.nodes.rayplace`: has Ray place the agents of a job, one a node, and keeps them there.

A child of the coordinator's supervisor (`NodesPlan.agent`). Ray places, and nothing else: facts and orders travel by
the agents' own links, and what an agent's loss means is the coordinator's to say.

stdin: one line of JSON, then nothing; its end means that the coordinator is gone, and everything is taken down.
`{"spec": JobSpec data with `share`, "count": nodes, "nproc": ranks of each, "settings": {"ray_address", "resources":
JSON} (`rayplan.py`), "join_timeout": s, "command": [another agent than ours] or null}`. An empty `share.host` becomes the
address by which Ray knows this machine.

stdout: lines of JSON. `{"told": what is waited for}`, `{"placed": {"node", "host", "name"}}`,
`{"ended": {"node", "status", "said"}}`, `{"lost": {"node", "why"}}` (Ray has lost the actor: its agent ends by itself),
`{"failed": statement, "hint": hint or null}`.

Ends with 0 when all agents have ended or are lost, and after stdin's end; with 1 after `failed`.

Read next: `rayneeds.py` (what is asked for), `rayagent.py` (what runs on each node).
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from rankguard._version import __version__
from rankguard.errors import UsageError
from rankguard.nodes import rayagent, rayneeds

NAMESPACE = "rankguard"
TELL_AT = (10.0, 30.0, 60.0)
"""Seconds after which it is told what is waited for; then each minute."""
FIRST_AT = 1.0
"""The same for places, once Ray has answered: it gives them in milliseconds where it has them."""
TAKE_DOWN_S = 5.0
"""How long the cluster may take to hear that we leave. It does the same by itself once it sees us gone."""


class Unplaced(Exception):
    """The agents cannot be placed."""

    def __init__(self, statement: str, hint: str | None = None) -> None:
        super().__init__(statement)
        self.statement, self.hint = statement, hint


def main() -> int:
    """The program."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the front; our end is that of stdin
    out = os.dup(1)
    os.dup2(2, 1)  # whatever Ray prints
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return 0  # the coordinator was gone before it had said what to do
    return Placing(json.loads(line), out).run()


def address_of_this_process() -> str | None:
    """The cluster that this process is a driver or a worker of, if it is: a job that it launches shall run there."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    found: str = ray.get_runtime_context().gcs_address
    return found


class Placing:
    """One job's placing. Ray's calls block, and are made in a thread of their own (`_course`); this one keeps time."""

    def __init__(self, plan: Mapping[str, Any], out: int) -> None:
        self.plan = plan
        self.count: int = plan["count"]
        self.address: str = plan["settings"].get("ray_address") or os.environ.get("RAY_ADDRESS") or "auto"
        self.needs: dict[str, float] = {}
        self.news: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.out = out
        self.ray: Any = None
        self.group: Any = None
        self.actors: list[Any] = []
        self.alive = 0
        """Agents that have neither ended nor been lost."""

    def run(self) -> int:
        """Place, wait, take down."""
        threading.Thread(target=self._hear, daemon=True).start()
        try:
            self.needs = rayneeds.bundle(self.plan["nproc"], json.loads(self.plan["settings"].get("resources") or "{}"))
        except UsageError as error:
            return self._fail(error.statement, error.hint)
        threading.Thread(target=self._course, daemon=True).start()
        if not self._placed():
            return self._leave(self.status)
        while self.alive:
            kind, what = self.news.get()
            if kind == "gone":
                break
            self.alive -= 1
            self._tell(**{kind: what})
        return self._leave(0)

    # ── Until they run ───────────────────────────────────────────────────────────────────────────────────────────────

    status = 0

    def _placed(self) -> bool:
        """All agents run. False: they never will, and `status` is what we end with."""
        began = time.monotonic()
        deadline, tell_at = began + self.plan["join_timeout"], [began + at for at in TELL_AT]
        while True:
            try:
                kind, what = self.news.get(timeout=max(0.0, min(tell_at[0], deadline) - time.monotonic()))
            except Empty:
                now = time.monotonic()
                statement, hint = self._waits()
                first = now < began + TELL_AT[0]
                if now >= deadline:
                    late = f"Ray has not placed all agents within {self.plan['join_timeout']:g} s: {statement}"
                    self.status = self._fail(late, hint)
                    return False
                if not (first and self.actors):  # an actor's process takes a second or two to start
                    self._tell(told=statement)
                tell_at = [at for at in tell_at if at > now] or [now + TELL_AT[-1]]
                continue
            if kind == "gone":
                return False
            if kind == "failed":
                self.status = self._fail(*what)
                return False
            if kind == "placed":
                self.alive += 1
                self._tell(placed=what)
            elif kind == "connected":
                tell_at.insert(0, time.monotonic() + FIRST_AT)
            elif kind == "running":
                return True
            else:  # an agent that ended while others were being started
                self.alive -= 1
                self._tell(**{kind: what})

    def _waits(self) -> tuple[str, str | None]:
        """What is waited for, and what would help."""
        if self.ray is None:
            return f"no answer from Ray at `{self.address}` yet", "ray status, on a machine of the cluster"
        if self.actors:
            return "Ray has found a place for all agents, and starts them", None
        nodes = _alive_nodes(self.ray)
        return rayneeds.standing(self.needs, self.count, nodes), rayneeds.remedy(self.needs, self.count, nodes)

    def _course(self) -> None:
        try:
            self.ray = ray = self._connect()
            self.news.put(("connected", None))
            self._place(ray)
        except Unplaced as unable:
            self.news.put(("failed", (unable.statement, unable.hint)))
        except Exception as error:  # noqa: BLE001  # Ray's errors are many, and none may leave the coordinator waiting
            self.news.put(("failed", (f"unable to have Ray place the agents: {_first_line(error)}", None)))

    def _connect(self) -> Any:
        """Ray, connected."""
        if self.address.startswith("ray://"):
            raise Unplaced(
                f"`{self.address}` is an address of Ray Client: expected the cluster's own, HOST:6379, or `auto`",
                "run the command on a machine of the cluster (in the head's pod, or by `ray job submit`)",
            )
        os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise Unplaced(f"unable to import `ray`: {error}", "pip install 'rankguard[ray]'") from None
        try:
            ray.init(
                self.address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR", configure_logging=True
            )
        except Exception as error:  # noqa: BLE001  # ConnectionError, RuntimeError (versions), ValueError …
            raise Unplaced(
                f"unable to connect to Ray at `{self.address}`: {_first_line(error)}",
                "--ray-address HOST:6379; this machine has to be a node of that cluster (`ray status` shows it)",
            ) from None
        return ray

    def _place(self, ray: Any) -> None:
        """A group of bundles, strictly spread; then an actor in each, which takes all that its bundle has."""
        self.group = import_module("ray.util.placement_group").placement_group(
            [self.needs] * self.count, strategy="STRICT_SPREAD", name=f"rankguard-{self.plan['spec']['run_id']}"
        )
        if not self.group.wait(2**31 - 1):  # our own clock decides
            raise Unplaced("Ray has given up its placement group")
        # By value: no node needs rankguard for Ray's own Python.
        import_module("ray.cloudpickle").register_pickle_by_value(rayagent)
        strategy = import_module("ray.util.scheduling_strategies").PlacementGroupSchedulingStrategy
        kind = ray.remote(rayagent.RankguardAgent)
        self.actors = [
            kind.options(
                **_options(self.needs), max_restarts=0, max_task_retries=0,
                name=f"rankguard-{self.plan['spec']['run_id']}-{node}",
                scheduling_strategy=strategy(self.group, placement_group_bundle_index=node),
            ).remote()
            for node in range(self.count)
        ]  # fmt: skip
        # The spec, with its token and environment, goes by a call, from us to the actor: what creates an actor is kept
        # by the cluster's head and shown by its dashboard.
        started = [actor.start.remote(self._order(node)) for node, actor in enumerate(self.actors)]
        hosts = _hosts(ray, self.group, self.count)
        for node, ref in enumerate(started):
            told = self._answer(ray, ref, hosts[node])
            self.news.put(("placed", {"node": node, "host": hosts[node], "name": told["name"]}))
            self._follow(node)
        self.news.put(("running", None))

    def _order(self, node: int) -> str:
        spec = dict(self.plan["spec"])
        share = dict(spec["share"], node=node)
        share["host"] = share["host"] or import_module("ray.util").get_node_ip_address()
        return json.dumps({
            "spec": spec | {"share": share, "env": dict(spec["env"])},
            "accelerators": any(self.needs.get(name) for name in rayneeds.ACCELERATORS),
            "command": self.plan.get("command"),
            "python": sys.executable,
            "path": os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            "version": __version__,
        })  # fmt: skip

    def _answer(self, ray: Any, ref: Any, host: str) -> dict[str, Any]:
        try:
            told: dict[str, Any] = ray.get(ref)
        except Exception as error:  # noqa: BLE001  # RayActorError and its kin: all mean that there is no actor
            raise Unplaced(f"Ray has lost the agent's actor on {host} while it started: {_why(error)}") from None
        if "failed" in told:
            raise Unplaced(told["failed"], told["hint"])
        return told

    # ── While they run ───────────────────────────────────────────────────────────────────────────────────────────────

    def _follow(self, node: int) -> None:
        """Its end becomes news."""
        self.actors[node].wait.remote().future().add_done_callback(lambda end: self.news.put(_ending(node, end)))

    def _hear(self) -> None:
        """The end of stdin. Until there is anything to take down, it ends us at once, however long Ray takes to answer."""
        while os.read(0, 4096):
            pass
        self.news.put(("gone", None))
        if self.group is None:
            os._exit(0)
        self._no_later_than(TAKE_DOWN_S, 0)

    def _tell(self, **what: Any) -> None:
        try:
            os.write(self.out, json.dumps(what).encode() + b"\n")
        except OSError:
            pass  # nobody listens any more; stdin says so, too

    def _fail(self, statement: str, hint: str | None) -> int:
        self._tell(failed=statement, hint=hint)
        return 1

    def _leave(self, status: int) -> NoReturn:
        """Take everything down and end. Killing an actor closes its agent's stdin, which ends that agent's ranks.

        Not `ray.shutdown`, which takes half a second more: Ray sees a driver end, and takes down what is its own.
        """
        self._no_later_than(TAKE_DOWN_S, status)
        try:
            for actor in self.actors:
                self.ray.kill(actor, no_restart=True)
            if self.group is not None:
                import_module("ray.util.placement_group").remove_placement_group(self.group)
        except Exception as error:  # noqa: BLE001  # the cluster is gone; it does the same when it finds us gone
            sys.stderr.write(f"rankguard: unable to take the actors down: {_first_line(error)}\n")
        os._exit(status)  # a thread may be in a call of Ray's that does not return

    def _no_later_than(self, seconds: float, status: int) -> None:
        timer = threading.Timer(seconds, os._exit, (status,))
        timer.daemon = True
        timer.start()


def _ending(node: int, end: Any) -> tuple[str, dict[str, Any]]:
    error = end.exception()
    if error is None:
        return "ended", {"node": node, **end.result()}
    return "lost", {"node": node, "why": _why(error)}


def _alive_nodes(ray: Any) -> list[rayneeds.Holds]:
    """What each alive node has. `available_resources_per_node` is what Ray's own libraries use; without it, all is free."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    try:
        free = import_module("ray._private.state").available_resources_per_node()
    except (ImportError, AttributeError):
        free = {node["NodeID"]: node["Resources"] for node in alive}
    addresses = [node["NodeManagerAddress"] for node in alive]
    return [
        rayneeds.Holds(
            name=address if addresses.count(address) == 1 else f"{address} ({node['NodeID'][:6]})",
            total=node["Resources"],
            free=free.get(node["NodeID"], {}),
        )
        for node, address in zip(alive, addresses, strict=True)
    ]


def _hosts(ray: Any, group: Any, count: int) -> list[str]:
    """The address of each bundle's node, as Ray knows it; the bundle's own number where it does not say."""
    table = import_module("ray.util.placement_group").placement_group_table(group).get("bundles_to_node_id", {})
    of_node = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    return [of_node.get(table.get(bundle), f"node {bundle}") for bundle in range(count)]


def _options(needs: Mapping[str, float]) -> dict[str, Any]:
    """All of a bundle, as an actor's options."""
    own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    named = {option: needs.get(name, 0) for name, option in own.items() if name != "memory" or name in needs}
    return named | {"resources": {name: amount for name, amount in needs.items() if name not in own}}


_NAMES = ("class_name:", "actor_id:", "pid:", "name:", "namespace:", "ip:", "The actor died unexpectedly before")


def _why(error: BaseException) -> str:
    """What Ray knows of an actor's end, without the names of its parts and its guesses: at most 400 characters."""
    lines = [line.strip().partition(" Some common causes include")[0].rstrip(".") for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(_NAMES))[:400] or type(error).__name__


def _first_line(error: BaseException) -> str:
    """Ray's errors are pages: the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line), type(error).__name__)


if __name__ == "__main__":
    sys.exit(main())
