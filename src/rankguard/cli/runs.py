"""`rankguard runs`: the runs that are on disk, the newest first, and `--prune`, which removes old ones.

Only the runs that are shown are read. What is removed is a run of ours and over: files by their names, folders when they
are empty; whatever else lies there stays.
"""

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from rankguard.cli import say
from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.report.wording import cut, plural, printable, size
from rankguard.runs.folder import OURS, Run, known_runs

_WIDTH = 80
_FULL = 0.9
"""Of a memory limit: from here on it may be why there is no verdict."""


def runs(words: Sequence[str]) -> int:
    """List past runs, or remove them."""
    asked = parse("runs", words)
    if asked is None:
        return 0
    parent = getattr(asked, "in")
    if parent is not None:
        try:
            os.scandir(parent).close()
        except OSError as error:
            raise UsageError(f"unable to read the folder `{parent}`: {error.strerror}") from None
    found = known_runs(parent)
    if asked.prune:
        return _prune(found, asked)
    if extra := asked.given & {"older_than", "keep", "dry_run"}:
        option = f"--{min(extra).replace('_', '-')}"
        raise UsageError(f"`{option}` is for `--prune`", "rankguard runs --prune --older-than 7d")
    shown = found[: asked.number] if asked.number else found
    if asked.json:
        print(json.dumps([_row(run) for run in shown], indent=1))
        return 0
    for line in _table([_row(run) for run in shown]):
        print(line)
    if not found:
        say.note("there is no run yet" if parent is None else f"no run is in `{parent}`")
    if len(shown) < len(found):
        say.note(f"{len(found) - len(shown)} more; `rankguard runs -n 0` lists all")
    return 0


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(run: Run) -> dict[str, Any]:
    """What the list tells of a run: facts, not words. A value that the file has in another shape is null."""
    data = run.read()
    live = run.is_live()
    culprit, stopped = _dict(data.get("culprit")), _dict(data.get("stopped_by"))
    cause = _dict(culprit.get("cause"))
    spec = {} if data else run.spec()
    command = data.get("command") or spec.get("command")
    before = data.get("attempts")  # what failed before belongs to the run
    first = _dict(before[0]) if isinstance(before, list) and before else data
    since = first.get("started_at")
    started = _instant(since)
    ended = _instant(data.get("ended_at")) or (time.time() if live else run.last_at())
    outcome = data.get("outcome") if run.ended else "running" if live else None
    return {
        "run": run.id,
        "folder": str(run.folder),
        "started_at": since if started is not None else None,
        "at": started if started is not None else run.at,
        "took_s": round(max(0.0, ended - started), 3) if started is not None else None,
        "world_size": _int(data.get("world_size", spec.get("nprocs"))),
        "outcome": outcome if isinstance(outcome, str) else None,
        "live": live,
        "exit_code": _int(data.get("exit_code")) if run.ended else None,
        "cause": _str(cause.get("kind")),
        "rank": _int(culprit.get("rank")),
        **({"node": _str(culprit.get("node"))} if cause.get("kind") == "node-lost" else {}),
        "signal": _str(stopped.get("signal")),
        "statement": _str(data.get("statement")),
        "memory_share": None if run.ended or live is not False else _share(run),
        "command": [str(word) for word in command] if isinstance(command, list) else [],
    }


def _share(run: Run) -> float | None:
    """How full its memory limit was at the last look, of a run that was cut off."""
    from rankguard.report.state import last_look, sampled

    share = sampled(*last_look(str(run.folder))).share
    return None if share is None else round(share, 4)


