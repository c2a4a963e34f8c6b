"""What is known of the end of one rank: did we end it, what did it report, what does its log say, whose victim is it.

Plain questions to a `RankCase`, each answered from facts only. Not the answers to why (`causes.py`) or who
(`culprit.py`). Read next: `memory_story.py`, `failure_class.py`.
"""

from rankguard.case import Case, RankCase
from rankguard.diagnosis.peers import collective_timeout, peer_death
from rankguard.diagnosis.tracebacks import clean, last_traceback
from rankguard.facts import TreeEmpty
from rankguard.model import Ending, Evidence, ExceptionInfo, Report

SIGHUP, SIGINT, SIGABRT, SIGBUS, SIGKILL, SIGPIPE, SIGTERM = 1, 2, 6, 7, 9, 13, 15
CRASHES = frozenset((3, 4, 5, SIGABRT, SIGBUS, 8, 11, 31))
"""QUIT (its default is a core, too), ILL, TRAP, ABRT, BUS, FPE, SEGV, SYS."""
OURS = frozenset((SIGHUP, SIGINT, SIGTERM))
"""What we send to stop a rank, SIGKILL apart, of which the case has its own note."""


def ending(rank: RankCase, tree: TreeEmpty | None = None) -> Ending:
    """How it ended; `alive` when it has not, `lost` where its node was and nobody will tell.

    An exit without a code for one that was never executed, or of which is only known (`tree`) that it is gone: whoever
    could have read its status was gone before it.
    """
    if rank.exited:
        return rank.exited.ending
    if rank.lost:
        return Ending(kind="lost")
    gone = tree is not None and rank.pid not in {survivor.pid for survivor in tree.survivors}
    return Ending(kind="exit" if rank.not_spawned or gone else "alive")


def signal_of(rank: RankCase) -> int | None:
    """The number of the signal that ended it, be it ours or not."""
    return rank.exited.ending.number if rank.exited and rank.exited.ending.kind == "signal" else None


def code_of(rank: RankCase) -> int | None:
    """Its exit code, be it by itself or on our signal."""
    return rank.exited.ending.code if rank.exited and rank.exited.ending.kind == "exit" else None


def ended_by_us(rank: RankCase) -> bool:
    """It ended because we told it to.

    One that was seen dying before any signal of ours was not, whatever came later. After our signal an exit with any
    code is an answer to it, and so is a signal of the kinds that we send; a crash is not.
    """
    if not rank.exited or rank.dying or rank.signalled_at is None or rank.signalled_at > rank.exited.at:
        return False
    if rank.exited.ending.kind != "signal":
        return True
    number = rank.exited.ending.number
    return number in OURS or (number == SIGKILL and rank.killed_by_us)


def ended_by_itself(rank: RankCase) -> bool:
    """It has ended, and not because we told it to."""
    return rank.exited is not None and not ended_by_us(rank)


def sigkilled_by_others(rank: RankCase) -> bool:
    """SIGKILL ended it, and it was not ours: the kernel's OOM killer or somebody."""
    return signal_of(rank) == SIGKILL and not ended_by_us(rank)


def left_too_early(case: Case, rank: RankCase) -> bool:
    """It ended by itself with exit code 0 where that is a failure."""
    if code_of(rank) != 0 or ended_by_us(rank):
        return False
    return (
        (case.expects_ready and rank.ready_at is None)
        or case.spec.any_end_fails
        or rank.complained is not None
        or rank.left
    )


def failed_to_stay(case: Case, rank: RankCase) -> bool:
    """It ended by itself in a way that is a failure: a signal, a code that is not 0, or 0 too early."""
    if not ended_by_itself(rank):
        return False
    return bool(signal_of(rank)) or bool(code_of(rank)) or left_too_early(case, rank)


def leaving_code(rank: RankCase) -> int | None:
    """The exit code with which it said that it is leaving."""
    return rank.report.report.code if rank.report and rank.report.report.how == "exit" else None


def report_of(rank: RankCase) -> Report | None:
    """Its own word that it failed, and why: sent to us, or left in a file. That it is leaving is no reason."""
    if rank.report and rank.report.report.how != "exit":
        return rank.report.report
    return rank.exited.report if rank.exited else None


def exception_of(rank: RankCase) -> tuple[ExceptionInfo, str] | None:
    """The exception that ended it and the source of that: `rank` (its interpreter's report) or `log` (a traceback)."""
    report = report_of(rank)
    if report:
        return (report.exception, "rank") if report.exception else None
    if not rank.exited or (ended_by_us(rank) and not rank.accused):
        return None
    if not (code_of(rank) or signal_of(rank) == SIGABRT or rank.complained):
        return None
    logged = last_traceback(clean("\n".join(rank.exited.log_tail)))
    return (logged.exception, "log") if logged else None


def peer_death_of(rank: RankCase) -> str | None:
    """What shows that it only fell with another rank. Its own report outranks the end of its log."""
    if rank.report and (rank.report.report.how != "exit" or rank.report.peer_death):
        return rank.report.peer_death
    if rank.exited and rank.exited.report:
        return rank.exited.peer_death or peer_death(rank.exited.report.text, rank.exited.report.exception)
    if not rank.exited:
        return None
    if signal_of(rank) == SIGPIPE:
        return "SIGPIPE: it wrote to a connection that its peer had closed"
    return rank.exited.peer_death


def timed_out(rank: RankCase) -> bool:
    """It waited in vain for the others in a collective: by its last words, or by what it printed before them."""
    if collective_timeout(said(rank)):
        return True
    return bool(not report_of(rank) and rank.exited and rank.exited.timed_out)


def said(rank: RankCase) -> str:
    """The words that come with a failure: its report, else the end of its log. For the table of causes by text."""
    report = report_of(rank)
    if report and report.exception:
        return f"{report.exception.type}: {report.exception.message}".removesuffix(": ")
    if report:
        return report.text
    logged = exception_of(rank)
    if logged:
        lines = clean("\n".join(rank.exited.log_tail)) if rank.exited else []
        after = [line for line in lines if line.startswith(("terminate called", "  what():"))]
        return "\n".join([f"{logged[0].type}: {logged[0].message}".removesuffix(": "), *after])
    return "\n".join(clean("\n".join(rank.exited.log_tail))[-15:]) if rank.exited else ""


def wait_status(rank: RankCase) -> tuple[Evidence, ...]:
    """The kernel's word on how it ended; nothing where it ended because we told it to."""
    if not rank.exited or ended_by_us(rank):
        return ()
    end = rank.exited.ending
    if end.kind == "signal":
        text = (end.signal or f"signal {end.number}") + (", core dumped" if end.core_dumped else "")
    elif end.code is None:
        return ()
    else:
        text = f"exit code {end.code}"
    return (Evidence(source="wait status", statement=text),)


def peer_evidence(rank: RankCase) -> tuple[Evidence, ...]:
    """What shows that it is another rank's victim, as evidence."""
    phrase = peer_death_of(rank)
    if not phrase:
        return ()
    return (Evidence(source="rank" if report_of(rank) else "log", statement=f'peer death: "{phrase}"'),)
