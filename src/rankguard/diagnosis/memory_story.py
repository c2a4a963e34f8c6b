"""Was it the kernel's OOM killer, whom did it kill, and who is responsible?

The rule: a plain `kill -9` is never called an OOM kill, nor an OOM kill a plain signal. `proven` needs a witness that
names this rank: the kernel log's record of its pid, or the counter of a group that holds this rank alone. A counter
that is shared with others says that somebody was killed: `likely`, unless the kernel log accounts for every kill that
it counted.

The victim is the largest process, not the one that grew: `responsible` is separate. Not here: memory errors that are no
kills (`error_texts.py`). Read next: `causes.py`.
"""

from itertools import islice

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import (
    SIGABRT,
    code_of,
    ended_by_itself,
    ended_by_us,
    report_of,
    said,
    sigkilled_by_others,
    signal_of,
)
from rankguard.diagnosis.projection import not_of_ranks
from rankguard.diagnosis.words import size, whose
from rankguard.facts import KernelKilled
from rankguard.model import Confidence, Evidence, Memory, MemoryState, OomCount, Responsible
from rankguard.record import Record

KILLED_INSIDE = 128 + 9
"""What a shell returns when its child was ended by SIGKILL."""


class OomKill(Record):
    """A kill by the OOM killer that explains the end of a rank. `child`: a process of the rank was killed."""

    confidence: Confidence
    child: bool
    pid: int | None
    evidence: tuple[Evidence, ...]


def oom_kill(case: Case, rank: RankCase) -> OomKill | None:
    """The OOM kill that explains this rank's end; null when none does."""
    if sigkilled_by_others(rank) or (not _told_how(rank) and _records(rank, child=False)):
        return _of_itself(case, rank)
    if _records(rank, child=False) and signal_of(rank) == 9:
        return _of_itself(case, rank)  # our SIGKILL met one that had been killed already
    return _of_child(rank)


def _told_how(rank: RankCase) -> bool:
    """Its status is known. That of somebody else's child may have gone with the parent that reaped it."""
    return rank.exited is not None and (signal_of(rank) is not None or code_of(rank) is not None)


def responsible(case: Case, rank: RankCase) -> tuple[Responsible, ...]:
    """Who grew when the victim was killed: other ranks of its machine, or what is no rank's own. Nobody, if it was the victim itself and
    no other grew half as fast.

    Where nothing is known to have grown (no samples, or too few): ranks that held clearly more than the victim.
    """
    here = case.beside(rank.rank)
    growth = {each.rank: memory_of(case, each).growth_bytes_s or 0.0 for each in here}
    total, state = sum(growth.values()), domain(case)
    if not matters(case, total):
        other = state.growth_bytes_s or 0.0
        if not matters(case, other) or not not_of_ranks(state):
            return _larger(case, rank)
        because = f"memory that is no rank's own grew by {size(other)}/s: shared memory, tmpfs or other processes"
        return (Responsible(rank=None, because=because, confidence=Confidence.LIKELY),)
    own = growth[rank.rank]
    least = own / 2 if own > total / 2 else total / 10
    fast = sorted((each for each in here if growth[each.rank] > least), key=lambda each: -growth[each.rank])
    return tuple(
        _blamed(
            case,
            each,
            f"was growing by {size(growth[each.rank])}/s ({_held(case, each)} when {whose(case, rank)} was killed)",
        )
        for each in fast[:4]
        if each.rank != rank.rank
    )


def _blamed(case: Case, rank: RankCase, because: str) -> Responsible:
    if case.spec.watch is not None:  # it has no number that a reader knows
        return Responsible(rank=None, because=f"{whose(case, rank)} {because}", confidence=Confidence.LIKELY)
    return Responsible(rank=rank.rank, because=because, confidence=Confidence.LIKELY)


def domain(case: Case) -> MemoryState:
    """The memory of the job at the failure, completed by what is known of its limit since."""
    looked = case.looked.state if case.looked else MemoryState()
    return MemoryState(
        **{
            field: getattr(case.memory if getattr(looked, field) is None else looked, field)
            for field in MemoryState._fields
        }
    )


def matters(case: Case, growth: float) -> bool:
    """It fills a hundredth of the limit within ten seconds."""
    return growth * 10 > (domain(case).limit_bytes or 0) / 100 and growth > 1 << 16


def _held(case: Case, rank: RankCase) -> str:
    memory = memory_of(case, rank)
    return size(memory.held_bytes or memory.rss_bytes or 0)


def _larger(case: Case, rank: RankCase) -> tuple[Responsible, ...]:
    own = used(case, rank)
    if not own:
        return ()
    larger = [
        (held, other)
        for other in case.beside(rank.rank)
        if other.rank != rank.rank and (held := used(case, other)) > 1.25 * own
    ]
    larger.sort(key=lambda pair: (-pair[0], pair[1].rank))
    return tuple(
        _blamed(case, other, f"held {size(held)} when {whose(case, rank)} was killed with {size(own)}")
        for held, other in larger[:3]
    )


def memory_of(case: Case, rank: RankCase) -> Memory:
    """The memory of one rank: what is known of it, else what the look on the first failure saw."""
    known, recorded = _seen(case, rank), _recorded_bytes(rank)
    return known.replace(held_bytes=recorded, age_s=None) if recorded > (known.held_bytes or 0) else known


def used(case: Case, rank: RankCase) -> int:
    """The most memory that this rank is known to have held, in bytes; 0 when unknown."""
    memory, recorded = _seen(case, rank), _recorded_bytes(rank)
    rss, peak, held = memory.rss_bytes or 0, memory.peak_bytes or 0, memory.held_bytes
    if held is None:
        return recorded or max(rss, peak)
    # What it shares with others is not its own; how much that is one look tells, and no two.
    return max(recorded, held, peak - max(0, rss - held))