def _instant(stamp: object) -> float | None:
    try:
        return datetime.fromisoformat(str(stamp)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _str(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As wide as the terminal, 80 elsewhere; only the command is cut."""
    if not rows:
        return
    cells = [
        (printable(row["run"], 20), _when(row["at"]), _took(row["took_s"]), str(row["world_size"] or "?"), _outcome(row),
         " ".join(row["command"]))
        for row in rows
    ]  # fmt: skip
    head = ("RUN", "STARTED", "TOOK", "RANKS", "OUTCOME", "COMMAND")
    widths = [max(len(line[n]) for line in (head, *cells)) for n in range(5)]
    width = max(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns if os.isatty(1) else _WIDTH)
    room = max(12, width - sum(widths) - 2 * 5)
    for line in (head, *cells):
        run, when, took, ranks, outcome, command = line
        yield (
            f"{run:{widths[0]}}  {when:{widths[1]}}  {took:>{widths[2]}}  {ranks:>{widths[3]}}  {outcome:{widths[4]}}  "
            f"{printable(command, room)}"
        ).rstrip()


def _when(at: float) -> str:
    """Local time, for people; the year only when it is another one."""
    then, now = time.localtime(at), time.localtime()
    return time.strftime("%m-%d %H:%M" if then.tm_year == now.tm_year else "%Y-%m-%d", then)


def _took(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 600:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _outcome(row: dict[str, Any]) -> str:
    outcome = row["outcome"]
    if outcome is None:
        if row["live"] is not False:
            return "unknown"
        share = row["memory_share"]
        return "no verdict" if share is None or share < _FULL else f"no verdict, memory {100 * share:.0f} %"
    if outcome == "failed":
        who = f" rank {row['rank']}" if row["rank"] is not None else f" {row['node']}" if row.get("node") else ""
        return cut(printable(f"{row['cause'] or 'failed'}{who} ({row['exit_code']})"), 32)
    if outcome == "interrupted":
        return cut(printable(f"interrupted {row['signal'] or ''}".rstrip()), 32)
    return cut(printable(outcome), 32)


# ── Prune ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _prune(found: Sequence[Run], asked: SimpleNamespace) -> int:
    """Remove what is older than asked for and not among the newest to keep; what lives or is not ours stays."""
    if asked.older_than is None and asked.keep is None:
        raise UsageError("`--prune` removes nothing by itself", "rankguard runs --prune --older-than 7d")
    before = time.time() - (asked.older_than or 0)
    chosen = [run for run in found[asked.keep or 0 :] if run.at <= before]
    total = live = 0
    gone: list[dict[str, Any]] = []
    for run in chosen:
        if run.is_live() is not False or not _is_ours(run):
            live += 1
            continue
        freed, kept = _remove(str(run.folder), dry=asked.dry_run)
        total += freed
        gone.append({"run": run.id, "folder": str(run.folder), "bytes": freed, "kept": kept})
        if not asked.json:
            also = f"; kept: {printable(', '.join(kept[:3]))}" if kept else ""
            print(f"{printable(run.id, 40)}  {_when(run.at)}  {size(freed)}{also}")
    if asked.json:
        print(json.dumps(gone, indent=1))
    verb = "would be freed" if asked.dry_run else "freed"
    stay = len(found) - len(gone)
    not_over = f", {live} of them live or not ours to remove" if live else ""
    say.note(f"{plural(len(gone), 'run')}, {size(total)} {verb}; {stay} stay{not_over}")
    return 0


def _is_ours(run: Run) -> bool:
    """A folder of this user, no link, with a journal or a verdict of ours in it."""
    try:
        status = os.lstat(run.folder)
    except OSError:
        return False
    data = run.read()
    ours = bool(run.spec().get("run_id")) or str(data.get("schema", "")).startswith("rankguard.verdict/")
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and ours


def _remove(folder: str, *, dry: bool) -> tuple[int, list[str]]:
    """Bytes that are freed, and what is kept since it is not ours. The journal goes last, so that a rest is still a run."""
    freed, kept = 0, list[str]()
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name == "events.jsonl"):
        if not OURS.fullmatch(entry.name):
            kept.append(entry.name)
        elif entry.is_dir(follow_symlinks=False):
            more, strange = (_remove if entry.name == "node-0" else _remove_logs)(entry.path, dry=dry)
            freed += more
            kept += [f"{entry.name}/{name}" for name in strange]
        else:
            freed += _unlink(entry.path, dry=dry)
    if not dry and not kept:
        _rmdir(folder)
    return freed, kept


def _remove_logs(folder: str, *, dry: bool) -> tuple[int, list[str]]:
    """Of one rank: `attempt-K/{stdout,stderr}.log`."""
    freed, kept = 0, list[str]()
    for attempt in os.scandir(folder):
        if not attempt.name.startswith("attempt-") or not attempt.is_dir(follow_symlinks=False):
            kept.append(attempt.name)
            continue
        for log in os.scandir(attempt.path):
            if log.name in ("stdout.log", "stderr.log") and not log.is_dir(follow_symlinks=False):
                freed += _unlink(log.path, dry=dry)
            else:
                kept.append(f"{attempt.name}/{log.name}")
        if not dry:
            _rmdir(attempt.path)
    if not dry:
        _rmdir(folder)
    return freed, kept


def _unlink(path: str, *, dry: bool) -> int:
    """Its size on the disk; 0 when it cannot be removed."""
    try:
        size_ = os.lstat(path).st_blocks * 512
        if not dry:
            os.unlink(path)
    except OSError:
        return 0
    return size_


def _rmdir(folder: str) -> None:
    """One that is not empty stays."""
    try:
        os.rmdir(folder)
    except OSError:
        pass
