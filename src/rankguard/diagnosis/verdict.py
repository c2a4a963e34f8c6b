"""The answer: from the case to the `Verdict` that users, scripts and `verdict.json` get.

Made twice: once when the culprit is judged (ranks may be alive, `ended_at` null) and once when all have ended. Both
follow from the case alone. The exit status is computed anew each time and so always fits the cause beside it: the one
to use is the final verdict's. Secrets are gone already: `spec.command` arrives redacted.

Read next: `advice.py` (owner, retry, hints), `relation.py` (the rows), `report/` (the layout).
"""

import re
from datetime import UTC, datetime

from rankguard.case import Case, RankCase
from rankguard.diagnosis.advice import after_so_many, hints, owner, retry
from rankguard.diagnosis.causes import cause_of
from rankguard.diagnosis.culprit import choose
from rankguard.diagnosis.evidence import SIGHUP, SIGINT, SIGKILL, code_of, ending, exception_of, signal_of
from rankguard.diagnosis.exit_status import exit_code
from rankguard.diagnosis.failure_class import FailureClass, failure_class
from rankguard.diagnosis.memory_story import domain, memory_of, told_at
from rankguard.diagnosis.relation import log_path, name_of, number_of, outcome_of
from rankguard.diagnosis.story import after, failed_summary, ready_count, timeline
from rankguard.diagnosis.tracebacks import clean, fatal_frames
from rankguard.diagnosis.words import clip, seconds, shown, signal_name
from rankguard.facts import Judged, StopRequested
from rankguard.model import (
    Cause,
    Confidence,
    Culprit,
    Ending,
    MemoryState,
    OrderBasis,
    Phase,
    Progress,
    Reported,
    Retry,
    Sender,
    StoppedBy,
    Teardown,
    Verdict,
)
from rankguard.stacks import Stack

SIGQUIT = 3


def verdict(case: Case, version: str) -> Verdict:
    """The verdict on a job that has succeeded, failed or been interrupted, or, while it lives, its state."""
    if case.judged or (case.failed_at is not None and (case.stop is None or case.stop.at > case.failed_at)):
        return _failed(case, version, case.judged or choose(case))
    if case.stop:
        return _interrupted(case, version)
    return _succeeded(case, version)


def fingerprint(phase: Phase, cause: Cause, frames: tuple[str, ...] = (), ended_by: str | None = None) -> str:
    """The same for the same failure: kind, phase, exception type and the top three frames of the program.

    The frames are those of the exception, else `frames`, the innermost last: where a rank hangs or crashed. A crash has
    the signal's name `ended_by` in place of the exception. No pid, host, path, line or other number goes in.
    """
    exception = cause.exception
    signalled = ended_by if cause.kind in ("crash", "killed") else None
    parts = [cause.kind, shown(phase).value, exception.type.rpartition(".")[2] if exception else signalled or ""]
    known = exception.frames if exception and exception.frames else frames
    own = [frame for frame in known if not _LIBRARY.search(frame)] or list(known)
    parts += [_frame(frame) for frame in reversed(own[-3:])]
    from hashlib import sha256  # no start waits for it

    return sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib(64)?/(python|pypy)\d|/rankguard/inside/|^<(frozen |string>)")
"""Not the program: what is installed, the standard library, what we put below it."""


def _failed(case: Case, version: str, judged: Judged) -> Verdict:
    case = case.replace(judged=judged)  # the rows need not judge anew
    rank = next((each for each in case.ranks if each.rank == judged.rank), None)
    cause = _led_to(case, rank, _as_first(case, rank, cause_of(case, rank)))
    culprit = _culprit(case, rank, cause)
    advice = hints(case, rank, cause, judged)
    made = _common(case, version, rank, failed=True)
    print_ = fingerprint(culprit.phase, cause, _frames(case, rank, cause), culprit.ending.signal)
    return made.replace(
        outcome="failed",
        exit_code=exit_code(case, rank, cause.kind),
        statement=cause.statement,
        summary=failed_summary(case, culprit, made.ranks, advice),
        fingerprint=print_,
        owner=owner(case, rank, cause),
        retry=after_so_many(case, print_, retry(case, rank, cause)),
        failed_at=_iso(case, _failed_at(case, rank)),
        culprit=culprit,
        either=judged.either,
        order=OrderBasis(basis=judged.basis, gap_us=judged.gap_us),
        hints=advice,
    )


