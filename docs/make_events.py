# ruff: noqa: INP001, SLF001  # a script, not a package; the shape of a record is what it tells
"""Makes docs/events.md and schema/events-1.json from the facts, the orders and the nouns that they are made of:
`PYTHONPATH=src python docs/make_events.py`.

What a fact or a field means is its docstring, what it is its annotation; only the units of plain names stand here. A test
holds both files to this, and the schema to journals of real runs.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from rankguard import orders  # noqa: E402  # the path comes first
from rankguard.core.machine import JOB_TABLE, RANK_TABLE  # noqa: E402
from rankguard.core.story import VERSION  # noqa: E402
from rankguard.facts import Fact, RankFact  # noqa: E402
from rankguard.jobspec import JobSpec  # noqa: E402
from rankguard.model import Attempt  # noqa: E402
from rankguard.orders import Order  # noqa: E402
from rankguard.record import Record  # noqa: E402

PAGE = ROOT / "docs" / "events.md"
SCHEMA = ROOT / "src" / "rankguard" / "schema" / "events-1.json"
ORDERS = [
    kind for kind in vars(orders).values() if inspect.isclass(kind) and issubclass(kind, Order) and kind is not Order
]
FACTS: list[type[Fact]] = [*JOB_TABLE, *RANK_TABLE]

UNITS = {
    "_s": "s", "_timeout": "s", "_us": "µs", "_bytes": "bytes", "_bytes_s": "bytes/s",
    "at": "s, monotonic", "wall": "s since 1970", "raised_at": "s, monotonic", "soonest": "s, monotonic",
    "since": "s, monotonic", "when": "s, monotonic", "earliest": "s, monotonic", "latest": "s, monotonic",
    "timeout": "s", "grace": "s", "settle": "s", "sample": "s", "restart_window": "s", "restart_delay": "s", "seconds": "s", "uncertainty": "s", "cpu": "CPUs",
    "bytes": "bytes", "total": "bytes", "free": "bytes", "used": "bytes", "core_limit": "bytes",
}  # fmt: skip
"""By the end of a name, or the whole name; other numbers are counts, pids, signals and numbers of things."""
NO_UNITS = {("StatusTold", "total"), ("Progress", "total"), ("Examined", "used")}

HEAD = f"""# The journal: `events.jsonl`

Made by `docs/make_events.py` from `src/rankguard/facts.py`, `orders.py` and the nouns that they are made of; do not edit it
by hand: `make docs` writes it anew. Version: `{VERSION}`. JSON Schema: `rankguard/schema/events-1.json` in the package.

What happened to a run, line by line, in the order in which it became known: each line is one JSON object, written before
anything is done about it. It is read by `rankguard explain`, by [`rankguard.read_run(…).events()`](library.md), and live as
server-sent events from [`/events`](probes.md). A replay of the facts alone reaches the same verdict. Secrets are `***`
([secrets](secrets.md)); environment, arguments and `--redact` expressions are not in it at all.

```python
import json

for line in open("events.jsonl"):
    event = json.loads(line)
    if event.get("fact") == "Exited":
        print(event["at"], event["rank"], event["ending"])
```

## Lines