def _seen(case: Case, rank: RankCase) -> Memory:
    known = rank.memory
    if known == Memory() and case.looked:
        known = next((memory for number, memory in case.looked.memory if number == rank.rank), known)
    return known


def counted(rank: RankCase, *, shared: bool) -> tuple[OomCount, ...]:
    """The counters that had risen when it ended: those of its own group, or those shared with others."""
    counts = rank.exited.oom if rank.exited else ()
    return tuple(count for count in counts if count.shared is shared and count.after > count.before)


def counter_evidence(counts: tuple[OomCount, ...]) -> tuple[Evidence, ...]:
    """Risen counters as evidence."""
    return tuple(
        Evidence(
            source="cgroup",
            statement=f"oom_kill of {_group(count.path)} rose from {count.before} to {count.after}"
            + (", shared with others" if count.shared else ""),
        )
        for count in counts
    )


def log_evidence(records: tuple[KernelKilled, ...]) -> tuple[Evidence, ...]:
    """Records of the kernel log as evidence."""
    return tuple(Evidence(source="kernel log", statement=_quote(killed)) for killed in records)


def told_at(case: Case, rank: RankCase) -> float | None:
    """When the kernel told of the OOM that this rank's end may be of: it was killed before that instant."""
    end = rank.exited.at if rank.exited else case.now
    return max((seen.at for seen in case.ooms_seen if end - _LATEST_S <= seen.at <= end), default=None)


_LATEST_S = 10.0
"""An exit takes no longer, even of the largest process."""


def _event_evidence(case: Case, rank: RankCase) -> tuple[Evidence, ...]:
    at = told_at(case, rank)
    if at is None or not rank.exited:
        return ()
    before = f"{(rank.exited.at - at) * 1e3:.1f} ms before it had ended"
    return (Evidence(source="event", statement=f"the kernel told of an OOM kill {before}; it does not say of whom"),)


def _of_itself(case: Case, rank: RankCase) -> OomKill | None:
    records, own, shared = _records(rank, child=False), counted(rank, shared=False), counted(rank, shared=True)
    evidence = log_evidence(records) + counter_evidence(own + shared) + _event_evidence(case, rank)
    if records:
        return OomKill(confidence=Confidence.PROVEN, child=False, pid=rank.pid, evidence=evidence)
    if own and _rise(own) > len(_records(rank, child=True)):
        return OomKill(confidence=Confidence.PROVEN, child=False, pid=rank.pid, evidence=evidence)
    if own or not shared:
        return None  # its own group's kills were its children's: this SIGKILL came from somebody
    unexplained = _rise(shared) - _recorded(case, rank)
    if unexplained <= 0:
        return None
    claimants = (r for r in case.beside(rank.rank) if sigkilled_by_others(r) and not r.ooms and counted(r, shared=True))
    if len(list(islice(claimants, unexplained + 1))) <= unexplained:
        return OomKill(confidence=Confidence.LIKELY, child=False, pid=rank.pid, evidence=evidence)
    doubt = f"more ranks than the OOM killer took ({unexplained}) were ended by SIGKILL: which of them is not known"
    evidence += (Evidence(source="wait status", statement=doubt),)
    return OomKill(confidence=Confidence.UNKNOWN, child=False, pid=rank.pid, evidence=evidence)


def _of_child(rank: RankCase) -> OomKill | None:
    """A child was killed, and the rank failed after it. That one led to the other is proven only if it says so."""
    if ended_by_us(rank) and not report_of(rank):
        return None
    failed_after = report_of(rank) or (ended_by_itself(rank) and (code_of(rank) or signal_of(rank) == SIGABRT))
    own = counted(rank, shared=False)
    if not failed_after or not (rank.ooms or own):
        return None
    words = said(rank)
    tells = code_of(rank) == KILLED_INSIDE or "SIGKILL" in words or "killed by signal" in words
    tells = tells or any(f" {killed.record.pid}" in words for killed in rank.ooms)
    named = _records(rank, child=True)  # from inside a PID namespace the log's pids tell nothing
    return OomKill(
        confidence=Confidence.PROVEN if tells else Confidence.LIKELY,
        child=True,
        pid=named[0].record.pid if named else None,
        evidence=log_evidence(rank.ooms) + counter_evidence(own),
    )


def _records(rank: RankCase, *, child: bool) -> tuple[KernelKilled, ...]:
    return tuple(killed for killed in rank.ooms if killed.is_child is child)


def _recorded(case: Case, rank: RankCase) -> int:
    """How many kills the kernel log of this rank's machine tells of."""
    return len(case.other_ooms) + sum(len(each.ooms) for each in case.beside(rank.rank))


def _recorded_bytes(rank: RankCase) -> int:
    """The kernel's own word on a victim, at the kill; 0 where there is none."""
    return max((killed.record.anon_rss_bytes or 0 for killed in rank.ooms if not killed.is_child), default=0)


def _rise(counts: tuple[OomCount, ...]) -> int:
    return max((count.after - count.before for count in counts), default=0)


def _group(path: str) -> str:
    if path.startswith("/proc/"):
        return "the whole machine (/proc/vmstat)"
    parts = [part for part in path.split("/") if part and not part.startswith("memory.")]
    return "…/" + "/".join(parts[-2:]) if parts else path


def _quote(killed: KernelKilled) -> str:
    record = killed.record
    text = f"Killed process {record.pid} ({record.name})"
    return text + (f", anon-rss:{record.anon_rss_bytes // 1024}kB" if record.anon_rss_bytes is not None else "")
