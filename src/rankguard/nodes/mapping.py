"""One node's facts as facts of the world: ranks by their number there, instants on the coordinator's clock. Pure.

On a node ranks are numbered from 0 and instants are of its own monotonic clock. What names something that only that
machine has (a path, a statement about it) is told with the machine's name. Left alone, since they have a meaning on one
node only: pids, `Begun.place` (the order in which the kernel told of ends; compare it among ranks of one node).

To add a field that is a rank, an instant or a place: a row here. `tests/nodes/test_mapping.py` walks the annotations of
all facts and of the nouns in them, and fails for a number that is in no table.
"""

import math
import types
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rankguard import facts as _facts
from rankguard.circumstances import Core, GpuHolder, PortUse
from rankguard.collective import Recorded, Remark
from rankguard.facts import Fact
from rankguard.model import Begun, Left, Report, Sign
from rankguard.record import Record, to_data
from rankguard.stacks import Group

R = TypeVar("R", bound=Record)

RANKS: dict[type[Record], tuple[str, ...]] = {
    _facts.RankFact: ("rank",),
    _facts.Judged: ("rank", "either"),
    _facts.KernelKilled: ("rank",),
    _facts.KernelNoted: ("rank",),
    _facts.Joined: ("rank",),
    _facts.Looked: ("dying", "memory"),
    _facts.NodeStopping: ("dying",),
    _facts.Examined: ("cpu", "used", "below"),
    Sign: ("rank",),
    Recorded: ("rank",),
    Remark: ("rank",),
    PortUse: ("rank",),
    GpuHolder: ("rank",),
}
"""Fields that are a rank, ranks, or tuples that each begin with one."""

MEMBERS: dict[type[Record], tuple[str, ...]] = {Group: ("ranks",)}
"""Fields that are ranks, or pids with a minus."""

INSTANTS: dict[type[Record], tuple[str, ...]] = {
    Fact: ("at",),
    _facts.Silences: ("soonest",),
    Begun: ("earliest", "latest"),
    Report: ("raised_at",),
    Sign: ("at",),
}
"""Fields that are instants of the node's monotonic clock."""

PLACES: dict[type[Record], tuple[str, ...]] = {
    _facts.Examined: ("saved",),
    _facts.Mustered: ("saved",),
    _facts.OomSeen: ("group",),
    Left: ("path",),
    Core: ("path",),
}
"""Paths that somebody is to look at, on that machine: `host-b:/dev/shm/x`."""

STATEMENTS: dict[type[Record], tuple[str, ...]] = {
    _facts.Warned: ("statement",),
    _facts.Degraded: ("statement",),
    _facts.MemoryShort: ("statement",),
    _facts.MemoryEased: ("statement",),
}
"""Sentences about that machine: `host-b: the journal is not written any more`."""


class Malformed(ValueError):
    """What came is no fact: the message names the field."""


def to_wire(fact: Fact) -> tuple[str, dict[str, Any]]:
    """Name and data of a fact, for JSON; fields at their default are left out."""
    defaults = type(fact)._defaults  # noqa: SLF001  # the shape of a record is what travels
    told = ((field, getattr(fact, field)) for field in fact._fields)
    return type(fact).__name__, {f: to_data(v) for f, v in told if defaults.get(f, _ALWAYS) != v}


def from_wire(name: Any, data: Any) -> Fact:
    """The fact that `to_wire` told of. Each field is held to its type. Raises `Malformed`; a fact of that name that we do
    not know is one, too. A field that we do not know is ignored.
    """
    kind = FACTS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Malformed(f"there is no fact `{str(name)[:80]}`")
    made: Fact = _record(kind, data, kind.__name__)
    return made


def record_from_wire(kind: type[R], data: Any) -> R:
    """The record of that kind that `to_data` told of, held to its types as a fact is. Raises `Malformed`."""
    made: R = _record(kind, data, kind.__name__)
    return made


def to_world(record: R, first_rank: int, offset: float, node: str, count: int | None = None) -> R:
    """The fact (or noun of one) in the world: local rank 0 is `first_rank` there, the node's clock is `offset` seconds
    before ours, and the machine is called `node`. Raises `Malformed` for a rank that is none of the node's `count`.
    """
    mapped: R = _mapped(record, _World(first_rank, offset, node, count))
    return mapped


_ALWAYS = object()


class _World:
    """What the ranks, instants and places of one node are called in the world."""

    __slots__ = ("_count", "_first", "_node", "_offset")

    def __init__(self, first: int, offset: float, node: str, count: int | None) -> None:
        self._first, self._offset, self._node, self._count = first, offset, node, count

    def rank(self, value: Any) -> Any:
        """One, several, or tuples that begin with one."""
        if isinstance(value, tuple):
            return tuple((self.rank(v[0]), *v[1:]) if isinstance(v, tuple) else self.rank(v) for v in value)
        if value is None:
            return None
        if value < 0 or (self._count is not None and value >= self._count):
            raise Malformed(f"rank {value} of a node that has {'none below 0' if value < 0 else self._count}")
        return value + self._first

    def member(self, value: Any) -> Any:
        """Ranks, and processes that are none: each of those as its pid with a minus."""
        return tuple(each if each < 0 else self.rank(each) for each in value)

    def instant(self, value: Any) -> Any:
        return None if value is None else value - self._offset

    def place(self, value: Any) -> Any:
        return value if not value else f"{self._node}:{value}"

    def statement(self, value: Any) -> Any:
        return f"{self._node}: {value}"