| line | what |
|---|---|
| `{{"schema": "{VERSION}", "spec": {{…}}}}` | the first one: what was asked for ([`JobSpec`](#jobspec)) |
| `{{"fact": NAME, "at": …, …}}` | what happened: [of the job](#facts-of-a-job), [of one rank](#facts-of-a-rank) |
| `{{"order": NAME, "because": …, …}}` | what was done about the fact before it, and why: [orders](#orders) |
| `{{"note": TEXT}}` | for people: what this machine did not allow, which stacks were taken |
| `{{"failed": {{…}}}}` | an attempt ended here and another one follows ([`Attempt`](#attempt)): ranks, facts and deadlines begin anew |

- Fields at their default are left out of facts and orders, and are there in the objects inside them.
- `at` and every other instant is in seconds of this machine's CLOCK_MONOTONIC; [`JobStarted`](#jobstarted) has the time of day (`wall`) of its own `at`. What a node of several has told is on the coordinator's clock ([`NodeJoined`](#nodejoined)).
- A rank is its number. Of a watched engine 0 is the root process, and [`Joined`](#joined) says who the others are.
- Null is unknown, never a guess.
- The last line may be cut off: of a run that lives, or of one that was killed. After a full disk lines may be missing, and one may be torn.

## What may change

| | within `{VERSION}` |
|---|---|
| the five kinds of lines | stay; others may be added |
| facts and their fields, `Attempt`, the nouns below | stay, with their meaning and unit; facts, fields and values of texts (`how`, `kind`, `basis` …) may be added |
| `spec`: `run_id`, `command`, `nprocs`, `node`, `attempt`, `labels`, `run_dir` | stay |
| the rest of `spec`; orders; notes; the wording of texts | may change with any release: they are for people, and for a replay by the release that wrote them |

Ignore what you do not know. What breaks a reader that does becomes `rankguard.events/2`.
"""

OF_JOB = "## Facts of a job\n\nEach has `at`.\n"
OF_RANK = "## Facts of a rank\n\nEach has `at` and `rank`. Five facts of an ending are kept apart: started (`Spawned`), ready (`Ready`), ended (`Exited`), drained (`OutputClosed`), reaped (`Reaped`).\n"
OF_ORDERS = "## Orders\n\nEach has `because`. An order to many ranks is one order.\n"
OF_NOUNS = "## Nouns\n\nThe objects that stand in these fields.\n"


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────


def page() -> str:
    """The whole page."""
    parts = [HEAD, OF_JOB, *(_described(kind, Fact) for kind in JOB_TABLE)]
    parts += [OF_RANK, *(_described(kind, RankFact) for kind in RANK_TABLE)]
    parts += [OF_ORDERS, "\n".join(_orders()) + "\n"]
    parts += [OF_NOUNS, *(_described(kind, Record) for kind in nouns())]
    return "\n".join(parts).rstrip("\n") + "\n"


def _described(kind: type[Record], base: type[Record]) -> str:
    fields = [field for field in kind._fields if field not in getattr(base, "_fields", ())]
    lines = [f"### {kind.__name__}", "", _said(kind), ""]
    if fields:
        lines += [*_table(("field", "type", "unit", "default", "what"), [_field(kind, field) for field in fields]), ""]
    return "\n".join(lines)


def _field(kind: type[Record], field: str) -> tuple[str, ...]:
    hint = get_type_hints(kind)[field]
    default = _json_text(kind._defaults[field]) if field in kind._defaults else ""
    return f"`{field}`", _type(hint), unit(kind, field), default, _cell(field_docs(kind).get(field, ""))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Columns in which nothing stands are left out."""
    shown = [n for n in range(len(head)) if any(row[n] for row in rows)]
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(cells[n] for n in shown)} |"


def _orders() -> Iterator[str]:
    yield "| order | fields | what |"
    yield "|---|---|---|"
    for kind in ORDERS:
        hints = get_type_hints(kind)
        fields = ", ".join(f"`{f}` {_type(hints[f])}" for f in kind._fields if f != "because")
        yield f"| `{kind.__name__}` | {fields} | {_cell(_said(kind))} |"


def unit(kind: type[Record], field: str) -> str:
    """What a number counts in; empty for what has no unit."""
    if (kind.__name__, field) in NO_UNITS or not _numbers(get_type_hints(kind)[field]):
        return ""
    ends = [end for end in UNITS if end.startswith("_") and field.endswith(end)]
    return UNITS.get(field) or (UNITS[max(ends, key=len)] if ends else "")


def _numbers(hint: Any) -> bool:
    return hint in (int, float) or any(arg in (int, float) for arg in get_args(hint))


def _type(hint: Any) -> str:
    """For people: `list of [Sign](#sign)`, `number or null`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join("null" if arg is NoneType else _type(arg) for arg in args)
    if origin is tuple:
        return f"list of {_type(args[0])}" if args[-1] is Ellipsis else f"[{', '.join(map(_type, args))}]"
    if origin in (dict, Mapping):
        return f"object of {_type(args[1])}"
    if issubclass(hint, Record):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if issubclass(hint, Enum):
        return "one of " + ", ".join(f"`{value.value}`" for value in hint)
    return {int: "integer", float: "number", bool: "boolean", str: "text"}[hint]


def _said(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _json_text(value: Any) -> str:
    if isinstance(value, Record):
        return "empty"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


@cache
def field_docs(kind: type[Record]) -> Mapping[str, str]:
    """The text that stands below a field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]  # a class
    return {
        field.target.id: " ".join(text.value.value.split())  # type: ignore[union-attr]
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@cache
def nouns() -> list[type[Record]]:
    """Every record that a line can hold, besides facts and orders; by name."""
    found: dict[str, type[Record]] = {}
    waiting: list[Any] = [*FACTS, *ORDERS, JobSpec, Attempt]
    while waiting:
        kind = waiting.pop()
        if inspect.isclass(kind) and issubclass(kind, Record):
            if kind not in FACTS and kind not in ORDERS:
                found[kind.__name__] = kind
            waiting += [hint for hint in get_type_hints(kind).values() if hint not in found.values()]
        else:
            waiting += get_args(kind)
    return [found[name] for name in sorted(found)]


# ── The schema ───────────────────────────────────────────────────────────────────────────────────────────────────


def schema() -> str:
    """JSON Schema (2020-12) of one line."""
    kinds = [
        ("schema", {"schema": {"const": VERSION}, "spec": {"$ref": "#/$defs/JobSpec"}}, ["spec"]),
        ("note", {"note": {"type": "string"}}, []),
        ("failed", {"failed": {"$ref": "#/$defs/Attempt"}}, []),
    ]
    known = [("fact", kind) for kind in FACTS] + [("order", kind) for kind in ORDERS]
    told: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:rankguard:events:1",
        "title": "One line of the journal of a run of rankguard (events.jsonl, /events, rankguard.read_run().events())",
        "description": "Facts, orders, fields and kinds of lines that are not known here are ignored; they may be added. Null is unknown. Fields of facts and orders at their default are left out. Made by docs/make_events.py.",
        "type": "object",
        "allOf": [
            *({"if": {"required": [key]}, "then": {"properties": held, "required": more}} for key, held, more in kinds),
            *(
                {
                    "if": {"properties": {key: {"const": kind.__name__}}, "required": [key]},
                    "then": {"$ref": f"#/$defs/{kind.__name__}"},
                }
                for key, kind in known
            ),
        ],
        "$defs": {kind.__name__: _object(kind) for kind in [*FACTS, *ORDERS, *nouns()]},
    }
    rules = [json.dumps(rule) for rule in told.pop("allOf")]
    parts = [f'"{name}": {json.dumps(part, ensure_ascii=False)}' for name, part in told.pop("$defs").items()]
    head = json.dumps(told, indent=1, ensure_ascii=False).removesuffix("\n}")
    return f'{head},\n "allOf": [\n  {_lines(rules)}\n ],\n "$defs": {{\n  {_lines(parts)}\n }}\n}}\n'


def _lines(parts: list[str]) -> str:
    return ",\n  ".join(parts)


def _object(kind: type[Record]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    properties = {}
    for field in kind._fields:
        properties[field] = _schema(hints[field])
        words = [field_docs(kind).get(field, ""), f"[{told}]" if (told := unit(kind, field)) else ""]
        if said := " ".join(filter(None, words)):
            properties[field] = properties[field] | {"description": said}
    return {
        "type": "object",
        "description": _said(kind),
        "properties": properties,
        "required": [field for field in kind._fields if field not in kind._defaults],
    }


def _schema(hint: Any) -> dict[str, Any]:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [{"type": "null"} if arg is NoneType else _schema(arg) for arg in args]}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_schema(arg) for arg in args], "minItems": len(args)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1])}
    if issubclass(hint, Record):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if issubclass(hint, Enum):
        return {"enum": [value.value for value in hint]}
    return {"type": {int: "integer", float: "number", bool: "boolean", str: "string"}[hint]}


if __name__ == "__main__":
    PAGE.write_text(page())
    SCHEMA.write_text(schema())
