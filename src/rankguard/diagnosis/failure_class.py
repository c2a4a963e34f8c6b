"""How strong a suspect is: rule 9 of the architecture as one ordered enumeration.

The order is causal, not temporal. A rank that says that it failed knows best; a signal or a crash is nobody's answer to
a peer's death; an abort or an error of its own may be one, in words that we do not know; the words that we know
(`peers.py`) make a victim. Not here: choosing within a class (`culprit.py`).
"""

from enum import IntEnum

from rankguard.case import Case, RankCase
from rankguard.diagnosis.evidence import (
    SIGABRT,
    SIGPIPE,
    ended_by_itself,
    failed_to_stay,
    leaving_code,
    peer_death_of,
    report_of,
    signal_of,
    timed_out,
)
from rankguard.diagnosis.memory_story import oom_kill


class FailureClass(IntEnum):
    """Lower is the more likely culprit."""

    REPORTED = 1
    """Its own word (`failed()`, ERRNO), a channel that it broke, a program that could not be executed."""
    KILLED = 2
    """A signal that is not ours: the OOM killer, somebody, a crash."""
    ABORTED = 3
    """SIGABRT without a known reason: a crash too, but runtimes abort at a peer's death in words that we may not know."""
    FAILED = 4
    """An exception or an exit that does not speak of a peer; a signal to its parent by which it says so. Exit code 0 too
    early is one."""
    TIMED_OUT = 5
    """It waited for the others in a collective in vain, and gave up: those that lose it as a peer come after."""
    PEER_LOST = 6
    """It says that it lost its peer."""
    UNRESOLVED = 7
    """It was dying at the first look, and how it ended is not known yet."""
    NONE = 8
    """It did not fail: it runs, it ended well, or it was ended by us."""


VICTIMS = (FailureClass.TIMED_OUT, FailureClass.PEER_LOST)
"""Classes that a rank falls into because of another one."""


def failure_class(case: Case, rank: RankCase) -> FailureClass:
    """The class of this rank's own failure. Whether it is a suspect at all is the core's word (`RankCase.suspect`)."""
    if rank.not_spawned:
        return FailureClass.REPORTED
    report, oom = report_of(rank), oom_kill(case, rank)
    lost_peer = bool(peer_death_of(rank)) and not oom
    if oom and not (report and report.how != "exception"):
        return FailureClass.KILLED
    if report:
        own = FailureClass.FAILED if report.how == "exception" else FailureClass.REPORTED
        return _of_victim(rank) if lost_peer else own
    if failed_to_stay(case, rank):
        return _of_ending(rank, lost_peer)
    if leaving_code(rank):
        return _of_victim(rank) if lost_peer else FailureClass.FAILED
    if rank.broken:
        return FailureClass.REPORTED
    if rank.accused:
        return _of_victim(rank) if lost_peer else FailureClass.FAILED
    return FailureClass.UNRESOLVED if _unresolved(rank) else FailureClass.NONE


def waited_for(case: Case) -> bool:
    """Whether the best that is known of any suspect is that it waited in vain for another rank."""
    judged = case.judged
    if judged is not None:
        return judged.kind == "collective-timeout" and len(case.ranks) > 1
    suspects = [rank for rank in case.ranks if rank.suspect]
    if len(case.ranks) < 2 or not any(rank.report or rank.exited for rank in suspects):
        return False
    return min((failure_class(case, rank) for rank in suspects), default=None) is FailureClass.TIMED_OUT


def _unresolved(rank: RankCase) -> bool:
    if not rank.exited:
        return rank.dying is not None
    return ended_by_itself(rank) and rank.exited.ending.kind == "exit" and rank.exited.ending.code is None


def _of_ending(rank: RankCase, lost_peer: bool) -> FailureClass:
    number = signal_of(rank)
    if number == SIGPIPE or (lost_peer and number in (None, SIGABRT)):
        return _of_victim(rank)
    if number is None:
        return FailureClass.FAILED
    return FailureClass.ABORTED if number == SIGABRT else FailureClass.KILLED


def _of_victim(rank: RankCase) -> FailureClass:
    return FailureClass.TIMED_OUT if timed_out(rank) else FailureClass.PEER_LOST
