"""Why a rank ended: an ordered table, one function a cause, `(case, rank) → Cause | None`; the first answer holds.

Each rests on facts and says which (`evidence`), and how sure it is: `proven` is the kernel's word or the rank's own
report, `likely` is what its log says. The order matters: the specific before the general, what happened before what
followed from it. To add a kind: its family in `kinds.py`, a function here and its row in `CAUSES`, its words in
`advice.py`, its exit status in `exit_status.py`, its row in the contract. Causes found by words: `error_texts.py`.

Not here: who was first (`culprit.py`), what to do about it (`advice.py`).
"""

import errno
from collections.abc import Callable

from rankguard.case import Case, RankCase
from rankguard.diagnosis import error_texts
from rankguard.diagnosis.evidence import (
    CRASHES,
    SIGABRT,
    SIGINT,
    SIGKILL,
    code_of,
    ended_by_itself,
    ended_by_us,
    exception_of,
    failed_to_stay,
    leaving_code,
    left_too_early,
    peer_death_of,
    peer_evidence,
    report_of,
    said,
    signal_of,
    timed_out,
    wait_status,
)
from rankguard.diagnosis.failure_class import waited_for
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.memory_story import counted, counter_evidence, log_evidence, oom_kill, responsible
from rankguard.diagnosis.tracebacks import clean, last_traceback
from rankguard.diagnosis.words import STATEMENT, clip, during, seconds, signal_name, who, whose
from rankguard.facts import FrontLost, SupervisorLost
from rankguard.model import Cause, Confidence, Evidence


def cause_of(case: Case, rank: RankCase | None) -> Cause:
    """Why this rank ended; of none of the ranks: why the job did."""
    if rank is None:
        return _lost(case)
    for find in CAUSES:
        if found := find(case, rank):
            return found
    return _unknown(case, rank)


def _cannot_start(case: Case, rank: RankCase) -> Cause | None:
    failed = rank.not_spawned
    if not failed or (failed.stage == "cancelled" and rank.late):
        return None
    name = errno.errorcode.get(failed.errno, f"errno {failed.errno}")
    evidence = (Evidence(source="rankguard", statement=f"{failed.stage}: {name}"),)
    how = "cannot be watched" if failed.stage == "attach" else "was not started"
    return make("cannot-start", f"{who(case, rank)} {how}: {failed.statement}", Confidence.PROVEN, evidence)


def _lost_with_its_node(case: Case, rank: RankCase) -> Cause | None:
    """Nobody knows how it ended; what it had said of itself before is told by the others here."""
    if rank.lost is None or report_of(rank) or rank.broken or rank.accused or leaving_code(rank):
        return None
    from rankguard.diagnosis.nodes import cause  # of a job on several machines alone

    return cause(case, rank)


def _timed_out(case: Case, rank: RankCase) -> Cause | None:
    """It is late and nothing else was wrong with it when the time had passed."""
    if (
        case.failed_by not in ("ready-timeout", "stall")
        or not rank.late
        or rank.dying
        or report_of(rank)
        or rank.broken
        or (case.examined and case.failed_by == "stall")  # then it is the one that holds the others up (`stalls.py`)
    ):
        return None
    if case.failed_at is None or (rank.exited and rank.exited.at < case.failed_at):
        return None
    limit = case.spec.ready_timeout if case.failed_by == "ready-timeout" else None
    within = (
        f"within {seconds(limit)}" if limit is not None else f"{seconds(case.failed_at - case.started_at)} after launch"
    )
    what = f"was not ready {within}" if case.failed_by == "ready-timeout" else "showed no sign of progress"
    last = f"; it last said: {rank.status.text}" if rank.status and rank.status.text else ""
    heard = _heard(case, rank) if case.failed_by == "ready-timeout" else ()
    if case.examined is not None:
        from rankguard.diagnosis.stall_evidence import does, evidence_of  # no start waits for it

        statement = f"{who(case, rank)} {what}{does(case.examined, rank)}"
        statement += last if len(statement) + len(last) <= STATEMENT else ""
        if heard:
            statement = f"{who(case, rank)} {what}: {heard[0].statement}"
        evidence = heard + evidence_of(case, case.examined, rank)
        return make(case.failed_by, statement, Confidence.PROVEN, evidence, rank=rank)
    at = rank.status.at if rank.status else rank.spawned_at
    evidence = ()
    if at is not None:
        since = seconds(max(0.0, case.failed_at - at))
        silent = f"its last status came {since} before" if rank.status else f"no status since its start, {since} before"
        evidence = (Evidence(source="clock", statement=silent),)
    return make(case.failed_by, f"{who(case, rank)} {what}{last}", Confidence.PROVEN, evidence, rank=rank)


