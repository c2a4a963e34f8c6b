"""A journal as a story: what was decided, and the fact that caused it, in plain sentences and in order of time.

Facts that decide nothing are told together until something is decided: 64 ranks that start are one line. Pure: entries of
`events.jsonl` in, moments out. An entry is data of others (somebody may have edited the file): whatever has not the
shape that we write is told as what it is, never an error. Not the raw journal (`raw`, for `explain --all`), nor the
verdict (`text.py`).
"""

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rankguard.record import Record
from rankguard.report import wording as say

Entry = dict[str, Any]
_LINE = 1 << 20
"""A longer line is not one of ours."""


class Told(Record):
    """One moment: seconds since launch (null: it has none), a sentence, and what was done because of it."""

    at_s: float | None
    what: str
    then: tuple[str, ...] = ()


def entries(lines: Iterable[str]) -> Iterator[Entry | None]:
    """Each line's entry; None for a line that is none. Reads as it is asked."""
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line) if len(line) <= _LINE else None
        except (ValueError, RecursionError):
            entry = None
        yield entry if isinstance(entry, dict) else None


def tale(journal: Iterable[Entry | None]) -> Iterator[Told]:
    """The story. Consumes the journal as it goes, so a long one costs no memory."""
    teller = _Teller()
    for entry in journal:
        yield from teller.take(entry)
    yield from teller.flush()


def follow() -> Callable[[str], Iterator[Told]]:
    """The story while it is written: a function that takes what was appended to the journal. What many ranks do alike
    is told once the last of them has done it, or something is decided.
    """
    teller = _Teller()

    def appended(text: str) -> Iterator[Told]:
        for entry in entries(text.splitlines()):
            yield from teller.take(entry)
        yield from teller.settle()

    return appended


def raw(journal: Iterable[Entry | None]) -> Iterator[Told]:
    """Every fact with all its fields, and every order: nothing is left out, nothing explained."""
    began: float | None = None
    open_: Told | None = None
    for entry in journal:
        if entry is not None and "order" in entry and open_ is not None:
            because = say.printable(str(entry.get("because", "")), 160)
            named = {k: v for k, v in entry.items() if k not in ("order", "because")}
            then = f"{say.printable(str(entry['order']), 40)}{_fields(named)}, because {because}"
            open_ = open_.replace(then=(*open_.then, then))
            continue
        if open_ is not None:
            yield open_
        if entry is None:
            open_ = Told(None, "(a line that cannot be read)")
        elif "fact" in entry:
            at = _number(entry.get("at"))
            began = at if began is None else began
            named = {k: v for k, v in entry.items() if k not in ("fact", "at", "rank")}
            who = f"rank {entry['rank']} " if isinstance(entry.get("rank"), int) else ""
            open_ = Told(_since(at, began), f"{who}{say.printable(str(entry['fact']), 40)}{_fields(named)}")
        elif "note" in entry:
            open_ = Told(None, f"note: {say.printable(str(entry['note']), 300)}")
        else:
            open_ = None
    if open_ is not None:
        yield open_


class _Group:
    """Facts of many ranks that say the same."""

    __slots__ = ("first", "last", "ranks", "said", "times")

    def __init__(self, at: float) -> None:
        self.first = self.last = at
        self.ranks: dict[int, None] = {}
        self.times = 0
        self.said: object = None

    def add(self, rank: int, at: float, said: object) -> None:
        self.ranks.pop(rank, None)  # the last one is the one that said it
        self.ranks[rank], self.last, self.said = None, at, said or self.said
        self.times += 1


