"""What is known of a run as Prometheus's text (version 0.0.4). Pure: the text is made of what the journal told.

Names begin with `rankguard_`, units are seconds and bytes, counters end in `_total`. Labels are rank, role and node at
most, never a pid or a run's id, so that a run which is started anew continues the series of the one before. Every rank
has its state, one that never came to be as well. A number that is not known is left out, never 0.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from rankguard._version import __version__
from rankguard.core.job import Job, RankState
from rankguard.http import probes
from rankguard.http.followed import Followed, causes
from rankguard.model import Phase, Verdict

TYPE = "text/plain; version=0.0.4; charset=utf-8"
RANK_STATES = ("waiting", "starting", "ready", "running", "stopping", "finished", "failed", "stopped")
LOST = "lost"
"""Of a rank of a job on several machines: its node was."""
NODE_STATES = ("missing", "joined", "silent", "lost")
JOB_STATES = (
    "starting", "ready", "running", "suspended", "stopping", "restarting", "failed", "succeeded", "interrupted",
)  # fmt: skip

Labels = Mapping[str, str]


class Own(NamedTuple):
    """Of our own processes and of this server: CPU seconds and resident bytes by process, and what came over HTTP."""

    cpu: Mapping[str, float]
    resident: Mapping[str, int]
    connections: int
    dropped: int
    requests: Mapping[tuple[str, int], int]


class Family(NamedTuple):
    """One metric and its samples."""

    name: str
    kind: str
    help: str
    samples: Iterable[tuple[Labels, float | None]]


def text(run: Followed, own: Own) -> str:
    """All of it. A family without a sample is left out."""
    lines: list[str] = []
    for family in _families(run, own):
        told = [
            f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples if value is not None
        ]
        if told:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}", *told]
    return "\n".join(lines) + "\n"


def _families(run: Followed, own: Own) -> Iterator[Family]:
    job = run.job
    yield Family("rankguard_info", "gauge", "The version of rankguard, and how ranks come to be.",
                 [({"version": __version__, "start": run.spec.start if run.spec else "exec"}, 1)])  # fmt: skip
    yield from _probes(run)
    if job is not None:
        yield from _job(run, job)
        yield from _ranks(job, run.aside.get("samples") or {})
        yield from _memory(run.aside.get("samples") or {})
        yield from _failures(run, job, run.verdict())
    yield from _own(own)


def _probes(run: Followed) -> Iterator[Family]:
    state = probes.phase(run)
    yield Family("rankguard_job_state", "gauge", "1 for the state that the job is in.",
                 [({"state": name}, name == state) for name in JOB_STATES])  # fmt: skip
    for name, answer in (("started", probes.started(run)), ("ready", probes.ready(run)), ("live", probes.live(run))):
        yield Family(f"rankguard_{name}", "gauge", f"Whether the job is {name}, as /{_PROBES[name]} tells.",
                     [({}, answer.yes)])  # fmt: skip


_PROBES = {"started": "startupz", "ready": "readyz", "live": "livez"}


def _job(run: Followed, job: Job) -> Iterator[Family]:
    ranks = [({"node": job.spec.node}, job.spec.nprocs)]
    if job.spec.nodes is not None:
        ranks = [({"node": each.name}, each.count) for each in job.nodes.values()]
    yield Family("rankguard_start_time_seconds", "gauge", "When this attempt was launched, in seconds since 1970.",
                 [({}, job.started_wall if job.started_at is not None else None)])  # fmt: skip
    yield Family("rankguard_ranks", "gauge", "Ranks of the job.", ranks)
    yield from _nodes(job)
    started = [rank.spawned_at or 0.0 for rank in job.ranks[: job.spec.nprocs]]
    spawned = max(started, default=0.0) if job.spawned == job.spec.nprocs else None
    yield Family("rankguard_startup_seconds", "gauge",
                 "From the launch of this attempt until all ranks execute (launch), from there until all are ready (ready).",
                 [({"phase": "launch"}, _span(job.started_at, spawned)),
                  ({"phase": "ready"}, _span(spawned, job.all_ready_at))])  # fmt: skip
    yield Family("rankguard_restarts_total", "counter", "How often all ranks were started again.",
                 [({}, len(job.attempts))])  # fmt: skip
    yield Family("rankguard_restarts_allowed", "gauge", "How often they may be (--max-restarts).",
                 [({}, job.spec.max_restarts)])  # fmt: skip
    yield Family("rankguard_stall_examinations_total", "counter", "Looks at the stacks of ranks that were silent for too long.",
                 [({}, run.examinations + job.examinations)])  # fmt: skip
    stalled = job.judged is not None and job.judged.kind == "stall"
    yield Family("rankguard_stalls_total", "counter", "Stalls that ended an attempt.", [({}, run.stalls + stalled)])
    warnings = run.warnings + len(job.warnings)
    yield Family("rankguard_warnings_total", "counter", "What rankguard could not do, while the job went on.",
                 [({}, warnings)])  # fmt: skip
    yield Family("rankguard_degraded", "gauge", "Parts of rankguard that failed and are switched off in this attempt.",
                 [({}, len(job.degraded))])  # fmt: skip


def _nodes(job: Job) -> Iterator[Family]:
    """Of a job on several machines."""
    plan = job.spec.nodes
    if plan is None:
        return
    found = dict.fromkeys(NODE_STATES, 0)
    for number in range(plan.count):
        lost = number in job.lost_nodes
        found[
            "lost"
            if lost
            else "silent"
            if number in job.silent_nodes
            else "joined"
            if number in job.nodes
            else "missing"
        ] += 1
    yield Family("rankguard_nodes", "gauge", "Nodes of the job, by the state that they are in.",
                 [({"state": name}, count) for name, count in found.items()])  # fmt: skip
    yield Family("rankguard_node_clock_uncertainty_seconds", "gauge", "How far off an instant may be that a node has told.",
                 [({"node": each.name}, each.uncertainty) for each in job.nodes.values()])  # fmt: skip


def _failures(run: Followed, job: Job, known: Verdict) -> Iterator[Family]:
    deaths = run.deaths + (causes(known) if job.judged is not None else type(run.deaths)())
    yield Family("rankguard_deaths_total", "counter",
                 "Ranks that ended or failed by themselves, by family, kind and confidence of the cause.",
                 [({"family": family, "kind": kind, "confidence": sure}, count)
                  for (family, kind, sure), count in sorted(deaths.items())])  # fmt: skip
    yield Family("rankguard_reported_total", "counter",
                 "Processes of a watched engine that ended abnormally and were left to it, by role.",
                 [({"role": role}, count) for role, count in sorted(run.perished.items())])  # fmt: skip
    culprit = known.culprit
    yield Family("rankguard_detection_seconds", "gauge",
                 "From the first news of the last failure to the first signal of ours.",
                 [({}, culprit.detected_in_ms / 1e3 if culprit is not None and culprit.detected_in_ms is not None else None)])  # fmt: skip


def _ranks(job: Job, samples: Mapping[str, Any]) -> Iterator[Family]:
    # In a watched tree one that has ended may have a successor of the same role and index: that is its series then.
    ranks = {tuple(labels_of(job, rank).values()): rank for rank in job.ranks}.values()
    labels = {rank.rank: labels_of(job, rank) for rank in ranks}
    states = RANK_STATES if job.spec.nodes is None else (*RANK_STATES, LOST)
    yield Family("rankguard_rank_state", "gauge", "1 for the state that a rank is in.",
                 [(labels[rank.rank] | {"state": name}, name == state_of(job, rank))
                  for rank in ranks for name in states])  # fmt: skip
    yield Family("rankguard_rank_startup_seconds", "gauge",
                 "From the launch until the rank executes (launch), from there until it is ready (ready).",
                 [sample for rank in ranks for sample in (
                     (labels[rank.rank] | {"phase": "launch"}, _span(job.started_at, rank.spawned_at)),
                     (labels[rank.rank] | {"phase": "ready"}, _span(rank.spawned_at, rank.ready_at)))])  # fmt: skip
    yield Family("rankguard_rank_memory_bytes", "gauge",
                 "Private memory of the rank and its children; in a cgroup of its own with the shared memory it touched first.",
                 [(labels[number], size) for number, size in samples.get("ranks") or () if number in labels])  # fmt: skip


def _memory(samples: Mapping[str, Any]) -> Iterator[Family]:
    memory = samples.get("memory") or {}
    for field, name, what in (
        ("limit_bytes", "limit", "The memory limit with the least room."),
        ("used_bytes", "used", "Memory in use under that limit, cache included."),
        ("firm_bytes", "firm", "The part of it that the kernel cannot take back."),
    ):
        yield Family(f"rankguard_memory_{name}_bytes", "gauge", what, [({}, memory.get(field))])
    yield Family("rankguard_memory_growth_bytes_per_second", "gauge", "How fast that part grew in the last seconds.",
                 [({}, memory.get("growth_bytes_s"))])  # fmt: skip


def _own(own: Own) -> Iterator[Family]:
    yield Family("rankguard_process_cpu_seconds_total", "counter", "CPU time of rankguard's own processes.",
                 [({"process": name}, value) for name, value in own.cpu.items()])  # fmt: skip
    yield Family("rankguard_process_resident_memory_bytes", "gauge", "Resident memory of rankguard's own processes.",
                 [({"process": name}, value) for name, value in own.resident.items()])  # fmt: skip
    yield Family("rankguard_http_connections", "gauge", "Connections to this server.", [({}, own.connections)])
    yield Family("rankguard_http_connections_dropped_total", "counter", "Connections that were too slow, or too many.",
                 [({}, own.dropped)])  # fmt: skip
    yield Family("rankguard_http_requests_total", "counter", "Requests by path and status.",
                 [({"path": path, "code": str(code)}, count) for (path, code), count in sorted(own.requests.items())])  # fmt: skip


def labels_of(job: Job, rank: RankState) -> dict[str, str]:
    """Of one rank. In a watched tree `rank` is what tells processes of one role apart: the index, else the name."""
    which, role, member = str(rank.rank), job.spec.role, rank.member
    if member is not None:
        which, role = str(member.name if member.index is None else member.index), member.role
    return {"rank": which, "role": role, "node": job.node_name(rank.rank)}


def state_of(job: Job, rank: RankState) -> str:
    """`waiting` has not been started; `finished` ended with 0, `stopped` was ended by us, `failed` ended otherwise; `lost`
    went with its node.
    """
    if rank.exited is not None:
        if rank.exited.ending.code == 0 and rank.failed_at is None:
            return "finished"
        return "failed" if rank.failed_at is not None or job.signalled_at(rank) is None else "stopped"
    if rank.not_spawned is not None:
        return "failed"
    phase = job.phase(rank)
    if phase is Phase.LOST:
        return LOST
    if rank.pid is None:
        return "stopped" if phase is Phase.STOPPING else "waiting"
    return str(phase)


def _span(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else max(0.0, round(last - first, 6))


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, bool) or value == int(value) else repr(float(value))
