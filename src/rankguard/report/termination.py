"""The termination message: what a container leaves of itself for `kubectl describe pod` and the pod's status.

One line that is stable and greppable, then one line of JSON that is always whole, then text, in 4,096 bytes: that is
what the kubelet takes of `/dev/termination-log`, whatever ended the container. So it is also written ahead, while the
kernel may end everything at any moment (`memory.oom.group`), and taken back when that has passed.

Pure: what is said. Not here: the file (`terminationlog.py`), when to write ahead (`supervisor/ahead.py`).

Sources: "Determine the Reason for Pod Failure" of the Kubernetes documentation; the kubelet reads the last 4,096 bytes.
Read next: `text.py` (the same verdict for a terminal), `redact.py` (what is told holds no secret by then).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rankguard.diagnosis.projection import FULL, Near, growing
from rankguard.diagnosis.words import ranges
from rankguard.model import Verdict
from rankguard.report import wording as say
from rankguard.report.terminationlog import MOST

SCHEMA = "rankguard.termination/1"
_LEFT = (
    "If this is what the container left, rankguard was ended before it could write a verdict: "
    "by whatever ended the whole container"
)


def of_verdict(verdict: Verdict, theirs: bytes = b"") -> bytes:
    """The message at the end. `theirs`: what the program itself had written there; it comes last."""
    from rankguard.report.text import final_report, last_line  # no start waits for it

    text = final_report(verdict, saved=False).removesuffix(last_line(verdict)).rstrip("\n")
    return _message(last_line(verdict), _selection(verdict), text, theirs)


def so_far(verdict: Verdict, theirs: bytes = b"") -> bytes:
    """The message when the first failure has been judged, while the other ranks are made to end."""
    from rankguard.report.text import last_line

    text = f"{verdict.statement}; the other ranks are being ended. {_LEFT}"
    return _message(last_line(verdict), _selection(verdict), text, theirs)


def of_memory(
    near: Near,
    run_id: str,
    at: str,
    world: int,
    unready: Iterable[int] | None,
    theirs: bytes = b"",
    names: Mapping[int, str] | None = None,
) -> bytes:
    """The message while memory is near its limit. `unready`: ranks of whom readiness is expected; null: it is not.

    `names`: of the processes of a watched engine, whose numbers say nothing; the engine itself is 0.
    """
    if names is not None:  # what a process below the engine holds is in the engine's own number, too
        near = near.replace(ranks=tuple(each for each in near.ranks if each.rank or len(near.ranks) == 1))
    state, waiting = near.state, None if unready is None else tuple(unready)
    who = [each.rank for each in growing(near.ranks, near.outlook.growth)[:3]]
    unit = say.Unit(state.limit_bytes or 0)
    parts = [f"memory {unit.of(state.firm_bytes or 0)} of {unit.of(state.limit_bytes or 0)} {unit.name}"]
    parts += [f"+{say.size(round(near.outlook.growth))}/s"] if near.outlook.growth >= 1 else []
    parts += [f"{_named(who, names)} growing"] if who else []
    parts += [f"{_named(waiting, names)} not ready"] if waiting else []
    selection: dict[str, Any] = {
        "outcome": "running",
        "run_id": run_id,
        "at": at,
        "world_size": world,
        "not_ready": None if waiting is None else ranges(waiting),
        "memory": {
            "limit_bytes": state.limit_bytes,
            "firm_bytes": state.firm_bytes,
            "growth_bytes_s": round(near.outlook.growth),
            "left_s": None if near.outlook.left_s is None else round(near.outlook.left_s, 1),
            "limit_from": say.cut_path(say.printable(state.limit_from or "", 400), 160) or None,
        },
        "growing": [[each.rank, round(each.growth or 0)] for each in growing(near.ranks, near.outlook.growth)[:8]],
        "largest": [[each.rank, each.held] for each in sorted(near.ranks, key=lambda each: -each.held)[:8]],
    }
    if names is not None:
        for field in ("growing", "largest"):
            selection[field] = [[_name(rank, names), number] for rank, number in selection[field]]
        selection["not_ready"] = None if waiting is None else _named(waiting, names) if waiting else ""
    likely = near.outlook.level or near.outlook.share >= FULL
    why = (
        "with memory as it was, likely by the kernel's OOM killer"
        if likely
        else "whether for want of memory is unknown"
    )
    text = f"As it stood at {say.when(at)}. {_LEFT}; {why}"
    return _message(f"rankguard: {', '.join(parts)} run={say.word(run_id)}", selection, text, theirs)


def of_request(what: str, run_id: str, at: str, theirs: bytes = b"") -> bytes:
    """The message while ranks end because somebody asked. `what`: `asked to end by SIGTERM from pid 1`."""
    line = f"rankguard: {say.printable(what, 150)} run={say.word(run_id)}"
    selection = {"outcome": "stopping", "run_id": run_id, "at": at, "statement": what}
    return _message(line, selection, f"That was at {say.when(at)}; ranks were still ending. {_LEFT}", theirs)


def _name(rank: int, names: Mapping[int, str]) -> str:
    return say.cut(say.printable(names.get(rank, "the engine"), 40), 40)


def _named(numbers: Iterable[int], names: Mapping[int, str] | None) -> str:
    told = sorted(numbers)
    if names is not None:
        return say.cut(", ".join(_name(each, names) for each in told), 80)
    return f"{'rank' if len(told) == 1 else 'ranks'} {say.cut(ranges(told), 60)}"


def _selection(verdict: Verdict) -> dict[str, Any]:
    """The few fields that a controller acts on."""
    culprit = verdict.culprit
    cause = culprit.cause if culprit is not None else None
    return {
        "outcome": verdict.outcome,
        "exit_code": verdict.exit_code,
        "kind": cause and cause.kind,
        "family": cause and cause.family,
        "confidence": cause and cause.confidence,
        "rank": culprit and culprit.rank,
        "name": culprit and culprit.name,
        "node": culprit and culprit.node,
        "phase": culprit and say.phase(culprit.phase),
        "either": list(verdict.either[:8]),
        "owner": verdict.owner,
        "retry": verdict.retry.advice,
        "fingerprint": verdict.fingerprint,
        "run_id": verdict.run_id,
        "world_size": verdict.world_size,
        "at": verdict.failed_at or verdict.ended_at,
        "statement": verdict.statement,
    }


def _message(line: str, selection: dict[str, Any], text: str, theirs: bytes) -> bytes:
    """All of it in `MOST` bytes: the text gives way, then what was theirs, never the JSON."""
    told = {"schema": SCHEMA} | {name: _bounded(value) for name, value in selection.items()}
    head = f"{line}\n{json.dumps(told, ensure_ascii=False, separators=(',', ':'))}\n"
    room = MOST - len(head.encode(errors="replace"))
    quoted = ""
    if theirs:
        lines = [say.printable(each, 300) for each in theirs.decode(errors="replace").splitlines() if each.strip()]
        quoted = "\n".join([*([""] if text else []), "the program's own word:", *(f"  | {each}" for each in lines)])
    text = say.cut_bytes(text, max(room - 1 - len(quoted.encode(errors="replace")), (room - 1) // 2))
    quoted = say.cut_bytes(quoted, room - 1 - len(text.encode(errors="replace")))
    return f"{head}{text}{quoted}".rstrip("\n").encode(errors="replace") + b"\n"


def _bounded(value: Any) -> Any:
    """Text that takes no more than twice its 200 bytes in JSON."""
    return say.cut_bytes(say.printable(value, 200), 200) if isinstance(value, str) else value