class _Teller:
    def __init__(self) -> None:
        self._began: float | None = None
        self._nprocs: int | None = None
        self._quiet: dict[tuple[str, str], _Group] = {}
        self._last: tuple[str, str, int, float, object] | None = None
        """The last fact, when it is a quiet one: told with others like it, unless an order follows that decides."""
        self._open: Told | None = None
        """The last fact, when it is told by itself."""
        self._only_if_decided = False
        self._unread = 0

    def take(self, entry: Entry | None) -> Iterator[Told]:
        """What can be told now that this entry is known."""
        if entry is None:
            self._unread += 1
        elif "order" in entry:
            yield from self._order(entry)
        elif "fact" in entry:
            yield from self._close()
            self._fact(entry)
        elif "note" in entry:
            yield from self._close()
            self._open = Told(None, f"note: {say.printable(str(entry['note']), 300)}")
        elif isinstance(entry.get("spec"), dict) and isinstance(entry["spec"].get("nprocs"), int):
            self._nprocs = entry["spec"]["nprocs"]

    def settle(self) -> Iterator[Told]:
        """What can be told although nothing follows yet."""
        yield from self._close()
        if any(len(group.ranks) == self._nprocs for group in self._quiet.values()):
            yield from self._groups()

    def flush(self) -> Iterator[Told]:
        """What is left at the end."""
        yield from self._close()
        yield from self._groups()
        if self._unread:
            lines = "a line" if self._unread == 1 else f"{self._unread} lines"
            yield Told(None, f"({lines} of the journal cannot be read: cut off while it was written, or changed since)")
            self._unread = 0

    def _fact(self, entry: Entry) -> None:
        at, name, rank = _number(entry.get("at")), entry["fact"], entry.get("rank")
        self._began = at if self._began is None else self._began
        since = _since(at, self._began)
        if not isinstance(name, str) or name in _UNTOLD:
            return
        quiet = _QUIET.get(name)
        if quiet is not None and isinstance(rank, int) and since is not None:
            self._last = name, quiet(entry), rank, since, entry.get("text")
        else:
            self._open = Told(since, _sentence(entry))
            self._only_if_decided = name == "DeadlinePassed"  # a stale one changes nothing

    def _order(self, entry: Entry) -> Iterator[Told]:
        said = _order(entry, self._began)
        if said is None:
            return
        if self._last is not None:
            yield from self._groups()
            name, what, rank, since, words = self._last
            group = _Group(since)
            group.add(rank, since, words)
            self._open, self._last = Told(since, _grouped(name, what, group, None)), None
        if self._open is not None:
            because = _text(entry.get("because"))
            told = said if because in self._open.what or _obvious(entry) else f"{said}, because {because}"
            self._open = self._open.replace(then=(*self._open.then, told))

    def _close(self) -> Iterator[Told]:
        """A fact is over when the next one begins."""
        if self._last is not None:
            name, what, rank, since, said = self._last
            self._quiet.setdefault((name, what), _Group(since)).add(rank, since, said)
            self._last = None
        told, self._open = self._open, None
        if told is not None and (told.then or not self._only_if_decided):
            yield from self._groups()
            yield told
        self._only_if_decided = False

    def _groups(self) -> Iterator[Told]:
        for (name, what), group in sorted(self._quiet.items(), key=lambda item: item[1].first):
            yield Told(group.first, _grouped(name, what, group, self._nprocs))
        self._quiet.clear()


# ── Facts ────────────────────────────────────────────────────────────────────────────────────────────────────────

_UNTOLD = frozenset({"OutputClosed", "Reaped", "Signalled"})
"""They belong to the proof that nothing is left, and decide nothing by themselves."""

_QUIET: dict[str, Callable[[Entry], str]] = {
    **dict.fromkeys(("Spawned", "Ready", "StatusTold", "Extended", "LeavingTold"), lambda _entry: ""),
    "Exited": lambda entry: _ending(entry.get("ending")),
}
"""Facts that are told of many ranks at once, each with the words that must be equal for that."""


def _grouped(name: str, what: str, group: _Group, nprocs: int | None) -> str:
    ranks = list(group.ranks)
    everybody = nprocs is not None and nprocs > 1 and len(ranks) == nprocs
    who = f"all {nprocs} ranks" if everybody else say.many([(rank, None) for rank in ranks])
    many = len(ranks) > 1
    until = f", the last at {group.last:.3f}" if group.last - group.first >= 0.0005 and many else ""
    times = f", {group.times} times, last at {group.last:.3f}" if group.times > len(ranks) else until
    match name:
        case "Spawned":
            return f"{who} started{until}"
        case "Ready":
            return f"{who} {'are' if many else 'is'} ready{until}"
        case "StatusTold":
            last = f"the last rank {ranks[-1]}: " if many else ""
            said = f' ({last}"{_text(group.said)}")' if group.said else ""
            return f"{who} told {'their' if many else 'its'} status{times}{said}"
        case "Extended":
            return f"{who} asked for more time{times}"
        case "LeavingTold":
            return f"{who} said that {'they are' if many else 'it is'} stopping{until}"
        case _:
            by_signal = ("were " if many else "was ") if what.startswith("ended by") else ""
            return f"{who} {by_signal}{what}{until}"


