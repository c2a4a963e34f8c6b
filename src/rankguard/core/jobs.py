"""The cells of the table that take facts about the job as a whole."""

from rankguard.core.clocks import Orders, disarm, lose, resume, suspend, wake, wake_in_time
from rankguard.core.examining import examine_later, ready_passed
from rankguard.core.job import Job
from rankguard.core.members import left_passed, settled
from rankguard.core.muster import muster_passed
from rankguard.core.nodes import nodes_passed
from rankguard.core.policy import HOLD, LEAVE
from rankguard.core.ranks import expect_readiness
from rankguard.core.stalls import stall_passed
from rankguard.core.stopping import (
    asker,
    bound_passed,
    clock_passed,
    complaint_passed,
    echo_passed,
    finish_when_done,
    go_on_holding,
    hold_passed,
    judge,
    judge_when_resolved,
    kill,
    launch_orders,
    leave,
    settle_passed,
    stop_for_failure,
    stop_on_request,
    suspect,
    suspects_passed,
    sweep_passed,
    warn,
)
from rankguard.facts import (
    DeadlinePassed,
    Degraded,
    FrontLost,
    GpusRead,
    JobStarted,
    Judged,
    KernelKilled,
    KernelNoted,
    Looked,
    MemoryEased,
    MemoryShort,
    OomSeen,
    ReadinessExpected,
    Resumed,
    Signalled,
    SignalPassed,
    StoppingAnnounced,
    StopRequested,
    Surveyed,
    Suspended,
    TimeLost,
    TreeEmpty,
    WardenLost,
    Warned,
)
from rankguard.model import Sender
from rankguard.orders import Order, SignalAll, SignalRank, Tell

SIGINT, SIGKILL = 2, 9
FELLED = ("killed", "dumping")
"""What a look shows of a rank that dies of a signal. One that exits may be a victim as well."""

_DEADLINES = {
    "ready": ready_passed,
    "stall": stall_passed,
    "complaint": complaint_passed,
    "hold": hold_passed,
    "engine": settled,
    "left": left_passed,
    "echo": echo_passed,
    "nodes": nodes_passed,
    "muster": muster_passed,
    "settle": settle_passed,
    "suspects": suspects_passed,
    "grace": clock_passed,
    "shutdown": clock_passed,
    "sweep": sweep_passed,
    "bound": bound_passed,
}


def started(job: Job, fact: JobStarted) -> Orders:
    job.started_at, job.started_wall, job.memory = fact.at, fact.wall, fact.memory
    job.remember(fact.at, "launched")
    return launch_orders(job, fact)


def readiness_expected(job: Job, fact: ReadinessExpected) -> Orders:
    orders: list[Order] = list(expect_readiness(job, fact.at, "somebody waits for readiness"))
    if fact.timeout is not None and job.all_ready_at is None and fact.at + fact.timeout < job.ready_by:
        job.ready_by = fact.at + fact.timeout
        orders += wake_in_time(job, "ready", job.ready_by, "the caller's timeout")
    return tuple(orders)


def stop_requested(job: Job, fact: StopRequested) -> Orders:
    if (holder := _who_has_the_terminal(job, fact)) is not None:
        return (SignalRank("Ctrl-C is for the rank that has the terminal", holder, fact.signal),)
    _count(job, fact)
    if not job.holding or job.attached:
        return stop_on_request(job, fact)
    # A failure came first; its stop is held no longer, and its own clock applies.
    because = f"asked to end by {fact.by} while the stop was held"
    job.awaits_muster = False
    orders = stop_for_failure(job, fact.at, because, spare=fact.spare)
    return (*orders, *kill(job, fact.at, because)) if fact.at_once else orders


def _who_has_the_terminal(job: Job, fact: StopRequested) -> int | None:
    """The debug rank while it lives, when the terminal's own driver sent SIGINT: then nobody is named as its sender."""
    number = job.spec.debug_rank
    if number is None or fact.signal != SIGINT or fact.by != "signal" or fact.sender != Sender() or job.holding:
        return None
    rank = job.ranks[number]
    return number if rank.pid is not None and not rank.gone else None


