"""The journal as text, and from the text the same job again.

One JSON object a line (`events.jsonl`): the job's spec first, then every fact, each followed by the orders that it
gave. Facts hold all that decisions rest on, so a replay of the facts alone reaches the same orders and the same
verdict; the orders are there for people, and for the test that compares them.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rankguard.core.job import Job
from rankguard.core.machine import JOB_TABLE, RANK_TABLE, step
from rankguard.errors import UsageError
from rankguard.facts import Fact
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt
from rankguard.orders import Order
from rankguard.record import from_data, to_data

VERSION = "rankguard.events/1"
_FACTS: dict[str, type[Fact]] = {kind.__name__: kind for kind in (*RANK_TABLE, *JOB_TABLE)}


def first_line(spec: JobSpec) -> str:
    """The journal's beginning. What may hold secrets and decides nothing stays out of it: environment, arguments, and
    the texts that the user gave us to look for.
    """
    shown = spec.replace(env={}, rank_env=(), argv=(), debug_argv=(), redact=(), filters=((), ()), elastic_id=None)
    return json.dumps({"schema": VERSION, "spec": to_data(shown)}) + "\n"


def note(text: str) -> str:
    """A line for people: no fact, and no part of a replay."""
    return json.dumps({"note": text}) + "\n"


def new_attempt(failed: Attempt) -> str:
    """The line between an attempt that failed and the next one: a chapter of its own follows."""
    return json.dumps({"failed": to_data(failed)}) + "\n"


def lines(fact: Fact, orders: tuple[Order, ...]) -> str:
    """A fact and its orders, a line each. Fields at their default are left out."""
    return "".join(json.dumps(entry) + "\n" for entry in [_entry("fact", fact), *(_entry("order", o) for o in orders)])


def _entry(what: str, record: Fact | Order) -> dict[str, Any]:
    defaults = type(record)._defaults  # noqa: SLF001  # the shape of a record is what is written
    told = {f: getattr(record, f) for f in record._fields}
    return {what: type(record).__name__} | {f: to_data(v) for f, v in told.items() if defaults.get(f, _ALWAYS) != v}


_ALWAYS = object()


def read(text: Iterable[str]) -> Iterator[JobSpec | Attempt | Fact]:
    """The spec and the facts of a journal, and each attempt that failed where its facts end. A last line that was cut off in mid-write is left out.

    Raises `UsageError` when it is not a journal of a version that we know.
    """
    begun = False
    for line in text:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not begun:
            if not isinstance(entry, dict) or entry.get("schema") != VERSION:
                raise UsageError(f"not a journal of {VERSION}")
            begun = True
            yield from_data(JobSpec, entry["spec"])
        elif (fact := fact_of(entry)) is not None:
            yield fact
        elif "failed" in entry:
            yield from_data(Attempt, entry["failed"])


def fact_of(entry: dict[str, Any]) -> Fact | None:
    """The fact of one line; null when it is another line, or a fact of a later version."""
    return from_data(_FACTS[entry["fact"]], entry) if entry.get("fact") in _FACTS else None


def replay(text: Iterable[str]) -> tuple[Job, list[tuple[Fact, tuple[Order, ...]]]]:
    """The job that a journal tells of, and what each fact led to; of several attempts the last one."""
    told = read(text)
    spec = next(told, None)
    if not isinstance(spec, JobSpec):
        raise UsageError("an empty journal")
    job = Job(spec)
    steps: list[tuple[Fact, tuple[Order, ...]]] = []
    for entry in told:
        if isinstance(entry, Attempt):
            job, steps = again(job, entry), []
        elif isinstance(entry, Fact):
            steps.append((entry, step(job, entry)))
    return job, steps


def again(job: Job, failed: Attempt) -> Job:
    """The same job before its next attempt."""
    return Job(job.spec.replace(attempt=failed.attempt + 1), (*job.attempts, failed))
