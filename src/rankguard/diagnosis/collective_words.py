"""What one rank's words say of the collective that it waited in: did it time out, in which, whom does it name?

Sources are beside each pattern; recorded texts are in `tests/diagnosis/collective_texts.py`. Not here: comparing ranks
(`collectives.py`), whether such words make a victim (`peers.py`). A group's ranks are counted within the group, so the
ranks that a text names are believed only where its speaker is known to be a rank of the whole job.
"""

import re
from collections.abc import Iterable

from rankguard.diagnosis.peers import collective_timeout
from rankguard.diagnosis.tracebacks import clean
from rankguard.record import Record


class Step(Record):
    """Where a rank stood in one process group: the collective that it waited in, else the last that it had enqueued."""

    group: str
    place: int | None = None
    """Its rank within the group: no two have the same, or the group's name is no name for all of them."""
    seq: int | None = None
    op: str | None = None
    enqueued: int | None = None
    completed: int | None = None


class Told(Record):
    """What the words of one rank say."""

    timed_out: bool = False
    """By its own clock. A dump that another rank asked for is not that."""
    steps: tuple[Step, ...] = ()
    named: tuple[int, ...] = ()
    """Ranks that did not join, by the word of who compared them all."""
    asked: tuple[int, ...] = ()
    """Ranks whose key was waited for in the store, which may have waited themselves."""
    quote: str | None = None
    """The line that says that it timed out."""


_OWN = re.compile(
    r"Watchdog caught collective operation timeout"  # torch ProcessGroupNCCL.cpp (1.8 to 2.13)
    r"|Timeout at NCCL work"
    r"|(failure|Exception \(either an error or timeout\)) detected by watchdog at work"  # 2.7; 2.4
    r"|collective timeout from +this local rank"
    r"|watchdog got stuck for \d+ seconds"
    r"|Timed out waiting \d+ ?ms for (recv|send) operation"  # gloo/transport/tcp/unbound_buffer.cc
    r"|Application timeout caused pair closure"
    r"|failed to pass monitoredBarrier"  # torch ProcessGroupGloo.cpp
    r"|Timed out after \d+ seconds waiting for clients"  # torch TCPStore.cpp
    r"|wait timeout after \d+ms, keys:"
    r"|Barrier timed out"  # xla coordination_service.cc
)
_WORK = re.compile(r"WorkNCCL\((?:SeqNum=(?P<seq>\d+), )?OpType=(?P<op>\w+)")
_WATCHED = re.compile(r"detected by watchdog at work(?: sequence id)?: (?P<seq>\d+)|Timeout at NCCL work: (?P<old>\d+)")
_ENQUEUED = re.compile(r"[Ll]ast enqueued (?:NCCL )?work: (-?\d+)")
_COMPLETED = re.compile(r"[Ll]ast completed (?:NCCL )?work: (-?\d+)")
_GROUP = re.compile(r"\[PG (?:ID \d+ PG GUID )?(?P<group>[^\]]*?) ?Rank (?P<rank>\d+)\]")
_RANK = re.compile(r"\[Rank (\d+)\]|(?<!\S)Rank (\d+)$")

# torch TraceUtils.h, with TORCH_NCCL_DESYNC_DEBUG (pytorch/pytorch#68310, #152623)
_LAGGING = re.compile(
    r"\[([\d, ]+)\] (?:finished collective #\d+, but didn't join|joined but didn't finish) collective"
)
_NEVER = re.compile(r"ranks \[([\d, ]+)\] are the lagging ranks")
# torch ProcessGroupGloo.cpp: rank 0 of the barrier's group says it
_BARRIER = re.compile(r"Ranks? ([\d, ]+) failed to pass monitoredBarrier")
# xla coordination_service.cc (ayaka14732/llama-2-jax#20)
_TASKS = re.compile(r"[Tt]imed out task names:")
_TASK = re.compile(r"/job:\S+?/task:(\d+)")
# torch ProcessGroupGloo.cpp, gloo rendezvous: the address of rank N under `…/cpu//GROUP/N`
_GLOO_KEY = re.compile(r"wait timeout after \d+ms, keys: \S*//cpu//\d+/(\d+)$")
# torch ProcessGroupNCCL.cpp, `broadcastUniqueNCCLID`
_NCCL_KEY = re.compile(r"retrieving ncclUniqueId from \[(\d+)\]")


def told(rank: int, lines: Iterable[str]) -> Told:
    """What `rank` (of the job) has said in these lines, oldest first."""
    texts = clean("\n".join(lines))
    steps: dict[str, Step] = {}
    named: set[int] = set()
    asked: set[int] = set()
    quote, tasks, of_job, work = None, False, True, None
    for text in texts:
        if own := _OWN.search(text):
            quote = quote or text[own.start() :].strip()
        group = _GROUP.search(text)
        said_by = group["rank"] if group else next(iter(filter(None, _groups(_RANK, text))), None)
        if said_by is not None:
            of_job = int(said_by) == rank
        if found := _WORK.search(text):
            work = work or found
        if group:
            _step(steps, group["group"], int(group["rank"]), text)
        if of_job:
            for pattern in (_LAGGING, _NEVER, _BARRIER):
                named |= {int(number) for each in pattern.findall(text) for number in re.findall(r"\d+", each)}
        tasks = tasks or bool(_TASKS.search(text))
        if tasks:
            named |= {int(number) for number in _TASK.findall(text.partition("imed out task names:")[2] or text)}
        for pattern in (_GLOO_KEY, _NCCL_KEY):
            asked |= {int(number) for number in pattern.findall(text)}
    timed_out = quote is not None and collective_timeout("\n".join(texts)) is not None
    return Told(
        timed_out=timed_out,
        steps=_with_work(steps, work),
        named=tuple(sorted(named)) if timed_out else (),
        asked=tuple(sorted(asked - {rank})),
        quote=quote if timed_out else None,
    )


def _groups(pattern: re.Pattern[str], text: str) -> tuple[str | None, ...]:
    found = pattern.search(text)
    return found.groups() if found else ()


def _step(steps: dict[str, Step], group: str, place: int, text: str) -> None:
    """Numbers of a line that names its process group; the first that is said of a group holds."""
    known = steps.get(group) or Step(group, place)
    watched = _WATCHED.search(text)
    enqueued, completed = _ENQUEUED.search(text), _COMPLETED.search(text)
    if not (watched or enqueued or completed):
        return
    steps[group] = known.replace(
        seq=known.seq if known.seq is not None or not watched else int(watched["seq"] or watched["old"]),
        enqueued=known.enqueued if known.enqueued is not None or not enqueued else int(enqueued[1]),
        completed=known.completed if known.completed is not None or not completed else int(completed[1]),
    )


def _with_work(steps: dict[str, Step], work: re.Match[str] | None) -> tuple[Step, ...]:
    """The watchdog's own line names the operation and its number, but no group: that of the same number, if any."""
    if work is None:
        return tuple(steps.values())
    seq = int(work["seq"]) if work["seq"] else None
    for group, step in steps.items():
        if step.seq == seq or step.seq is None:
            steps[group] = step.replace(seq=seq, op=work["op"])
            return tuple(steps.values())
    return (*steps.values(), Step("", seq=seq, op=work["op"]))