def stop_requested_again(job: Job, fact: StopRequested) -> Orders:
    """While stopping: an interrupt during a teardown, or the second one, ends all at once; others are passed on.

    Not what has come already, to another one of our processes: it is the same request.
    """
    if job.attached:
        return stop_on_request(job, fact)
    times, again = _count(job, fact)
    impatient = fact.signal == SIGINT and again and (times >= 2 or job.stop is None)
    because = f"asked again to end by {asker(fact)}"
    if fact.at_once or impatient:
        return kill(job, fact.at, because)
    if job.stop is None or not again:
        return ()
    return (SignalAll(because, fact.signal),)


def _count(job: Job, fact: StopRequested) -> tuple[int, bool]:
    """How often this signal has come to the process that it came to now, and whether that is more than to any other."""
    most = max((times for (_to, number), times in job.asked.items() if number == fact.signal), default=0)
    times = job.asked[fact.to, fact.signal] = job.asked.get((fact.to, fact.signal), 0) + 1
    return times, times > most


def signal_passed(job: Job, fact: SignalPassed) -> Orders:
    if job.attached:
        return ()
    return (SignalAll("forwarded as it came", fact.signal, ends=False),)


def suspended(job: Job, fact: Suspended) -> Orders:
    """Every rank stops, no deadline runs. Not once something has failed: then the job is about to end."""
    if job.suspended_at is not None or job.failed_at is not None:
        return ()
    orders = suspend(job, fact.at, "the job is suspended")
    examine_later(job, fact.at)
    return orders


def resumed(job: Job, fact: Resumed) -> Orders:
    return resume(job, fact.at, "the job goes on")


def time_lost(job: Job, fact: TimeLost) -> Orders:
    """All deadlines come later by as much. While the job is suspended that time is counted already."""
    return () if job.suspended_at is not None else lose(job, fact.at, fact.seconds)


def stopping_announced(job: Job, _fact: StoppingAnnounced) -> Orders:
    job.announced = True
    return ()


def one_of_ours_lost(job: Job, fact: FrontLost | WardenLost) -> Orders:
    """Nobody is left to answer to, or nobody to end the job if we go too: end everything at once, if that is wanted."""
    who = "front" if isinstance(fact, FrontLost) else "warden"
    if job.spec.keeps:
        return _keep(job, who, fact)
    job.lost = job.lost or fact
    because = f"the {who} (pid {fact.pid}) is gone"
    if job.failed_at is None:
        job.failed_at, job.failed_by = fact.at, f"{who}-lost"
    job.holding = job.echoing = False
    job.unresolved.clear()
    if job.attached:
        return leave(job, fact.at, because)
    # The sweep ends what there is; the signal also says that no other rank is to be started.
    cancel = (SignalAll(because, SIGKILL),) if job.stopped_at is None else ()
    return (*cancel, *kill(job, fact.at, because), *judge(job, because))


def _keep(job: Job, who: str, fact: FrontLost | WardenLost) -> Orders:
    """Two of ours are left, and go on. The front is missed twice, by its pidfd and by its silence."""
    part = f"the {who}"
    if part in job.degraded:
        return ()
    pid = f" (pid {fact.pid})" if fact.pid else ""
    rest = "nobody is left to answer to" if who == "front" else "the front keeps the engine if the supervisor goes, too"
    return degraded(
        job, Degraded(fact.at, part, f"{part}{pid} is gone, and the engine is kept (--on-lost keep): {rest}")
    )


def degraded(job: Job, fact: Degraded) -> Orders:
    """What nobody listens for any more cannot be late."""
    job.degraded.append(fact.part)
    job.remember(fact.at, f"went on without {fact.part}")
    deaf = tuple(name for name in fact.deaf if job.due.pop(name, None) is not None)
    return (*disarm(job, deaf, fact.statement), *warn(job, f"rankguard degraded: {fact.statement}"))


def deadline_passed(job: Job, fact: DeadlinePassed) -> Orders:
    if fact.generation != job.generations.get(fact.name):
        return ()
    job.due.pop(fact.name, None)
    return _DEADLINES[fact.name](job, fact.at)