def _heard(case: Case, rank: RankCase) -> tuple[Evidence, ...]:
    """What shows an engine that is watched to be ready, and did not: the probes' last word, or that it said nothing."""
    if case.spec.watch is None:
        return ()
    if rank.pid is None and case.spec.watch.match is not None:
        return (Evidence(source="proc", statement=f"no process matches `{case.spec.watch.match}`"),)
    if rank.status is not None and rank.status.probe:
        return (Evidence(source="probe", statement=rank.status.probe),)
    if case.spec.watch.probed:
        return (Evidence(source="probe", statement="none of the probes had an answer"),)
    return (Evidence(source="notify", statement="no process of it has said READY=1 (sd_notify)"),)


def _stalled(case: Case, rank: RankCase) -> Cause | None:
    """It holds the others up (`stalls.py`, which no start waits for)."""
    if case.examined is None or case.failed_by != "stall":
        return None
    from rankguard.diagnosis.stalls import stalled

    return stalled(case, rank)


def _absent(case: Case, rank: RankCase) -> Cause | None:
    """It was waited for in a collective that timed out (`collectives.py`, which no start waits for)."""
    if not waited_for(case):
        return None
    from rankguard.diagnosis.collective_causes import absent

    return absent(case, rank)


def _oom_kill(case: Case, rank: RankCase) -> Cause | None:
    kill = oom_kill(case, rank)
    if not kill:
        return None
    by = f"killed by the kernel's OOM killer{during(rank)}"
    probably = "" if kill.confidence is Confidence.PROVEN else "probably " if not kill.child else ""
    subject = f"a child of {whose(case, rank)}" if kill.child else who(case, rank)
    found = make(
        "oom-kill",
        f"{subject} was {probably}{by}",
        kill.confidence,
        kill.evidence + wait_status(rank),
        rank=rank,
        subject_pid=kill.pid,
    )
    if kill.child:
        return found.replace(subject_pid=kill.pid)  # null, not the rank's own pid, where the child's is unknown
    return found.replace(responsible=responsible(case, rank))


def _gpu_error(case: Case, rank: RankCase) -> Cause | None:
    """The kernel log or the driver says that its GPU failed (`gpus.py`, which no start waits for)."""
    if not (case.notes or case.gpus):
        return None
    from rankguard.diagnosis.gpus import gpu_error

    return gpu_error(case, rank)


def _kernel_log(case: Case, rank: RankCase) -> tuple[Evidence, ...]:
    """What the kernel log adds: in whose code it crashed, what it says of its GPU."""
    if not case.notes:
        return ()
    from rankguard.diagnosis.gpus import crash_evidence, xid_evidence

    return (crash_evidence(case, rank) if signal_of(rank) in CRASHES else ()) + xid_evidence(case, rank)


def _by_words(case: Case, rank: RankCase) -> Cause | None:
    """Memory, disk, GPU and time-outs of collectives: known by the words of an exception, an abort or a log."""
    if not report_of(rank):
        code, number = code_of(rank), signal_of(rank)
        if not ended_by_itself(rank) or not (code or number == SIGABRT or rank.complained):
            return None
    match = error_texts.match(said(rank), report_of(rank))
    if not match and rank.exited and timed_out(rank):
        match = error_texts.match("\n".join(rank.exited.remarks))
    if not match:
        return None
    source = "rank" if report_of(rank) else "log"
    confidence = Confidence.PROVEN if source == "rank" else Confidence.LIKELY
    evidence = (Evidence(source=source, statement=match.phrase), *wait_status(rank))
    statement = f"{who(case, rank)} {match.what}{during(rank)}"
    if match.quoted:
        statement += f": {match.phrase}"
    return make(match.kind, statement, confidence, evidence, rank=rank)


def _reported(case: Case, rank: RankCase) -> Cause | None:
    report = report_of(rank)
    if not report or report.how == "exception":
        return None
    text = report.text
    if report.how == "errno" and report.errno is not None:
        text = " ".join((f"errno {report.errno} ({errno.errorcode.get(report.errno, 'unknown')})", text)).strip()
    evidence = (Evidence(source="rank", statement=clip(text)), *peer_evidence(rank), *wait_status(rank))
    return make(
        "reported-failure",
        f"{who(case, rank)} reported a failure{during(rank)}: {text}",
        Confidence.PROVEN,
        evidence,
        rank=rank,
    )


