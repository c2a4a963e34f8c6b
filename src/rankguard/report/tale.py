"""A journal as a story: what was decided, and the fact that caused it, in plain sentences and in order of time.

Facts that decide nothing are told together until something is decided: 64 ranks that start are one line. Pure: entries of
`events.jsonl` in, moments out. An entry is data of others (somebody may have edited the file): whatever has not the
shape that we write is told as what it is, never an error. Not the raw journal (`raw`, for `explain --all`), nor the
verdict (`text.py`). Read next: `sentences.py` (one entry in words).
"""

import json
from collections.abc import Callable, Iterable, Iterator

from rankguard.record import Record
from rankguard.report import wording as say
from rankguard.report.sentences import (
    NAMES,
    Entry,
    action,
    as_number,
    ended,
    fields_of,
    obvious,
    plain,
    sentence,
    since_launch,
)

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
            then = f"{say.printable(str(entry['order']), 40)}{fields_of(named)}, because {because}"
            open_ = open_.replace(then=(*open_.then, then))
            continue
        if open_ is not None:
            yield open_
        if entry is None:
            open_ = Told(None, "(a line that cannot be read)")
        elif "fact" in entry:
            at = as_number(entry.get("at"))
            began = at if began is None else began
            named = {k: v for k, v in entry.items() if k not in ("fact", "at", "rank")}
            who = f"rank {entry['rank']} " if isinstance(entry.get("rank"), int) else ""
            open_ = Told(since_launch(at, began), f"{who}{say.printable(str(entry['fact']), 40)}{fields_of(named)}")
        elif "failed" in entry:
            began, open_ = None, Told(None, _chapter(entry))
        elif "note" in entry:
            open_ = Told(None, f"note: {say.printable(str(entry['note']), 300)}")
        else:
            open_ = None
    if open_ is not None:
        yield open_


def _chapter(entry: Entry) -> str:
    """The next attempt begins; its times are its own."""
    failed = entry["failed"] if isinstance(entry["failed"], dict) else {}
    number = as_number(failed.get("attempt"))
    which = f"attempt {number + 2:.0f}" if number is not None else "another attempt"
    return f"{which} begins, {plain(failed.get('restarted'))}; from here on times count from its launch"


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
        self._names: dict[int, str] = {}
        """Of a watched engine: what its numbers stand for."""

    def take(self, entry: Entry | None) -> Iterator[Told]:
        """What can be told now that this entry is known."""
        if entry is not None and self._names:
            entry = {**entry, NAMES: self._names}
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
        elif "failed" in entry:
            yield from self.flush()
            self._began = None
            yield Told(None, _chapter(entry))
        elif isinstance(entry.get("spec"), dict) and isinstance(entry["spec"].get("nprocs"), int):
            self._nprocs = entry["spec"]["nprocs"]
            if entry["spec"].get("watch"):
                self._names = {0: "the engine"}

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
        at, name, rank = as_number(entry.get("at")), entry["fact"], entry.get("rank")
        self._began = at if self._began is None else self._began
        since = since_launch(at, self._began)
        if not isinstance(name, str) or name in _UNTOLD:
            return
        if name == "Joined" and self._names and isinstance(rank, int):
            self._names[rank] = plain(entry.get("name"))
        quiet = _QUIET.get(name)
        if quiet is not None and isinstance(rank, int) and since is not None:
            self._last = name, quiet(entry), rank, since, entry.get("text") or entry.get("probe")
        else:
            self._open = Told(since, sentence(entry))
            self._only_if_decided = name in ("DeadlinePassed", "Silences")  # mostly nothing comes of these

    def _order(self, entry: Entry) -> Iterator[Told]:
        said = action(entry, self._began)
        if said is None:
            return
        if self._last is not None:
            yield from self._groups()
            name, what, rank, since, words = self._last
            group = _Group(since)
            group.add(rank, since, words)
            self._open, self._last = Told(since, _grouped(name, what, group, None, self._names)), None
        if self._open is not None:
            because = plain(entry.get("because"))
            told = said if because in self._open.what or obvious(entry) else f"{said}, because {because}"
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
            yield Told(group.first, _grouped(name, what, group, self._nprocs, self._names))
        self._quiet.clear()


# ── Facts ────────────────────────────────────────────────────────────────────────────────────────────────────────

_UNTOLD = frozenset({"OutputClosed", "Reaped", "Signalled"})
"""They belong to the proof that nothing is left, and decide nothing by themselves."""

_QUIET: dict[str, Callable[[Entry], str]] = {
    **dict.fromkeys(("Spawned", "Ready", "Extended", "LeavingTold"), lambda _entry: ""),
    "StatusTold": lambda entry: "probed" if entry.get("probe") else "",
    "Exited": lambda entry: ended(entry.get("ending")),
}
"""Facts that are told of many ranks at once, each with the words that must be equal for that."""


def _grouped(name: str, what: str, group: _Group, nprocs: int | None, names: dict[int, str]) -> str:
    ranks = list(group.ranks)
    everybody = nprocs is not None and nprocs > 1 and len(ranks) == nprocs
    who = (
        f"all {nprocs} ranks"
        if everybody
        else say.many([(None if rank in names else rank, names.get(rank)) for rank in ranks])
    )
    many = len(ranks) > 1
    until = f", the last at {group.last:.3f}" if group.last - group.first >= 0.0005 and many else ""
    times = f", {group.times} times, last at {group.last:.3f}" if group.times > len(ranks) else until
    match name:
        case "Spawned":
            return f"{who} started{until}"
        case "Ready":
            return f"{who} {'are' if many else 'is'} ready{until}"
        case "StatusTold" if what == "probed":
            return f"{who} was not ready yet{times}: {plain(group.said)}"
        case "StatusTold":
            last = f"the last {names.get(ranks[-1], f'rank {ranks[-1]}')}: " if many else ""
            said = f' ({last}"{plain(group.said)}")' if group.said else ""
            return f"{who} told {'their' if many else 'its'} status{times}{said}"
        case "Extended":
            return f"{who} asked for more time{times}"
        case "LeavingTold":
            return f"{who} said that {'they are' if many else 'it is'} stopping{until}"
        case _:
            by_signal = ("were " if many else "was ") if what.startswith("ended by") else ""
            return f"{who} {by_signal}{what}{until}"