def _sentence(entry: Entry) -> str:  # noqa: C901, PLR0911, PLR0912  # one case a fact, as long as their list
    """One fact in words."""
    rank = f"rank {entry['rank']}" if isinstance(entry.get("rank"), int) else "a rank"
    match entry["fact"]:
        case "JobStarted":
            memory = entry.get("memory")
            limit = _number(memory.get("limit_bytes")) if isinstance(memory, dict) else None
            return "the job began" + (f"; its memory limit is {say.size(int(limit))}" if limit else "")
        case "NotSpawned":
            return f"{rank} could not be started: {_text(entry.get('statement'))}"
        case "FailureReported":
            report = entry.get("report")
            text = report.get("text") if isinstance(report, dict) else None
            lines = str(text or "").strip().splitlines()
            because = "; it lost a peer" if entry.get("peer_death") else ""
            return f"{rank} reported that it failed: {_text(lines[-1] if lines else 'no text')}{because}"
        case "ProtocolBroken":
            return f"{rank} broke the protocol: {_text(entry.get('statement'))}"
        case "Complained":
            return f"{rank} sent {_signal(entry.get('signal'))} to its parent"
        case "KernelKilled":
            record = entry.get("record")
            said = record.get("text") if isinstance(record, dict) else None
            whose = f"a process of {rank}" if isinstance(entry.get("rank"), int) else "a process that is none of ours"
            return f"the kernel's OOM killer ended {whose}: {_text(said)}"
        case "ReadinessExpected":
            return "somebody waits for readiness"
        case "StopRequested":
            sender = entry.get("sender")
            comm = sender.get("comm") if isinstance(sender, dict) else None
            pid = sender.get("pid") if isinstance(sender, dict) else None
            by = f" from {_text(comm)} (pid {pid})" if comm else f" from pid {pid}" if pid else ""
            by = " from the terminal" if isinstance(sender, dict) and not any(sender.values()) else by
            how = entry.get("by", "signal")
            name = _signal(entry.get("signal")) if how == "signal" else _text(how)
            return f"{name}{by}: asked to end"
        case "SignalPassed":
            return f"{_signal(entry.get('signal'))} came, which stops nothing"
        case "Suspended":
            return "asked to stand still (Ctrl-Z)"
        case "Resumed":
            return "asked to go on"
        case "TimeLost":
            return f"rankguard itself stood still for {_text(entry.get('seconds'))} s"
        case "FrontLost" | "WardenLost" | "SupervisorLost":
            return f"the {entry['fact'].removesuffix('Lost').lower()} is gone (pid {entry.get('pid')})"
        case "DeadlinePassed":
            return f"the clock `{_text(entry.get('name'))}` was over"
        case "Looked":
            return _looked(entry)
        case "Judged":
            who = "no rank" if entry.get("rank") is None else rank
            basis = f"; {_text(entry['basis'])}" if entry.get("basis") else ""
            return f"judged: {who} failed first ({_text(entry.get('kind'))}{basis})"
        case "TreeEmpty":
            return _empty(entry)
        case "Warned":
            return f"warning: {_text(entry.get('statement'))}"
        case "StoppingAnnounced":
            return "the owner announced that it is stopping"
        case other:
            named = {k: v for k, v in entry.items() if k not in ("fact", "at", "rank")}
            return f"{rank + ' ' if 'rank' in entry else ''}{_text(other)}{_fields(named)}"


