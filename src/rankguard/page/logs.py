"""The ends of what ranks printed, as the page shows them: lines of two streams, without secrets, within bounds.

Who reads: the page server while a run lives, the supervisor when it has failed (`tails.json`), `report --html`. Who hides:
a redactor that knows the run's secrets, where there is one. Read next: `../report/logtail.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rankguard.report.logtail import tail
from rankguard.report.output import STREAMS, TAIL, log_path

NAME = "tails.json"
LINES, CHARS = 200, 400
"""Of a stream, and of a line."""
READ = 64 << 10
"""Bytes of a stream that are looked at."""

Redact = Callable[[str], str]
Log = dict[str, Any]


def log(run_dir: str, rank: int, attempt: int, limit: int, redact: Redact, lines: int = LINES, read: int = READ) -> Log:
    """Of one rank, from its files in the run's folder. `limit`: what they are kept to (--log-max)."""
    streams = {}
    for stream in STREAMS:
        path = log_path(run_dir, rank, attempt, stream)
        found = tail(run_dir, path.removeprefix(f"{run_dir}/"), read, limit)
        if found is not None:
            told, cut = last_lines(redact(found.text), lines)
            streams[stream] = {"lines": told, "cut": cut or found.cut, "path": path}
    return {"rank": rank, "attempt": attempt, "streams": streams}


def last_lines(text: str, most: int) -> tuple[list[str], bool]:
    """The last lines, each cut to what is shown of one, and whether there are more. Hidden before, cut after."""
    found = text.split("\n")
    if found and not found[-1]:
        found.pop()
    return [_line(each) for each in found[-most:]], len(found) > most


def told_log(rank: int, attempt: int, lines: Sequence[str], stream: str, path: str | None) -> Log:
    """Of a rank of which the journal's last lines are all that there is: both streams, as they came."""
    shown = {"lines": [_line(each) for each in lines], "cut": len(lines) >= TAIL, "path": path}
    return {"rank": rank, "attempt": attempt, "streams": {stream: shown} if lines else {}}


def fitted(logs: Sequence[Log], most: int) -> list[Log]:
    """Those that come first keep most: the oldest lines of the last ones go until all take `most` characters at most."""
    left, told = most, []
    for number, each in enumerate(logs):
        share = max(0, left // 2 if number == 0 else left // max(1, len(logs) - number))
        streams = {}
        for name in sorted(each["streams"], reverse=True):  # stderr first
            shown = each["streams"][name]
            kept, size = list[str](), 0
            for line in reversed(shown["lines"]):
                size += len(line.encode(errors="replace")) + 4
                if size > share:
                    break
                kept.append(line)
            share -= min(share, size)
            left -= min(left, size)
            streams[name] = shown | {"lines": kept[::-1], "cut": shown["cut"] or len(kept) < len(shown["lines"])}
        told.append(each | {"streams": dict(sorted(streams.items(), reverse=True))})
    return told


def order(ranks: Sequence[Mapping[str, Any]]) -> list[int]:
    """Whose output is read first: the culprit's, then that of who failed, then all others."""
    weight = {"culprit": 0, "independent": 2, "collateral": 3}
    return sorted(
        range(len(ranks)),
        key=lambda at: (weight.get(ranks[at]["relation"], 4) if not ranks[at]["either"] else 1, ranks[at]["rank"]),
    )


def _line(text: str) -> str:
    return text if len(text) <= CHARS else text[: CHARS - 1] + "…"


def is_log(told: object) -> bool:
    """Whether this has the shape of a log, whoever wrote it."""
    if not isinstance(told, dict) or type(told.get("rank")) is not int or type(told.get("attempt")) is not int:
        return False
    streams = told.get("streams")
    return isinstance(streams, dict) and all(
        name in STREAMS
        and isinstance(shown, dict)
        and isinstance(shown.get("lines"), list)
        and all(isinstance(line, str) for line in shown["lines"])
        and type(shown.get("cut")) is bool
        for name, shown in streams.items()
    )
