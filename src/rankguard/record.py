"""Frozen, slotted records: what facts, orders and the nouns of the model are made of.

Not a general library: the standard `dataclasses` would do the same, but its import and sixty decorated classes cost
about 70 ms, paid twice (front and supervisor) before the first rank is started; these cost about 6
(`docs/decisions/0002-records.md`). Type checkers see them as frozen dataclasses (PEP 681).

Read next: `model.py`, `facts.py`, `orders.py`.
"""

import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, ClassVar, Self, TypeVar, Union, dataclass_transform, get_args, get_origin

T = TypeVar("T")


def _initialiser(made: type, fields: tuple[str, ...], defaults: Mapping[str, Any]) -> Any:
    """An `__init__` that writes through the slots' own descriptors: half the cost of `object.__setattr__`."""
    names: dict[str, Any] = {f"_d_{f}": defaults[f] for f in fields if f in defaults}
    names |= {f"_s_{f}": getattr(made, f).__set__ for f in fields}
    asked = ", ".join(f"{f}=_d_{f}" if f in defaults else f for f in fields)
    lines = "".join(f"    _s_{f}(self, {f})\n" for f in fields) or "    pass\n"
    exec(f"def __init__(self, {asked}):\n{lines}", names)  # noqa: S102  # the text is made of field names of our own classes
    return names["__init__"]


def _annotations(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a class body. From Python 3.14 on it has a function that tells them (PEP 649; 1 is `annotationlib.Format.VALUE`)."""
    told: Mapping[str, Any] | None = body.get("__annotations__")
    if told is None and (tell := body.get("__annotate_func__")) is not None:
        told = tell(1)
    return told or {}


@dataclass_transform(frozen_default=True, eq_default=True)
class RecordType(type):
    """Turns the annotations of a class body into slots and an `__init__`."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> "RecordType":
        own = [field for field, hint in _annotations(body).items() if "ClassVar" not in str(hint)]
        inherited = [field for base in bases for field in getattr(base, "_fields", ())]
        defaults: dict[str, Any] = {}
        for base in bases:
            defaults |= getattr(base, "_defaults", {})
        defaults |= {field: body.pop(field) for field in own if field in body}
        fields = tuple(inherited + own)
        made = super().__new__(cls, name, bases, body | {"__slots__": tuple(own)})
        made._fields, made._defaults = fields, defaults  # type: ignore[attr-defined]  # declared on Record
        made.__init__ = _initialiser(made, fields, defaults)  # type: ignore[misc]  # generated per class, as dataclasses do
        return made


class Record(metaclass=RecordType):
    """Base of all records. Two are equal when their types and all their fields are."""

    _fields: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, Any]]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen; use replace()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        shown = (
            f"{f}={getattr(self, f)!r}" for f in self._fields if getattr(self, f) != self._defaults.get(f, _NOTHING)
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self._values()

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field) for field in self._fields)

    def replace(self, **changes: Any) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{field: getattr(self, field) for field in self._fields} | changes)


_NOTHING = object()


def to_data(value: Any) -> Any:
    """The JSON shape of a record: objects with all its fields, arrays for tuples, strings for enums."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Record):
        told = {field: getattr(value, field) for field in value._fields}
        return {field: v if type(v) in _PLAIN else to_data(v) for field, v in told.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [item if type(item) in _PLAIN else to_data(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_data(item) for key, item in value.items()}
    return value


_PLAIN = frozenset((str, int, float, bool, type(None)))
"""Most values are of these, and of 1,000 ranks there are 20,000: they cost no call."""


def from_data(kind: type[T], data: Any) -> T:
    """The record of type `kind` that `to_data` made `data` from. Fields that `kind` does not know are ignored.

    Raises `TypeError` or `ValueError` when a field is missing or an enum has no such value.
    """
    return kind(
        **{
            field: data[field] if decode is None or data[field] is None else decode(data[field])
            for field, decode in _decoders_of(kind)
            if field in data
        }
    )


_hint_cache: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    if kind not in _hint_cache:
        from typing import get_type_hints  # only replay and read_run need the types themselves

        _hint_cache[kind] = get_type_hints(kind)
    return _hint_cache[kind]


def prepare(kind: type) -> None:
    """Look up the types of all fields, and of theirs, so that the first `from_data` need not."""
    if kind not in _hint_cache:
        for hint in _hints(kind).values():
            for part in (hint, *get_args(hint), *(inner for arg in get_args(hint) for inner in get_args(arg))):
                if isinstance(part, type) and issubclass(part, Record):
                    prepare(part)
        _decoders_of(kind)


_Decode = Callable[[Any], Any]
_decoders: dict[type, tuple[tuple[str, _Decode | None], ...]] = {}


def _decoders_of(kind: type) -> tuple[tuple[str, _Decode | None], ...]:
    """Made once: a journal has hundreds of thousands of facts."""
    found = _decoders.get(kind)
    if found is None:
        hints = _hints(kind)
        found = _decoders[kind] = tuple((field, _decoder(hints[field])) for field in kind._fields)  # type: ignore[attr-defined]
    return found


def _decoder(hint: Any) -> _Decode | None:
    """From the JSON shape of a value to the value; None where they are the same. Null is null in each."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decoder(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return _tuple_decoder(args)
    if origin in (dict, Mapping):
        key, inner = args[0], _or_same(_decoder(args[1]))
        return lambda value: {key(name): inner(item) for name, item in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return lambda value: from_data(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    return None


def _tuple_decoder(args: tuple[Any, ...]) -> _Decode:
    if args[-1] is Ellipsis:
        inner = _decoder(args[0])
        if inner is None:
            return tuple
        each = _or_same(inner)
        return lambda value: tuple(each(item) for item in value)
    all_ = [_or_same(_decoder(arg)) for arg in args]
    return lambda value: tuple(decode(item) for decode, item in zip(all_, value, strict=True))


def _or_same(decode: _Decode | None) -> _Decode:
    if decode is None:
        return lambda value: value
    return lambda value: None if value is None else decode(value)