_TABLES = (
    (RANKS, _World.rank),
    (MEMBERS, _World.member),
    (INSTANTS, _World.instant),
    (PLACES, _World.place),
    (STATEMENTS, _World.statement),
)

Plan = tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]
"""Of a kind of record: the fields that stand in a table and what is done with each, and those that hold records for which
that is so.
"""

_plans: dict[type, Plan] = {}


def _plan(kind: type[Record]) -> Plan:
    """A row holds for the kinds below it, too."""
    if kind not in _plans:
        _plans[kind] = (), ()  # one that holds its own kind looks no further
        rows = [
            (f, act) for table, act in _TABLES for base, named in table.items() if issubclass(kind, base) for f in named
        ]
        hints = get_type_hints(kind)
        _plans[kind] = tuple(rows), tuple(f for f in kind._fields if any(map(any, map(_plan, _records(hints[f])))))
    return _plans[kind]


def _records(hint: Any) -> Iterator[type[Record]]:
    """The kinds of records in an annotation."""
    if isinstance(hint, type) and issubclass(hint, Record):
        yield hint
    for part in get_args(hint):
        yield from _records(part)


def _mapped(record: Any, world: _World) -> Any:
    kind = type(record)
    rows, holding = _plans.get(kind) or _plan(kind)
    changes = {field: _within(getattr(record, field), world) for field in holding}
    for field, act in rows:
        changes[field] = act(world, changes[field] if field in changes else getattr(record, field))
    return record.replace(**changes) if changes else record


def _within(value: Any, world: _World) -> Any:
    """Records inside of tuples, at any depth."""
    if isinstance(value, Record):
        return _mapped(value, world)
    if type(value) is tuple:
        return tuple([_within(item, world) for item in value])
    return value


# ── From JSON, each field held to its type ───────────────────────────────────────────────────────────────────────


def _all(kind: type[Fact]) -> dict[str, type[Fact]]:
    found = {kind.__name__: kind}
    for below in kind.__subclasses__():
        found |= _all(below)
    return found


FACTS: dict[str, type[Fact]] = {n: k for n, k in _all(Fact).items() if k not in (Fact, _facts.RankFact)}
"""Every fact by its name."""

Reader = Callable[[Any], Any]
"""Gives the value of a field from JSON. Raises `_Wrong`, or `Malformed` for one within."""

_readers: dict[type, list[tuple[str, Reader, Any, bool]]] = {}


class _Wrong(ValueError):
    """It is not of the field's type."""


def _record(kind: type[Any], data: Any, where: str) -> Any:
    if type(data) is not dict:
        raise Malformed(f"{where}: expected an object")
    if kind not in _readers:
        hints, optional = get_type_hints(kind), kind._defaults  # noqa: SLF001  # the shape of a record is what travels
        _readers[kind] = [(f, _reader(hints[f], f"{where}.{f}"), hints[f], f in optional) for f in kind._fields]
    told = {}
    for field, read, hint, optional in _readers[kind]:
        if field in data:
            try:
                told[field] = read(data[field])
            except _Wrong:
                called = hint.__name__ if isinstance(hint, type) else str(hint)
                raise Malformed(f"{where}: `{field}` is no {called}: {str(data[field])[:80]!r}") from None
        elif not optional:
            raise Malformed(f"{where}: `{field}` is missing")
    return kind(**told)


def _reader(hint: Any, where: str) -> Reader:
    """Made once for each field: annotations are slow to look into, and facts come by the thousand."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = _reader(next(arg for arg in args if arg is not type(None)), where)
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        return _tuple_reader(args, where)
    if hint is float:
        return _float
    if issubclass(hint, Record):
        return lambda value: _record(hint, value, where)
    if issubclass(hint, Enum):
        return _enum_reader(hint)

    def plain(value: Any) -> Any:
        if type(value) is not hint:
            raise _Wrong
        return value

    return plain


def _tuple_reader(args: tuple[Any, ...], where: str) -> Reader:
    each = [_reader(arg, where) for arg in args if arg is not Ellipsis]
    alike = each[0] if args[-1] is Ellipsis else None

    def read(value: Any) -> Any:
        if type(value) is not list or (alike is None and len(value) != len(each)):
            raise _Wrong
        if alike is not None:
            return tuple([alike(item) for item in value])
        return tuple([read(item) for read, item in zip(each, value, strict=True)])

    return read


def _enum_reader(kind: type[Enum]) -> Reader:
    values = {each.value: each for each in kind}

    def read(value: Any) -> Any:
        if type(value) is not str or value not in values:
            raise _Wrong
        return values[value]

    return read


def _float(value: Any) -> float:
    """A finite one; whole seconds may come without a point."""
    if type(value) is not float:
        if type(value) is not int or abs(value) > _EXACT:
            raise _Wrong
        return float(value)
    if not math.isfinite(value):
        raise _Wrong
    return value


_EXACT = 1 << 53
"""Whole numbers beyond it are no seconds, bytes or counts of ours, and a float would not hold them."""