def _looked(entry: Entry) -> str:
    dying = [pair for pair in _list(entry.get("dying")) if isinstance(pair, list) and len(pair) == 2]
    told = [f"rank {number} was on its way out ({_text(how)})" for number, how in dying]
    return f"looked at all ranks: {say.some(told, 4) if told else 'none was on its way out'}"


def _empty(entry: Entry) -> str:
    killed, survivors, left = (_list(entry.get(key)) for key in ("killed", "survivors", "left"))
    parts = [f"{len(killed)} needed SIGKILL"] if killed else []
    for removed, word in ((False, "left behind"), (True, "removed")):
        named = [
            _text(each.get("path")) for each in left if isinstance(each, dict) and bool(each.get("removed")) is removed
        ]
        parts += [f"{word}: {say.some(named, 4)}"] if named else []
    what = f"{len(survivors)} processes refuse to die" if survivors else "no process is left"
    return "; ".join([what, *parts])


# ── Orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


_CLOCKS = frozenset({"ready", "complaint", "hold", "settle", "grace", "shutdown"})
"""Those that a person waits for; the others bound our own work."""


def _order(entry: Entry, began: float | None) -> str | None:  # noqa: PLR0911  # one case an order
    """What was done, in words; None for what is no decision (a look, a reap, a word to the front)."""
    match entry.get("order"):
        case "Spawn":
            first, last = entry.get("first"), entry.get("last")
            return f"start rank {_text(first)}" if first == last else f"start ranks {_text(first)}-{_text(last)}"
        case "SignalAll":
            spared = [(n, None) for n in _list(entry.get("spare")) if isinstance(n, int)]
            return f"{_signal(entry.get('signal'))} to all ranks{f' but {say.many(spared)}' if spared else ''}"
        case "SignalRank":
            return f"{_signal(entry.get('signal'))} to rank {_text(entry.get('rank'))}"
        case "WakeAt":
            when = _since(_number(entry.get("when")), began)
            shown = when is not None and entry.get("name") in _CLOCKS
            return f"the clock `{entry['name']}` runs until {when:.3f}" if shown else None
        case "Disarm":
            names = [name for name in _list(entry.get("names")) if name in _CLOCKS]
            return (
                f"the clock{'s' if len(names) > 1 else ''} {', '.join(f'`{n}`' for n in names)} stopped"
                if names
                else None
            )
        case "Sweep":
            return "kill everything that is left" if entry.get("kill") else "end what the ranks have left behind"
        case "GiveUp":
            return "give up on what refuses to end"
        case "Tell" if entry.get("what") == "all-ready":
            return "all ranks are ready"
        case "Tell" if entry.get("what") == "readiness-expected":
            return "from now on a rank that ends before it is ready has failed"
        case "Finish":
            return "write the verdict"
        case _:
            return None


def _obvious(entry: Entry) -> bool:
    """Its reason is in its words, or in those of the fact."""
    because = entry.get("because")
    return (
        entry.get("order") in ("Spawn", "WakeAt", "Tell", "Finish") or not because or "asked to end by" in str(because)
    )


# ── Small ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ending(ending: object) -> str:
    if not isinstance(ending, dict):
        return "ended, nobody knows how"
    if ending.get("kind") == "signal":
        core = " (core dumped)" if ending.get("core_dumped") else ""
        return f"ended by {_text(ending.get('signal') or _signal(ending.get('number')))}{core}"
    return f"ended with exit code {_text(ending.get('code'))}"


def _signal(number: object) -> str:
    try:
        return signal.Signals(number).name  # type: ignore[arg-type]  # whatever the file holds
    except (ValueError, TypeError):
        return f"signal {_text(number)}"


def _text(value: object) -> str:
    return say.printable(str(value), 200)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _since(at: float | None, began: float | None) -> float | None:
    return None if at is None or began is None else at - began


def _fields(entry: Entry) -> str:
    """` (pid=4711, payload_bytes=0)`."""
    told = ", ".join(f"{_text(key)}={_short(value)}" for key, value in entry.items() if value not in (None, [], {}))
    return f" ({told})" if told else ""


def _short(value: object) -> str:
    return say.printable(value if isinstance(value, str) else json.dumps(value), 160)
