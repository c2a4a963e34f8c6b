"""`rankguard runs`, `report` and `explain`: what is on disk of runs that are over, or still going."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rankguard.cli import say
from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.model import Verdict
from rankguard.runs import Run, find_run, known_runs, run_name


def runs(words: Sequence[str]) -> int:
    """List past runs, the newest first."""
    asked = parse("runs", words)
    return 0 if asked is None else _list(asked.number)


def _list(limit: int) -> int:
    found = known_runs()[:limit]
    width = max((len(run.id) for run in found), default=0)
    for run in found:
        data = run.read()
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.at))
        what = data.get("statement", "no verdict: rankguard and everything round it was killed, or it runs elsewhere")
        print(f"{run.id:{width}}  {when}  {data.get('outcome', '?'):12}{what}")
    return 0


def report(words: Sequence[str]) -> int:
    """The final text of a run again."""
    asked = parse("report", words)
    return 0 if asked is None else _report(find_run(asked.run), as_json=asked.json)


def _report(run: Run, *, as_json: bool) -> int:
    data = run.read()
    if not data:
        raise UsageError(f"run {run.id} has no verdict", f"rankguard explain {run.id}")
    if as_json:
        print(json.dumps(data, indent=1))
        return 0
    if data["outcome"] == "running":
        print(f"run {run.id} has no verdict yet; as of its last news: {data['statement']}")
        return 0
    from rankguard.report.text import final_report

    verdict = Verdict.from_dict(data)
    print(final_report(verdict, color=say.in_color(1), saved=run_name(str(run.folder), data["run_id"])))
    return 0


def explain(words: Sequence[str]) -> int:
    """The story of a run: each decision with the fact that caused it."""
    asked = parse("explain", words)
    return 0 if asked is None else _explain(find_run(asked.run))


def _explain(run: Run) -> int:
    try:
        text = (run.folder / "events.jsonl").read_text()
    except OSError as error:
        raise UsageError(f"run {run.id} has no journal: {error.strerror}") from None
    for line in _story(text.splitlines()):
        print(line)
    return 0


def _story(lines: Iterable[str]) -> Iterator[str]:
    """One line a fact with its instant since launch, and below it the orders that it gave."""
    began: float | None = None
    for text in lines:
        try:
            entry = json.loads(text)
        except ValueError:
            yield "            (the journal ends in the middle of a line)"
            return
        if "fact" in entry:
            at = entry.pop("at")
            began = at if began is None else began
            name = entry.pop("fact")
            rank = f"rank {entry.pop('rank')} " if entry.get("rank") is not None else ""
            yield f"{at - began:10.6f}  {rank}{name}{_details(entry)}"
        elif "note" in entry:
            yield f"            note: {entry['note']}"
        elif "order" in entry:
            because = entry.pop("because", "")
            yield f"            → {entry.pop('order')}{_details(entry)}, because {because}"


def _details(entry: dict[str, Any]) -> str:
    said = ", ".join(f"{key}={_short(value)}" for key, value in entry.items() if value not in (None, [], {}))
    return f" ({said})" if said else ""


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")
    return text if len(text) <= 160 else text[:157] + "..."