def _exception(case: Case, rank: RankCase) -> Cause | None:
    found = exception_of(rank)
    signalled = signal_of(rank) and not (rank.accused and ended_by_us(rank))
    if not found or (signalled and not report_of(rank)):
        return None
    exception, source = found
    name = exception.type.rpartition(".")[2]
    line = exception.message.strip().partition("\n")[0]
    raised = f"{name}: {line}" if line else name
    peer = peer_evidence(rank)
    verb = "lost a peer: it raised" if peer else "raised"
    where = f" at {exception.frames[-1]}" if exception.frames else ""
    own = Evidence(source=source, statement=clip(raised + where))
    confidence = Confidence.PROVEN if source == "rank" else Confidence.LIKELY
    phase = during(rank).strip()  # in brackets: what a program says may go on with any word
    when = f" ({phase})" if phase and len(raised) <= 80 else ""
    return make(
        "exception",
        f"{who(case, rank)} {verb} {raised}{when}",
        confidence,
        (own, *_kernel_log(case, rank), *_complaint(rank), *peer, *wait_status(rank)),
        rank=rank,
    )


def _told_by_engine(case: Case, rank: RankCase) -> Cause | None:
    """Its engine's log says that it failed, and the engine then killed everybody (`engine_words.py`)."""
    if case.spec.watch is None:
        return None
    from rankguard.diagnosis.engine_words import complained  # of a watched engine alone

    return complained(case, rank)


def _crash(case: Case, rank: RankCase) -> Cause | None:
    number = signal_of(rank)
    if number not in CRASHES or not ended_by_itself(rank):
        return None
    core = " (core dumped)" if rank.exited and rank.exited.ending.core_dumped else ""
    statement = f"{who(case, rank)} crashed with {signal_name(number)}{during(rank)}{core}"
    peer = peer_evidence(rank) if number == SIGABRT else ()
    return make("crash", statement, Confidence.PROVEN, wait_status(rank) + _kernel_log(case, rank) + peer, rank=rank)


def _killed(case: Case, rank: RankCase) -> Cause | None:
    """A signal that is neither ours nor the OOM killer's; the latter is known where the counters stood still."""
    number = signal_of(rank)
    if not number or not rank.exited or not ended_by_itself(rank):
        return None
    risen = counted(rank, shared=False) + counted(rank, shared=True)
    evidence, sure = wait_status(rank), number != SIGKILL
    if number == SIGINT and _raised_interrupt(rank):
        raised = "KeyboardInterrupt, of which Python ends by SIGINT, whoever raised it"
        evidence, sure = (*evidence, Evidence(source="log", statement=raised)), False
    if number == SIGKILL and not rank.exited.oom_readable:
        evidence += (Evidence(source="cgroup", statement="no counter of OOM kills could be read"),)
    elif number == SIGKILL and not risen:
        evidence, sure = (*evidence, Evidence(source="cgroup", statement="oom_kill did not rise")), True
    elif number == SIGKILL:
        others = (
            *rank.ooms,
            *case.other_ooms,
            *(k for other in case.ranks if other.rank != rank.rank for k in other.ooms),
        )
        evidence += counter_evidence(risen) + log_evidence(others)
    peer = peer_evidence(rank)
    by = "" if peer else ", sent by somebody," if sure else ", probably sent by somebody,"
    statement = f"{who(case, rank)} was killed by {signal_name(number)}{by}{during(rank)}".rstrip(",")
    return make("killed", statement, Confidence.PROVEN if sure else Confidence.LIKELY, evidence + peer, rank=rank)


def _raised_interrupt(rank: RankCase) -> bool:
    """Its last words are a KeyboardInterrupt: of a signal, or raised by the program itself (`_thread.interrupt_main`)."""
    logged = last_traceback(clean("\n".join(rank.exited.log_tail))) if rank.exited else None
    return logged is not None and logged.exception.type == "KeyboardInterrupt"


def _complained(case: Case, rank: RankCase) -> Cause | None:
    """It sent its parent a signal that ends a process, and then ended with whatever code, or did not end."""
    left = code_of(rank) is not None and ended_by_itself(rank)
    if rank.complained is None or not (left or rank.accused):
        return None
    then = f", then ended with exit code {code_of(rank)}{during(rank)}" if left else f"{during(rank)}, and did not end"
    statement = f"{who(case, rank)} told its parent of a failure by {signal_name(rank.complained)}{then}"
    evidence = (*_complaint(rank), *wait_status(rank), *peer_evidence(rank))
    return make("reported-failure", statement, Confidence.LIKELY, evidence, rank=rank)


def _complaint(rank: RankCase) -> tuple[Evidence, ...]:
    if rank.complained is None:
        return ()
    return (Evidence(source="rank", statement=f"it sent {signal_name(rank.complained)} to its parent"),)