def looked(job: Job, fact: Looked) -> Orders:
    """Those seen dying before any signal of ours are suspects. While the stop is held they decide about it: at once, if
    it is no peer's death that they die of, else once it is known how they end.
    """
    if job.looked is None or job.spec.nodes is None:  # else an agent looked, on its node alone
        job.looked = fact
    job.noticed_at = job.noticed_at or fact.at
    _seen(job, fact)
    fell = False
    for number, how in fact.dying if job.failed_at is not None else ():
        if number >= len(job.ranks):
            continue
        rank = job.ranks[number]
        if rank.dying is None:
            rank.dying = how
        if (
            not rank.suspect
            and rank.not_spawned is None
            and not rank.lost
            and not (rank.exited and rank.exited.ending.code == 0)
        ):
            fell = fell or how in FELLED
            suspect(job, rank, fact.at)
    if not job.holding or job.spec.watch is not None:  # an engine that is watched has its own time to end
        return judge_when_resolved(job)
    if job.mustering:
        return go_on_holding(
            job, fact.at
        )  # others time out at the same moment; who did not is looked at before anybody is stopped
    if fell:
        return stop_for_failure(job, fact.at, "a rank lost a peer, and another was seen dying")
    if len(job.heard) == job.spec.nprocs or "hold" in job.due:
        return go_on_holding(job, fact.at)
    what = "others are ending" if job.unresolved else "no rank is seen dying"
    hold = HOLD if job.spec.share is None else LEAVE
    return (wake(job, "hold", fact.at + hold, f"a rank lost a peer, and {what}: the first failure is on its way"),)


def _seen(job: Job, fact: Looked) -> None:
    """Memory, and of an engine, which may kill others until it has had its time, who was alive. One more of its processes
    may have been found just before: that it joins is told next.
    """
    for number, memory in fact.memory:
        if number < len(job.ranks):
            job.ranks[number].memory = memory
    if job.spec.watch is not None:
        dying = {number for number, _how in fact.dying}
        for rank in job.ranks:
            if rank.exited is None and rank.rank not in dying:
                rank.alive_at = fact.at


def signalled(job: Job, fact: Signalled) -> Orders:
    stopping = job.failed_at is not None and job.stopped_at is not None  # else it was forwarded, or on request
    if stopping and job.signalled_first_at is None:
        job.signalled_first_at = fact.at
    root = job.ranks[0]
    if job.attached and stopping and not fact.reached and root.pid is not None and root.exited is None:
        return leave(job, fact.at, "the engine may not be signalled by us")
    return ()


def judged(job: Job, fact: Judged) -> Orders:
    job.judged = fact
    who = "no rank" if fact.rank is None else f"rank {fact.rank}"
    who = who if fact.node is None else f"node {fact.node}"
    job.remember(fact.at, f"judged: {who} failed first ({fact.kind}; {fact.basis})")
    return (Tell("the culprit is known", "judged", fact.rank), *finish_when_done(job))


def tree_empty(job: Job, fact: TreeEmpty) -> Orders:
    job.tree = fact
    job.remember(fact.at, "no process is left" if not fact.survivors else "gave up on processes that refuse to die")
    return finish_when_done(job)


def kernel_killed(job: Job, fact: KernelKilled) -> Orders:
    if fact.rank is None:
        job.other_ooms += (fact,)
    else:
        job.ranks[fact.rank].ooms += (fact,)
    return ()


def kernel_noted(job: Job, fact: KernelNoted) -> Orders:
    """A witness for the verdict; stops nothing by itself."""
    job.notes += (fact,)
    return ()


def surveyed(job: Job, fact: Surveyed) -> Orders:
    """For the hints of the verdict."""
    job.surveys += (fact,)
    return ()


def gpus_read(job: Job, fact: GpusRead) -> Orders:
    """For the verdict's hints, and a witness of a GPU that is lost."""
    job.gpus = fact
    return ()


def oom_seen(job: Job, fact: OomSeen) -> Orders:
    job.ooms_seen += (fact,)
    job.remember(fact.at, f"the kernel told of an OOM in {fact.group}")
    return ()


def memory_short(job: Job, fact: MemoryShort) -> Orders:
    job.memory = fact.state
    job.remember(fact.at, fact.statement)
    return warn(job, fact.statement)


def memory_eased(job: Job, fact: MemoryEased) -> Orders:
    """For the story alone: the warning stays what it was."""
    job.memory = fact.state
    job.remember(fact.at, fact.statement)
    return ()


def warned(job: Job, fact: Warned) -> Orders:
    return warn(job, fact.statement)
