"""What must hold of every run, whatever happened to its ranks: pairs of (as it should be, what was looked at)."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema

from rankguard._version import __version__
from rankguard.core.story import replay
from rankguard.diagnosis.verdict import verdict as verdict_of

SAME = (
    "outcome", "exit_code", "statement", "culprit", "either", "order", "ranks", "fingerprint", "owner", "retry",
    "stopped_by",
)  # fmt: skip
"""What a replay of the journal must give again."""


def always(run_dir: Path, verdict: dict[str, Any], status: int | None) -> Iterator[tuple[bool, str]]:
    """`status`: the command's exit status."""
    if not verdict:
        yield False, "a verdict: expected one, found none"
        return
    wrong = next(_validator().iter_errors(verdict), None)
    yield wrong is None, f"the schema: {'kept' if wrong is None else wrong.message}"
    differs = _replayed(run_dir, verdict)
    yield not differs, f"the journal: {differs or 'leads to the same verdict'}"
    left = [name for name in ("state.json", "control", "samples.json") if (run_dir / name).exists()]
    yield not left, f"files of a live run: {', '.join(left) or 'none'}"
    if verdict["outcome"] == "failed":
        yield status != 0, f"exit status after a failure: {status}"
        names_nobody = verdict["culprit"] is None or bool(verdict["culprit"]["cause"])
        yield names_nobody, "a culprit has a cause"
    relations = [row["relation"] for row in verdict["ranks"]]
    count = relations.count("culprit")
    yield count <= 1, f"ranks called the culprit: {count}"
    alive = [row["rank"] for row in verdict["ranks"] if row["ending"] is None or row["ending"]["kind"] == "alive"]
    yield not alive, f"ranks whose ending is not known: {alive or 'none'}"


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(files("rankguard").joinpath("schema/verdict-1.json").read_text()))


def _replayed(run_dir: Path, verdict: dict[str, Any]) -> str | None:
    """What a replay tells otherwise; null for nothing."""
    try:
        with open(run_dir / "events.jsonl") as journal:
            job, _steps = replay(journal)
    except Exception as error:  # whatever it is, it is told
        return f"cannot be replayed: {error!r}"
    again = json.loads(json.dumps(verdict_of(job.case(), __version__).to_dict()))
    differs = [key for key in SAME if again[key] != verdict[key]]
    return ", ".join(f"{key} {again[key]!r:.200} in place of {verdict[key]!r:.200}" for key in differs) or None
