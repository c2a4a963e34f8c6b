"""Facts of ranks on their way to the core: whether a victim lost its patience, and what it had printed of collectives.

The launcher knows no words. Read next: `core/muster.py` (what follows from it), `report/remarks.py`.
"""

from collections.abc import Callable

from rankguard.diagnosis.peers import collective_timeout
from rankguard.facts import Exited, Fact, FailureReported
from rankguard.launchers.redaction import redacted_tail


class Marked:
    """`emit` passes facts on; `remarks(rank)` are its lines about collectives."""

    def __init__(
        self, emit: Callable[[Fact], None], remarks: Callable[[int], tuple[str, ...]], redact: Callable[[str], str]
    ) -> None:
        self._emit, self._remarks, self._redact = emit, remarks, redact

    def emit(self, fact: Fact) -> None:
        """A fact for the queue."""
        if isinstance(fact, FailureReported) and fact.peer_death is not None:
            fact = fact.replace(timed_out=collective_timeout(fact.report.text) is not None)
        elif isinstance(fact, Exited) and (lines := redacted_tail(self._remarks(fact.rank), self._redact)):
            fact = fact.replace(remarks=lines)
            if fact.peer_death is None and fact.ending.signal == "SIGABRT" and fact.report is None:
                fact = fact.replace(peer_death=collective_timeout("\n".join(lines)))
        if isinstance(fact, Exited) and fact.peer_death is not None:
            said = fact.report.text if fact.report else "\n".join((*fact.remarks, *fact.log_tail[-15:]))
            fact = fact.replace(timed_out=collective_timeout(said) is not None)
        self._emit(fact)

    def of_engine(self, fact: Fact) -> None:
        """A fact of a watched tree, whose processes share one output: its remarks may be about any of them."""
        if isinstance(fact, Exited) and fact.ending.code != 0:
            fact = fact.replace(remarks=redacted_tail(self._remarks(fact.rank), self._redact))
        self._emit(fact)
