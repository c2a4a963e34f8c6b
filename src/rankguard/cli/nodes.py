"""`run` on several machines: which node this is, where node 0 is met, what both ends of a link prove to know.

Either the same command is started on each node (torchrun's habit): node 0's is the coordinator, the others join it. Or
one command is, and Ray places the rest (`--on ray`). Nothing is started or connected to here; DNS is asked at most for
the endpoint, to see whether it is this machine. Read next: `plan.py`; docs/nodes.md; not the link itself: `../nodes/`.
"""

import shlex
import socket
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from rankguard.cli.terminal import Said
from rankguard.cli.torchrun import BACKENDS, Meeting, as_given, names_us, placed
from rankguard.cli.values import Endpoint, host_list
from rankguard.errors import UsageError
from rankguard.jobspec import NodesPlan, Share
from rankguard.linux.ports import hold
from rankguard.nodes.rayplan import INSTALL, ray_is_missing, ray_plan
from rankguard.record import Record

PORT = 29500
"""torchrun's."""
AGENT = ("-P", "-m", "rankguard", "agent")
"""-P: a `random.py` in the current folder is not Python's."""
NUMBERS = ("SLURM_NODEID", "LWS_WORKER_INDEX", "JOB_COMPLETION_INDEX", "GROUP_RANK")
"""Variables that number nodes, the most particular first."""
EVERYWHERE = ("0.0.0.0", "::", "0:0:0:0:0:0:0:0", "*")  # noqa: S104  # refused


class Nodes(Record):
    """What several nodes mean for this command: it is the coordinator (`plan`) or joins one (`share`).

    MASTER_ADDR of `meeting` is empty where the address of node 0 is not known yet.
    """

    plan: NodesPlan | None
    share: Share | None
    meeting: Meeting
    said: tuple[Said, ...] = ()

    @property
    def shown(self) -> int:
        """Of how many nodes this job has the ranks."""
        return 1 if self.plan is None else self.plan.count


def refuse(asked: SimpleNamespace, on: str) -> None:
    """What makes no sense over several machines. Raises `UsageError`."""
    several = "--on ray" if on == "ray" else as_given(asked, "nnodes")
    if asked.standalone:
        raise UsageError(f"`--standalone`: expected one machine, not `{several}`", "leave out one of the two")
    if asked.rdzv_backend not in BACKENDS:
        raise UsageError(
            f"`{as_given(asked, 'rdzv_backend')}`: expected {' or '.join(BACKENDS)}; node 0 is met at its address",
            "--rdzv-backend c10d",
        )
    if asked.stdin not in ("auto", "none"):
        raise UsageError(
            f"`--stdin {asked.stdin}`: expected one machine; no rank reads stdin with `{several}`",
            "< FILE in the program",
        )
    if asked.debug is not None:
        raise UsageError(
            f"`--debug {asked.debug}`: expected one machine; no rank has the terminal with `{several}`",
            "attach with debugpy: docs/debug.md",
        )
    if on == "ray" and not asked.nproc_per_node.isdecimal():
        raise UsageError(
            f"`-n {asked.nproc_per_node}`: expected a number with `--on ray`; what its nodes have is not known here",
            "-n 8",
        )
    if on == "ray" and ray_is_missing():
        wanted = "--on ray" if asked.on == "ray" else "RAY_ADDRESS"
        raise UsageError(f"`{wanted}`: expected the package `ray`, which is not installed", INSTALL)


def nodes(asked: SimpleNamespace, on: str, nproc: int, env: Mapping[str, str], follows: bool = False) -> Nodes:
    """What is asked for, with `nproc` ranks on each node. `follows`: not node 0, whatever its address. Raises `UsageError`."""
    if on == "ray":
        return _on_ray(asked, nproc, env)
    return _joined(asked, nproc, env, follows)


def led_by_address(asked: SimpleNamespace, env: Mapping[str, str]) -> bool:
    """Whether it would be node 0 for no better reason than that the endpoint is this machine."""
    return placed(asked, env) != "ray" and number(asked, env) is None


