"""What an engine says of one of its processes before it kills all of them, that one too.

SGLang's processes log what they raise, send SIGQUIT to the engine and end with 0; the engine's answer is SIGKILL for
everything below it and for itself (`kill_process_tree`, sglang 0.5.23), within a millisecond or so. Then everybody was
killed at once, and only the log says who failed: the logger's prefix is the tail of the process's title. It is believed
where all that the kernel shows fits it. Not here: who was first otherwise (`culprit.py`). Read next: `tracebacks.py`.
"""

import re

from rankguard.case import Case, RankCase
from rankguard.diagnosis import error_texts
from rankguard.diagnosis.evidence import SIGKILL, wait_status
from rankguard.diagnosis.kinds import make
from rankguard.diagnosis.peers import collective_timeout, peer_death
from rankguard.diagnosis.tracebacks import clean, last_traceback
from rankguard.diagnosis.words import clip, who
from rankguard.facts import Exited
from rankguard.model import Cause, Confidence, Evidence, ExceptionInfo
from rankguard.record import Record

BASIS = "the engine's log says so, and it killed the others"
"""By which such a one is chosen."""

_SIGQUIT = 3
_ASKED = (1, 2, 15)
"""SIGHUP, SIGINT, SIGTERM."""
_RECORD = re.compile(r"^\[[\d-]+ [\d:.,]+[\w ]*\] ", re.MULTILINE)
"""The head of a record of its log."""
_SGLANG = re.compile(
    r"^\[[\d-]+ [\d:.,]+(?P<place>(?: [A-Z_]+\d+)*)\] "
    r"(?P<who>Scheduler|DetokenizerManager|DataParallelController|MultiDetokenizerRouter) hit an exception: "
)
_TITLES = {
    "Scheduler": "sglang::scheduler",
    "DetokenizerManager": "sglang::detokenizer",
    "DataParallelController": "sglang::data_parallel_controller",
    "MultiDetokenizerRouter": "sglang::detokenizer_router",
}
"""Source: the calls of setproctitle, and `configure_logger`, of sglang 0.5.23."""


class Complaint(Record):
    """Which process of the engine said that it failed, the line in which it did, and what it raised."""

    rank: int
    line: str
    exception: ExceptionInfo


def complaint(case: Case) -> Complaint | None:
    """The first that said that it failed, where the engine then killed everybody; null where anything speaks against it."""
    if case.spec.watch is None or (case.judged is not None and case.judged.basis != BASIS):
        return None
    suspects = [rank for rank in case.ranks if rank.suspect]
    if case.judged is None and not (suspects and all(_as_an_engine_kills(rank) for rank in suspects)):
        return None
    # Its output as it was at the first of these ends: all its processes share it, and later others complain of that end.
    # Who had said by then that it failed was not killed before; it may have ended by itself, or not yet.
    ends = [each.exited for each in suspects if each.exited and each.exited.remarks]
    heard = min(ends, key=lambda end: end.at, default=None)
    for line in clean("\n".join(heard.remarks)) if heard else ():
        found = _SGLANG.match(line)
        named = found and next((rank for rank in case.ranks if rank.name == _title(found)), None)
        if not named:
            continue
        exception = _raised(heard)
        if exception is None or peer_death("", exception) or collective_timeout(exception.message):
            return None
        return Complaint(rank=named.rank, line=line, exception=exception)
    return None


def complained(case: Case, rank: RankCase) -> Cause | None:
    """The cause of the one that said so."""
    found = complaint(case)
    if found is None or found.rank != rank.rank:
        return None
    said = f"{found.exception.type}: {found.exception.message}".removesuffix(": ")
    evidence = (
        Evidence(source="log", statement=clip(said)),
        Evidence(source="log", statement=clip(found.line)),
        *wait_status(rank),
    )
    match = error_texts.match(said)
    kind = match.kind if match else "exception"
    raised = f"raised {said.partition(chr(10))[0]}"
    statement = f"{who(case, rank)} {raised}; its engine then killed all of its processes"
    return make(kind, statement, Confidence.LIKELY, evidence, rank=rank).replace(exception=found.exception)


def asked_to_end(rank: RankCase) -> bool:
    """It ended by a signal with which an engine tells its own processes to end: a reaction, if another one failed."""
    return rank.exited is not None and rank.exited.ending.number in _ASKED


def heard_of(case: Case) -> bool:
    """Some process of the engine said that it failed, of whatever: so it was the engine itself that killed them all."""
    return any(
        _SGLANG.match(line) for rank in case.ranks if rank.exited for line in clean("\n".join(rank.exited.remarks))
    )


def _title(found: re.Match[str]) -> str:
    return _TITLES[found["who"]] + found["place"].replace(" ", "_")


def _raised(heard: Exited | None) -> ExceptionInfo | None:
    """What the last traceback of the log raised. Its message ends where the next record of the log begins."""
    logged = last_traceback(clean("\n".join(heard.log_tail))) if heard else None
    if logged is None:
        return None
    message = _RECORD.split(logged.exception.message)[0].rstrip()
    return logged.exception.replace(message=message)


def _as_an_engine_kills(rank: RankCase) -> bool:
    """By SIGKILL and not for memory, if that is known yet; a controller by its scheduler's SIGQUIT."""
    if rank.exited is None:
        return rank.dying is not None and not rank.ooms
    number = rank.exited.ending.number
    return number in (SIGKILL, _SIGQUIT) and not rank.ooms and not rank.exited.oom
