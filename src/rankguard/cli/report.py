"""`rankguard report`: the final text of a run again; of a run that goes on what is known now, of one that was cut off
what it has left.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from rankguard.cli import say
from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.model import Verdict
from rankguard.runs.folder import CHANGED, Run, address_of, find_run, run_in, run_name
from rankguard.runs.live import NotLive, ask

_WAIT_S = 3.0
_TOLD, _COULD_NOT = 0, 1


def report(words: Sequence[str]) -> int:
    """The report of a run; 0 when something could be told."""
    asked = parse("report", words)
    if asked is None:
        return 0
    if asked.html is not None or "html" in asked.given:
        return _page(asked)
    name, run, address = _found(asked.run)
    if run is None:
        return _live(name, None, address, as_json=asked.json)
    if run.ended:
        return _ended(run, as_json=asked.json)
    if run.is_live() is not False:
        return _live(run.id, run, address, as_json=asked.json)
    return _cut_off(run, as_json=asked.json)


def _found(words: str | None) -> tuple[str, Run | None, str | None]:
    """A run's name, its files, null where it lives and keeps none, and the address of its supervisor, null where it has none.

    Raises `UsageError` where there is neither.
    """
    name, address = address_of(words)
    try:
        return name, find_run(words), address
    except UsageError:
        if address is None:
            raise
        return name, None, address


def _page(asked: SimpleNamespace) -> int:
    """The same as one file for a browser (`htmlfile.py`)."""
    from rankguard.cli.htmlfile import checked, write_page

    file = checked(asked.html, as_json=asked.json)
    assert file is not None  # the option has a value
    name, run, address = _found(asked.run)
    if run is None:
        raise UsageError(f"run {name} keeps no files that a page could be made of", f"rankguard report {name}")
    answer: dict[str, Any] = {}
    if not run.ended and address is not None:
        with contextlib.suppress(NotLive, TimeoutError):
            answer = ask(address, {"do": "report"}, _WAIT_S)
            answer["rules"] = ask(address, {"do": "rules"}, _WAIT_S).get("rules")
    return write_page(run_in(run.folder) or run, file, answer)


def _ended(run: Run, *, as_json: bool) -> int:
    data = run.read()
    try:
        verdict = Verdict.from_dict(data)
        if as_json:
            return _print(data)
        from rankguard.report.text import final_report

        saved = run_name(str(run.folder.absolute()), verdict.run_id)
        home = os.environ.get("HOME")
        print(final_report(verdict, color=say.in_color(1), width=say.width(1), saved=saved, home=home))
    except CHANGED as error:
        say.error(f"`{run.folder}/verdict.json`: expected a verdict ({error})", f"rankguard explain {run.id}")
        return _COULD_NOT
    return _TOLD


def _live(name: str, run: Run | None, address: str | None, *, as_json: bool) -> int:
    """The supervisor's own answer, else the last state that it wrote."""
    answer: dict[str, Any] = {}
    if address is not None:
        try:
            answer = ask(address, {"do": "report"}, _WAIT_S)
        except (NotLive, TimeoutError):
            pass
    data = answer.get("verdict") or (run.read() if run is not None else {})
    if run is not None and not answer and run.folder.joinpath("verdict.json").exists():
        return _ended(Run(run.id, run.folder, run.at), as_json=as_json)  # it ended while we asked
    if as_json and data:
        return _print(data)
    from rankguard.report.state import ranks_now, sampled, state_text

    try:
        verdict = Verdict.from_dict(data)
    except CHANGED:
        print(f"run {name} has just begun, or is not of this machine: it says nothing yet")
        return _TOLD
    waiting = answer.get("progress", {}).get("waiting", ())
    news = "asked just now" if answer else f"last news {_ago(run)} ago, since it does not answer here"
    more = f"rankguard stacks {name} · rankguard explain {name}"
    told = answer.get("samples", {})
    held = sampled(told, told.get("age_s"))
    head = f"running: {verdict.statement}"
    print(state_text(head, verdict, ranks_now(verdict, waiting), news, more=more, since="ago", samples=held))
    return _TOLD


def _cut_off(run: Run, *, as_json: bool) -> int:
    from rankguard.report.state import state_text
    from rankguard.report.wording import seconds
    from rankguard.runs.remains import remains

    left = remains(run.folder)
    if left is None:
        say.error(f"run {run.id} ended without a verdict, and its journal tells nothing", f"ls -l {run.folder}")
        return _COULD_NOT
    if as_json:
        return _print(left.verdict.to_dict())
    why = "everything of it was killed at once, or the machine went down"
    if left.rebooted_at is not None:
        why = f"this machine was started again at {_clock(left.rebooted_at)}"
    news = f"the last news came {seconds(left.last_s)} later; this is how it stood then"
    more = f"rankguard explain {run.id} · {run.folder}"
    print(
        state_text(
            f"no verdict: run {run.id} was cut off: {why}",
            left.verdict,
            left.ranks,
            news,
            left.tails,
            more,
            samples=left.samples,
        )
    )
    return _TOLD


def _ago(run: Run | None) -> str:
    from rankguard.report.wording import whole_seconds

    return whole_seconds(max(0.0, time.time() - run.at)) if run is not None else "?"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _print(data: dict[str, Any]) -> int:
    print(json.dumps(data, indent=1))
    return _TOLD