def first_here(plan: NodesPlan) -> tuple[bool, socket.socket | None]:
    """Of commands that nobody numbered, on the machine of the endpoint: whether this is the first, and what tells it the others.

    To be held for as long as the command runs. The first is node 0, and those after it join it, as under torchrun. When
    as many as the job has nodes are here already, one more is not of this job: it is to meet what it meets.
    """
    for number in range(plan.count):
        held = hold(f"node-{plan.port}-{plan.token[:16]}-{number}")
        if held is not None:
            return number == 0, held
    return True, None


def fields(found: Nodes) -> dict[str, Any]:
    """Of the job, besides its ranks. Node 0 shows what all ranks print, so that nothing is shown twice where one terminal
    or file takes what all commands print.
    """
    return {"nodes": found.plan} if found.share is None else {"share": found.share, "console": "none"}


# ── torchrun's habit: the same command on each node ──────────────────────────────────────────────────────────────


def _joined(asked: SimpleNamespace, nproc: int, env: Mapping[str, str], follows: bool) -> Nodes:
    count = asked.nnodes[0]
    met = endpoint(asked, env)
    if met is None:
        nnodes = as_given(asked, "nnodes")
        raise UsageError(
            f"`{nnodes}`: expected --rdzv-endpoint too, the address of node 0, on each node", _whole_line(asked)
        )
    port = met.port or PORT
    node = number(asked, env)
    if node is None and not follows and is_here(met.host):
        node = 0
    said: list[Said] = [
        *_without_effect(asked, ("ray_address", "resources"), "no node is placed by Ray"),
        *_rest_of_conf(asked),
    ]
    name = asked.rdzv_id or _slurm_job(env) or "none"
    times = {"join_timeout": _join_timeout(asked), "orphan_timeout": asked.orphan_timeout}
    addr = asked.master_addr if asked.rdzv_endpoint is not None and "master_addr" in asked.given else met.host
    mine = addr if asked.local_addr is None or "master_addr" in asked.given else asked.local_addr
    given_port = asked.master_port if asked.rdzv_endpoint is not None else None
    plan = share = None
    if node == 0:
        plan = NodesPlan(
            count=count,
            nproc=nproc,
            host=listens_on(met.host),
            port=port,
            token=token(env, name),
            agent=(sys.executable, *AGENT),
            node_timeout=asked.node_timeout,
            **times,
        )
    else:
        share = Share(host=met.host, port=port, count=count, token=token(env, name), node=node, **times)
    return Nodes(plan, share, Meeting(mine, given_port, name), tuple(said))


def endpoint(asked: SimpleNamespace, env: Mapping[str, str]) -> Endpoint | None:
    """Where node 0 is met: as it is given, by either of torchrun's spellings, or as the scheduler says. Raises `UsageError`."""
    given: Endpoint | None = asked.rdzv_endpoint
    if given is None and "master_addr" in asked.given:
        given = Endpoint(asked.master_addr, asked.master_port)
    if given is not None:
        if given.host in EVERYWHERE:
            field = "rdzv_endpoint" if asked.rdzv_endpoint is not None else "master_addr"
            raise UsageError(
                f"`{as_given(asked, field)}`: expected the address by which other nodes reach node 0",
                _whole_line(asked),
            )
        return given
    nodelist = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or ""
    if "SLURM_NODEID" in env and (first := host_list(nodelist)):
        return Endpoint(first, asked.master_port or _slurm_port(env))
    if env.get("LWS_LEADER_ADDRESS"):
        return Endpoint(env["LWS_LEADER_ADDRESS"], asked.master_port)
    return None


def number(asked: SimpleNamespace, env: Mapping[str, str]) -> int | None:
    """Which node this is; null when nobody says it: the coordinator gives the next free number. Raises `UsageError`."""
    count = asked.nnodes[0]
    found, written = asked.node_rank, as_given(asked, "node_rank")
    if found is None:
        variable = next((name for name in NUMBERS if env.get(name, "").isdecimal()), None)
        if variable is None:
            return None
        found, written = int(env[variable]), f"{variable}={env[variable]}"
    if found >= count:
        raise UsageError(f"`{written}`: expected 0 to {count - 1}, as there are {count} nodes", f"--nnodes {found + 1}")
    return int(found)


