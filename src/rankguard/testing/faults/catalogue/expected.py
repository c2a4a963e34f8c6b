"""What is expected of most faults: this kind of cause, unless the job was being stopped. Makes `Fault.expect`."""

from collections.abc import Callable

from rankguard.testing.faults.checks import Expect, Words
from rankguard.testing.faults.fault import Cell

_PHASE = {"starting": "starting", "ready-early": "ready", "all-ready": "ready"}


def failed(kind: Words, family: Words, status: int, *evidence: str, **more: object) -> Callable[[Cell], Expect]:
    """The victim is the culprit, by a cause of this kind, with this exit status; nobody when the job was stopping."""

    def expect(cell: Cell) -> Expect:
        if cell.at == "stopping":
            return nobody(cell)
        plain = Expect(kind, status, family=family, evidence=evidence, culprits=(cell.victim,), phase=_PHASE[cell.at])
        return plain.replace(**more)

    return expect


def nobody(_cell: Cell) -> Expect:
    """SIGTERM came from outside: no rank is a failure, however it ended; the exit status tells the signal."""
    return Expect(None, 143, culprits=None, others=("stopped", "finished"), outcome="interrupted")


def left_early(_cell: Cell) -> Expect:
    """It ended with 0 before it was ready; when the job was stopping, that is well."""
    return failed("exit-before-ready", "program", 1, "wait status")(_cell)