def _as_first(case: Case, rank: RankCase | None, cause: Cause) -> Cause:
    """Where nobody but victims is known, how the first of them ended may be proven: that it was the first failure is not."""
    if rank is None or cause.confidence is not Confidence.PROVEN:
        return cause
    victim = failure_class(case, rank) is FailureClass.PEER_LOST
    return cause.replace(confidence=Confidence.LIKELY) if victim else cause


def _interrupted(case: Case, version: str) -> Verdict:
    stop = case.stop
    assert stop is not None  # the caller has looked
    by_signal, sender = stop.by == "signal", stop.sender
    name = signal_name(stop.signal)
    statement = f"stopped by {name}" if by_signal else f"stopped on request ({stop.by})"
    statement += _from(sender, stop.signal) + _impatience(case, stop)
    theirs = case.spec.watch is not None and case.spec.watch.attaches
    statement += "; the engine goes on" if theirs else ""
    asked = case.ranks if case.spec.watch is None else case.ranks[:1]  # an engine ends its processes as it likes
    clean = bool(asked) and all(code_of(rank) == 0 for rank in asked)
    code = 0 if clean else 128 + stop.signal
    how = "every rank ended with exit code 0" if clean else "no rank is called a failure: they were asked to end"
    if theirs:
        how = "it was started by somebody else, and is left as it is"
        clean, code = False, 128 + stop.signal
    return _common(case, version, None, failed=False).replace(
        outcome="interrupted",
        exit_code=code,
        statement=clip(statement),
        summary=f"{clip(statement)}\n{how}",
        retry=Retry(advice="unknown", because="it was stopped from outside, and did not fail"),
        owner="outside",
        stopped_by=StoppedBy(
            signal=name if by_signal else None,
            pid=sender.pid if sender else None,
            uid=sender.uid if sender else None,
            comm=sender.comm if sender else None,
        ),
    )


def _from(sender: Sender | None, number: int) -> str:
    """Who sent it, as the kernel says. Where it names nobody at all, it sent the signal itself: Ctrl-C, a closed terminal."""
    if sender is None:
        return ""
    if sender.comm:
        return f" from {sender.comm}" + (f" (pid {sender.pid})" if sender.pid is not None else "")
    if sender.pid:
        return f" from pid {sender.pid}"
    if sender.uid is not None:
        return f" from a process that is not visible here (uid {sender.uid})"
    return " from the terminal" if number in (SIGHUP, SIGINT, SIGQUIT) else ""


def _impatience(case: Case, stop: StopRequested) -> str:
    """Who was killed after all: because the time was over, or because somebody asked again."""
    killed = [rank.exited.at for rank in case.ranks if rank.killed_by_us and signal_of(rank) == SIGKILL and rank.exited]
    if not killed:
        return ""
    limit = case.spec.shutdown_timeout if stop.grace is None else stop.grace
    one = len(killed) == 1
    who = f"; {len(killed)} of {len(case.ranks)} rank{'s' if len(case.ranks) != 1 else ''}"
    if 0 < limit <= min(killed) - stop.at:
        return f"{who} had not ended {seconds(limit)} later and {'was' if one else 'were'} killed"
    return f"{who} {'was' if one else 'were'} killed at once, as asked"


def _succeeded(case: Case, version: str) -> Verdict:
    """Nothing failed and nobody asked to end it: it has succeeded, or it is still running (for `state.json`)."""
    if case.spec.watch is not None:
        return _of_engine(case, version)
    count, noun = len(case.ranks), "process" if case.spec.adopted else "rank"
    outcome, retry_advice = "succeeded", Retry(advice="no", because="it succeeded")
    if all(code_of(rank) == 0 for rank in case.ranks):
        every = f"all {count} {noun}{'es' if case.spec.adopted else 's'}" if count != 1 else f"the only {noun}"
        statement = f"{every} ended with exit code 0"
    elif case.spec.adopted:
        statement = "no process failed"  # those that still live are their owner's
    else:
        outcome, retry_advice = "running", Retry(advice="unknown", because="it has not ended")
        statement = f"{ready_count(case)} of {count} ranks ready" if case.expects_ready else f"{count} ranks running"
    made = _common(case, version, None, failed=False)
    return made.replace(outcome=outcome, statement=statement, summary=statement, retry=retry_advice)