def token(env: Mapping[str, str], name: str) -> str:
    """What both ends of a link prove to know. Without RANKGUARD_TOKEN it is no secret, but keeps jobs apart by their names."""
    from hashlib import sha256

    return sha256(f"{env.get('RANKGUARD_TOKEN', '')}\0{name}".encode(errors="surrogateescape")).hexdigest()


def _slurm_job(env: Mapping[str, str]) -> str | None:
    job, step = env.get("SLURM_JOB_ID"), env.get("SLURM_STEP_ID")
    return f"slurm-{job}.{step}" if job and step else None


def _slurm_port(env: Mapping[str, str]) -> int | None:
    """One that all nodes of a step find, and no other step: two jobs may share a machine. Below the ephemeral range."""
    job, step = env.get("SLURM_JOB_ID", ""), env.get("SLURM_STEP_ID", "")
    if not (job.isdecimal() and step.isdecimal()):
        return None
    return 20000 + (int(job) * 16 + int(step)) % 10000


def is_here(host: str) -> bool:
    """Whether the endpoint is this machine: a name of ours, or one that means an address of ours."""
    if names_us(host):
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(names_us(str(address[4][0]).partition("%")[0]) for address in found)


def listens_on(host: str) -> str:
    """What the coordinator that is met at `host` listens on; empty: every address. Where all nodes are one machine, no other."""
    return host if host in ("localhost", "::1") or host.startswith("127.") else ""


def _join_timeout(asked: SimpleNamespace) -> float:
    """As it is given, or as torchrun's backends take it: `join_timeout` (c10d) or `timeout` (static) of --rdzv-conf."""
    conf = _conf(asked)
    for key in ("join_timeout", "timeout"):
        if "join_timeout" not in asked.given and key in conf:
            try:
                value = float(conf[key])
            except ValueError:
                value = 0.0
            if not 0 < value < 1e9:
                said = f"`{as_given(asked, 'rdzv_conf')}`: expected a number of seconds for `{key}`"
                raise UsageError(said, "--join-timeout 600")
            return value
    return float(asked.join_timeout)


def _conf(asked: SimpleNamespace) -> dict[str, str]:
    pairs = (part.partition("=")[::2] for part in asked.rdzv_conf.split(","))
    return {key.strip(): value.strip() for key, value in pairs if key.strip()}


def _rest_of_conf(asked: SimpleNamespace) -> list[Said]:
    rest = [key for key in _conf(asked) if key not in ("join_timeout", "timeout")]
    if not rest:
        return []
    option = as_given(asked, "rdzv_conf")
    return [(f"`{option}`: `{rest[0]}` has no effect; only `join_timeout` and `timeout` have", "--join-timeout S")]


# ── One command, and Ray places the rest ─────────────────────────────────────────────────────────────────────────


def _on_ray(asked: SimpleNamespace, nproc: int, env: Mapping[str, str]) -> Nodes:
    said = _without_effect(asked, ("node_rank", "rdzv_backend", "rdzv_conf"), "Ray places the nodes")
    met: Endpoint | None = asked.rdzv_endpoint
    plan = ray_plan(
        asked.nnodes[0],
        nproc,
        asked.ray_address or env.get("RAY_ADDRESS"),
        dict(asked.resources),
        host="" if met is None else met.host,
        port=0 if met is None else met.port or 0,
        join_timeout=asked.join_timeout,
        node_timeout=asked.node_timeout,
        orphan_timeout=asked.orphan_timeout,
    )
    addr = asked.master_addr if "master_addr" in asked.given else asked.local_addr or ""
    return Nodes(plan, None, Meeting(addr, asked.master_port, asked.rdzv_id or None), tuple(said))


# ── Both ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _without_effect(asked: SimpleNamespace, unused: tuple[str, ...], why: str) -> list[Said]:
    return [
        f"`{as_given(asked, field)}` has no effect: {why}"
        for field in unused
        if field in asked.given and getattr(asked, field) != ""
    ]


def _whole_line(asked: SimpleNamespace) -> str:
    """The command that would do, the same on each node."""
    words = ["rankguard", "run", "--nnodes", str(asked.nnodes[0]), "--rdzv-endpoint", f"HOST:{PORT}"]
    if "nproc_per_node" in asked.given:
        words += ["-n", asked.texts["nproc_per_node"]]
    words += ["-m"] if asked.module else []
    return shlex.join([*words, asked.program])