def _exit(case: Case, rank: RankCase) -> Cause | None:
    """Ended by itself with a code, and nothing is known of why."""
    code = code_of(rank)
    if code is None or not failed_to_stay(case, rank):
        return _leaving(case, rank)
    peer, evidence = peer_evidence(rank), wait_status(rank)
    if case.expects_ready and left_too_early(case, rank) and rank.ready_at is None:
        statement = f"{who(case, rank)} ended with exit code 0 before it was ready"
        return make("exit-before-ready", statement, Confidence.PROVEN, evidence + peer, rank=rank)
    lost = "lost a peer and " if peer else ""
    statement = f"{who(case, rank)} {lost}ended with exit code {code}{during(rank)}"
    return make("exit-code", statement, Confidence.PROVEN, evidence + peer, rank=rank)


def _leaving(case: Case, rank: RankCase) -> Cause | None:
    """It said that it is leaving with a code, and did not get there before it was judged, or stopped."""
    code = leaving_code(rank)
    if not code or not rank.suspect or not (ended_by_us(rank) or not rank.exited):
        return None
    evidence = (Evidence(source="rank", statement=f"it was leaving with exit code {code}"), *peer_evidence(rank))
    statement = f"{who(case, rank)} was leaving with exit code {code}{during(rank)}"
    return make("exit-code", statement, Confidence.PROVEN, evidence, rank=rank)


def _protocol_error(case: Case, rank: RankCase) -> Cause | None:
    if not rank.broken:
        return None
    evidence = (Evidence(source="rank", statement=clip(rank.broken.statement)), *wait_status(rank))
    statement = f"{who(case, rank)} broke the protocol{during(rank)}: {rank.broken.statement}"
    return make("protocol-error", statement, Confidence.PROVEN, evidence, rank=rank)


CAUSES: tuple[Callable[[Case, RankCase], Cause | None], ...] = (
    _cannot_start,
    _lost_with_its_node,
    _stalled,
    _absent,
    _timed_out,
    _oom_kill,
    _reported,
    _gpu_error,
    _told_by_engine,
    _by_words,
    _exception,
    _crash,
    _killed,
    _complained,
    _exit,
    _protocol_error,
)
"""Asked in this order. A rank's own word that it failed stays its word, whatever the text sounds like."""


def _lost(case: Case) -> Cause:
    """The failure was of none of the ranks."""
    lost = case.lost
    if lost is None and case.judged is not None and case.judged.node is not None:
        from rankguard.diagnosis.nodes import cause

        return cause(case)
    if lost is None and case.examined is not None and case.failed_by == "stall":
        from rankguard.diagnosis.stalls import nobody

        return nobody(case)
    if lost is None and waited_for(case):
        from rankguard.diagnosis.collective_causes import nobody as nobody_known

        return nobody_known(case)
    if lost is None:
        return make("unknown", "the job failed, and which rank failed first is not known", Confidence.UNKNOWN, ())
    if isinstance(lost, SupervisorLost) and lost.bug is not None:
        found = last_traceback(lost.bug.splitlines())
        raised = found.exception if found else None
        what = f"{raised.type}: {raised.message}" if raised else lost.bug
        evidence = (
            (Evidence(source="rankguard", statement=clip(f"raised in {raised.frames[-1]}")),)
            if raised and raised.frames
            else ()
        )
        return make("bug", f"a fault of rankguard: {what}", Confidence.PROVEN, evidence)
    what = "the process that launched the job"
    if not isinstance(lost, FrontLost):
        what = "rankguard's supervisor" if isinstance(lost, SupervisorLost) else "rankguard's warden"
    if case.spec.nodes is not None:  # this is read on every node
        what = f"{what} on {case.spec.node}"
    pid = f" (pid {lost.pid})" if lost.pid else ""
    evidence = (Evidence(source="pidfd", statement=f"{what}{pid} has ended"),)
    return make("supervisor-lost", f"{what}{pid} was gone", Confidence.PROVEN, evidence, subject_pid=lost.pid or None)


def _unknown(case: Case, rank: RankCase) -> Cause:
    seen = {
        "killed": "SIGKILL was pending at the first look, before any signal of ours",
        "exiting": "it was exiting at the first look, before any signal of ours",
        "zombie": "it had ended at the first look, before any signal of ours",
        "dumping": "it was dumping core at the first look, before any signal of ours",
    }.get(rank.dying or "")
    evidence: tuple[Evidence, ...] = (Evidence(source="proc", statement=seen),) if seen else ()
    if peer_death_of(rank):
        evidence += peer_evidence(rank)
    ended = "was already dying" if seen and not rank.exited else "ended"
    return make(
        "unknown",
        f"{who(case, rank)} {ended} for a reason that is not known{during(rank)}",
        Confidence.UNKNOWN,
        evidence,
        rank=rank,
    )