def _of_engine(case: Case, version: str) -> Verdict:
    """A watched engine that runs, or has ended by itself without a failure."""
    ended = bool(case.ranks) and case.ranks[0].exited is not None
    members = len(case.ranks) - 1
    with_ = f"; {members} rank-like process{'es' if members != 1 else ''}" if members else ""
    statement = "the engine ended with exit code 0" if ended else f"the engine is running{with_}"
    return _common(case, version, None, failed=False).replace(
        outcome="succeeded" if ended else "running",
        statement=statement,
        summary=statement,
        retry=Retry(advice="no", because="it succeeded")
        if ended
        else Retry(advice="unknown", because="it has not ended"),
    )


def _common(case: Case, version: str, culprit: RankCase | None, *, failed: bool) -> Verdict:
    """What every outcome has, filled in as for a success."""
    spec, memory = case.spec, domain(case)
    return Verdict(
        run_id=spec.run_id,
        command=spec.command,
        outcome="succeeded",
        exit_code=0,
        statement="",
        summary="",
        fingerprint=None,
        owner=None,
        retry=Retry(advice="no", because="it succeeded"),
        started_at=_iso(case, case.started_at) or "",
        ready_at=_iso(case, case.all_ready_at),
        failed_at=None,
        ended_at=_iso(case, case.ended_at),
        world_size=len(case.ranks) if case.spec.watch is None else max(1, len(case.ranks) - 1),
        nodes=tuple(node.name for node in case.nodes) or ((spec.node,) if spec.node else ()),
        start="warm" if case.warm else "exec",
        labels=spec.labels,
        culprit=None,
        either=(),
        order=None,
        stopped_by=None,
        memory=None if memory == MemoryState() else memory,
        ranks=tuple(outcome_of(case, rank, culprit, failed=failed) for rank in case.ranks),
        attempts=case.attempts,
        teardown=_teardown(case),
        hints=(),
        warnings=case.warnings,
        degraded=case.degraded,
        timeline=timeline(case, culprit),
        reported=_reported(case),
        processes=case.looked.processes if case.looked else (),
        rankguard=version,
    )


def _culprit(case: Case, rank: RankCase | None, cause: Cause) -> Culprit:
    rank_known = rank or _none_of_them(case)
    at = _failed_at(case, rank)
    status = rank_known.status
    return Culprit(
        rank=number_of(case, rank) if rank else None,
        name=name_of(case, rank) if rank else None,
        role=(rank.role if rank else None) or case.spec.role,
        local_rank=_local_rank(case, rank) if rank and not case.spec.adopted else None,
        node=_node(case, rank),
        pid=rank_known.pid,
        phase=shown(rank_known.phase),
        was_ready=rank_known.ready_at is not None,
        attempt=case.spec.attempt,
        ending=_ending(case, rank),
        cause=cause,
        at=_iso(case, at) or "",
        elapsed_s=after(case, at),
        detected_in_ms=_detected_in_ms(case, rank, cause),
        status=status.text if status else None,
        progress=Progress(done=status.done, total=status.total, unit=status.unit)
        if status and status.done is not None
        else None,
        memory=memory_of(case, rank_known),
        traceback=_traceback(rank_known),
        stacks=_stack_text(_stack(case, rank, cause)),
        log_tail=_log_tail(case, rank_known),
        log_path=log_path(case, rank) if rank else None,
    )


def _none_of_them(case: Case) -> RankCase:
    """The failure was of none of the ranks: what a culprit has all the same."""
    found = RankCase(rank=-1, pid=case.lost.pid if case.lost else None, phase=_job_phase(case))
    if case.judged is None or case.judged.node is None:
        return found
    from rankguard.diagnosis.nodes import phase_of  # of a job on several machines alone

    phase, ready = phase_of(case) or (found.phase, False)
    return found.replace(phase=phase, ready_at=case.failed_at if ready else None)


def _ending(case: Case, rank: RankCase | None) -> Ending:
    if rank is not None:
        return ending(rank)
    if case.judged is not None and case.judged.node is not None:
        return Ending(kind="lost")
    return Ending(kind="exit" if case.lost else "alive")


