"""One node's facts as facts of the world: ranks by their number there, instants on the coordinator's clock. Pure.

On a node ranks are numbered from 0 and instants are of its own monotonic clock. What names something that only that
machine has (a path, a statement about it) is told with the machine's name. Left alone, since they have a meaning on one
node only: pids, `Begun.place` (the order in which the kernel told of ends; compare it among ranks of one node).

To add a field that is a rank, an instant or a place: a row here. `tests/nodes/test_mapping.py` walks the annotations of
all facts and of the nouns in them, and fails for a number that is in no table.
"""

import math
import types
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rankguard import facts as _facts
from rankguard.circumstances import Core, GpuHolder, PortUse
from rankguard.collective import Recorded, Remark
from rankguard.facts import Fact
from rankguard.model import Begun, Left, Report, Sign
from rankguard.record import Record, to_data
from rankguard.stacks import Group

F = TypeVar("F", bound=Fact)

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


def to_world(fact: F, first_rank: int, offset: float, node: str, count: int | None = None) -> F:
    """The fact as one of the world: local rank 0 is `first_rank` there, the node's clock is `offset` seconds before ours,
    and the machine is called `node`. Raises `Malformed` for a rank that is none of the node's `count`.
    """
    mapped: F = _mapped(fact, _World(first_rank, offset, node, count))
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
_plans: dict[type, dict[str, Any]] = {}


def _plan(kind: type[Record]) -> dict[str, Any]:
    """What is done with each field of this kind that stands in a table; a row holds for the kinds below it, too."""
    if kind not in _plans:
        _plans[kind] = {
            field: act
            for table, act in _TABLES
            for base, named in table.items()
            if issubclass(kind, base)
            for field in named
        }
    return _plans[kind]


_PLAIN = frozenset((str, int, float, bool, type(None)))


def _mapped(record: Any, world: _World) -> Any:
    plan = _plan(type(record))
    changes = {}
    for field in record._fields:
        value = getattr(record, field)
        new = value if type(value) in _PLAIN else _within(value, world)
        if field in plan:
            new = plan[field](world, new)
        if new is not value:
            changes[field] = new
    return record.replace(**changes) if changes else record


def _within(value: Any, world: _World) -> Any:
    """Records inside of tuples, at any depth. What holds none is given back as it is."""
    if isinstance(value, Record):
        return _mapped(value, world)
    if isinstance(value, tuple):
        new = tuple(v if type(v) in _PLAIN else _within(v, world) for v in value)
        return value if all(a is b for a, b in zip(new, value, strict=True)) else new
    return value


# ── From JSON, each field held to its type ───────────────────────────────────────────────────────────────────────


def _all(kind: type[Fact]) -> dict[str, type[Fact]]:
    found = {kind.__name__: kind}
    for below in kind.__subclasses__():
        found |= _all(below)
    return found


FACTS: dict[str, type[Fact]] = {n: k for n, k in _all(Fact).items() if k not in (Fact, _facts.RankFact)}
"""Every fact by its name."""

_hints: dict[type, dict[str, Any]] = {}


def _record(kind: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise Malformed(f"{where}: expected an object")
    if kind not in _hints:
        _hints[kind] = {f: h for f, h in get_type_hints(kind).items() if f in kind._fields}
    told = {}
    for field, hint in _hints[kind].items():
        if field in data:
            told[field] = _value(hint, data[field], where, field)
        elif field not in kind._defaults:  # noqa: SLF001  # the shape of a record is what travels
            raise Malformed(f"{where}: `{field}` is missing")
    return kind(**told)


def _value(hint: Any, value: Any, where: str, field: str) -> Any:
    if type(value) is hint and hint is not float:
        return value
    if hint is float and type(value) in (int, float):
        return _number(value, where, field)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _value(next(arg for arg in args if arg is not type(None)), value, where, field)
    if origin is tuple and isinstance(value, list):
        inner = args[:1] * len(value) if args[-1] is Ellipsis else args
        if len(inner) == len(value):
            return tuple(_value(i, v, where, field) for i, v in zip(inner, value, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {_value(args[0], k, where, field): _value(args[1], v, where, field) for k, v in value.items()}
    elif isinstance(hint, type) and issubclass(hint, Record):
        return _record(hint, value, f"{where}.{field}")
    elif isinstance(hint, type) and issubclass(hint, Enum) and value in {each.value for each in hint}:
        return hint(value)
    raise Malformed(f"{where}: `{field}` is no {_called(hint)}: {str(value)[:80]!r}")


def _number(value: float, where: str, field: str) -> float:
    try:
        if math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Malformed(f"{where}: `{field}` is no number: {str(value)[:80]}")


def _called(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