def _local_rank(case: Case, rank: RankCase) -> int | None:
    return None if number_of(case, rank) is None else case.local_rank(rank.rank)


def _node(case: Case, rank: RankCase | None) -> str:
    if rank is not None:
        return case.node_of(rank.rank)
    if case.judged is None or case.judged.node is None:
        return case.spec.node
    from rankguard.diagnosis.nodes import name_of as name_of_node

    return name_of_node(case)


def _detected_in_ms(case: Case, rank: RankCase | None, cause: Cause) -> float | None:
    """From the first news of the failure to the order to stop. Of an OOM kill the kernel may have told before its end."""
    within = case.detected_in_s
    if within is None:
        return None
    told = told_at(case, rank) if rank and cause.kind == "oom-kill" else None
    if told is not None and case.signalled_first_at is not None:
        within = max(within, case.signalled_first_at - told)
    return round(within * 1e3, 3)


def _stack(case: Case, rank: RankCase | None, cause: Cause) -> Stack | None:
    found = case.mustered if cause.kind == "collective-timeout" else case.examined
    if cause.kind not in ("stall", "ready-timeout", "collective-timeout") or rank is None or found is None:
        return None
    return next((group.stack for group in found.groups if rank.rank in group.ranks), None)


def _frames(case: Case, rank: RankCase | None, cause: Cause) -> tuple[str, ...]:
    """Where it hung or crashed, the innermost last."""
    if rank and rank.exited and cause.kind == "crash":
        return fatal_frames(clean("\n".join(rank.exited.log_tail)))
    stack = _stack(case, rank, cause)
    told = stack.main.frames if stack else ()
    return tuple(f"{frame.file}:{frame.line or 0} {frame.function}" for frame in reversed(told))


def _stack_text(stack: Stack | None) -> str | None:
    if stack is None:
        return None
    from rankguard.diagnosis.stall_evidence import stack_text  # no start waits for it

    return stack_text(stack)


def _log_tail(case: Case, rank: RankCase) -> tuple[str, ...]:
    """Its last lines; of a watched engine those of the whole, since its processes share one output."""
    teller = case.ranks[0] if case.spec.watch is not None else rank
    return teller.exited.log_tail if teller.exited else ()


def _reported(case: Case) -> tuple[Reported, ...]:
    if not case.perished:
        return ()
    from rankguard.diagnosis.watched import reported  # of watched engines alone

    return reported(case)


def _led_to(case: Case, rank: RankCase | None, cause: Cause) -> Cause:
    """A watched engine that ended by itself: what of its tree had died before, and was left to it."""
    if not case.perished or rank is None or rank.role is not None or cause.responsible:
        return cause
    from rankguard.diagnosis.watched import led_to

    return cause.replace(responsible=led_to(case, rank))


def _traceback(rank: RankCase) -> str | None:
    found = exception_of(rank)
    return found[0].traceback if found else None


def _job_phase(case: Case) -> Phase:
    """Where the job was, for a failure that was of none of the ranks."""
    if not case.expects_ready:
        return Phase.RUNNING
    return Phase.STARTING if case.all_ready_at is None else Phase.READY


def _failed_at(case: Case, rank: RankCase | None) -> float:
    if rank and rank.failed_at is not None:
        return rank.failed_at
    return case.now if case.failed_at is None else case.failed_at


def _teardown(case: Case) -> Teardown:
    took = None
    if case.stopped_at is not None and case.ended_at is not None:
        took = round(max(0.0, case.ended_at - case.stopped_at), 6)
    if not case.tree:
        return Teardown(took_s=took)
    return Teardown(took_s=took, killed=case.tree.killed, survivors=case.tree.survivors, left=case.tree.left)


def _frame(frame: str) -> str:
    """`/a/b/train.py:12 main` → `train.py main`: the same after an edit above it, and on another machine."""
    where, _, function = frame.rpartition(" ")
    path = where.rpartition(":")[0] or where
    return f"{path.rpartition('/')[2]} {function}"


def _iso(case: Case, at: float | None) -> str | None:
    """An instant of our monotonic clock as the time of day, by the pair of both that was taken at launch."""
    if at is None:
        return None
    wall = datetime.fromtimestamp(case.started_wall + (at - case.started_at), UTC)
    return wall.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
