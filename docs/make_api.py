# ruff: noqa: INP001  # a script, not a package
"""Makes docs/api.md and docs/verdict.md: the first of the docstrings of what is public, the second of the JSON Schema and of
the records that it describes. `PYTHONPATH=src python docs/make_api.py`; tests hold both to the source, and the docstrings to
what a reference must tell.

In a docstring a line that begins with a name in backticks and a colon tells of a parameter, up to the next such line or an
empty one; an indented block is an example; all else is text.
"""

import ast
import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import rankguard  # noqa: E402  # the path comes first
from rankguard import testing  # noqa: E402
from rankguard.model import Verdict  # noqa: E402
from rankguard.record import Record  # noqa: E402
from rankguard.testing import faults  # noqa: E402

API = ROOT / "docs" / "api.md"
VERDICT = ROOT / "docs" / "verdict.md"
SCHEMA = ROOT / "src" / "rankguard" / "schema" / "verdict-1.json"

DOORS = {
    "Processes that you started": ("wait_ready", "guard", "Guard", "stop"),
    "Ranks from nothing": ("launch", "Job"),
    "In a rank": ("this_rank", "Rank"),
    "What was": ("read_run", "Run", "Verdict"),
    "Errors": ("UsageError", "SpawnFailed", "RankFailed", "ReadyTimeout", "RankguardBug"),
}
"""The public names of `rankguard`, in the order in which a reader needs them."""

PARTS = (("rankguard.testing", testing), ("rankguard.testing.faults", faults))
MADE_BY_USERS = (testing.Clock, testing.Player, testing.ScriptedRun)
"""Classes that are no values and that a reader makes; the others are made by doors."""
ELSEWHERE = {("rankguard", "__version__"), ("rankguard.testing", "faults")}
"""Public names that have no entry of their own."""

ENTRY = re.compile(r"^((?:`\w+`(?:, )?)+): (.*)")
PAGE = re.compile(r"(?<![\w/`])docs/([\w-]+)\.md")

HEAD = """# The library, name by name

Made by `docs/make_api.py` from the docstrings; do not edit it by hand. What the doors are for, with examples: [library](library.md), [in a rank](ranks.md), [testing](testing.md). What a verdict holds: [verdict](verdict.md).

These names are public, and nothing else is: `rankguard.__all__`, `rankguard.testing.__all__` and `rankguard.testing.faults.__all__`. All is typed (`py.typed`), `import rankguard` loads none of it, and each name needs the standard library only, unless it says so. Durations are seconds, sizes bytes, instants in a verdict ISO 8601 in UTC; None is unknown or unlimited, as is said. `rankguard.__version__` is the version, as text.
"""

# ── docs/api.md ──────────────────────────────────────────────────────────────────────────────────────────────────


def page() -> str:
    """The whole page of names."""
    return "\n".join(_page()).rstrip() + "\n"


def _page() -> Iterator[str]:
    yield HEAD
    for title, names in DOORS.items():
        yield f"## {title}\n"
        for name in names:
            yield from _name(rankguard, name)
    for path, module in PARTS:
        yield f"## {path}\n"
        yield _text((module.__doc__ or "").split("\n\n")[0]) + "\n"
        for name in module.__all__:
            if (path, name) not in ELSEWHERE:
                yield from _name(module, name)


def _name(module: Any, name: str) -> Iterator[str]:
    value = getattr(module, name)
    path = ".".join([*module.__name__.split(".")[1:], name])
    yield f"### {path}\n"
    if inspect.isclass(value):
        yield from _class(value, path)
    elif callable(value):
        yield from _callable(value, name)
    else:
        yield f"{_type_of(value)}. {_text(_doc_of_constant(module, name))}\n"


def _class(kind: type, path: str) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base not in (object, Record)]
    if issubclass(kind, BaseException):
        yield f"Its base: {' and '.join(f'`{base}`' for base in bases)}.\n"
    elif kind in MADE_BY_USERS:
        yield "<!-- no-run: a signature -->"
        yield f"```python\nclass {kind.__name__}:\n    {signature(vars(kind)['__init__'], '__init__')}\n```\n"
    yield from _told(inspect.cleandoc(kind.__doc__ or ""))
    rows = list(attributes(kind))
    if kind is Verdict:
        yield "Its attributes, all of them: [verdict](verdict.md).\n"
    elif rows and issubclass(kind, Record) and kind is not rankguard.Run:
        yield "A value, made with these as arguments; `replace(**changes)` gives the same with others.\n"
        yield from _table(("field", "type (default)", "what it is"), map(_field_cells, rows))
    elif rows:
        yield from _table(
            ("attribute", "type", "what it is"), ([f"`{n}`", f"`{t}`", _in_line(d)] for n, t, d, _ in rows)
        )
    if kind is testing.ScriptedRanks:
        yield "Its methods are those that a driver calls: `launchers/contract.py`.\n"
        return
    for name, method in methods(kind):
        yield f"#### {path}.{name}\n"
        yield from _callable(method, name)


def _field_cells(row: tuple[str, str, str, str]) -> list[str]:
    name, kind, doc, default = row
    return [f"`{name}`", f"`{kind}`" + (f" (`{default}`)" if default else ""), _in_line(doc)]


def _callable(function: Any, name: str) -> Iterator[str]:
    yield "<!-- no-run: a signature -->"
    yield f"```python\n{signature(function, name)}\n```\n"
    yield from _told(inspect.cleandoc(function.__doc__ or ""))


def _told(doc: str) -> Iterator[str]:
    """A docstring as Markdown: parameters become a table where they stand."""
    rows: list[list[str]] = []
    for kind, value in parts(doc):
        if kind == "entry":
            rows.append([value[0], _in_line(value[1])])
            continue
        if rows:
            yield from _table(("parameter", "meaning"), rows)
            rows = []
        yield f"```python\n{value}\n```\n" if kind == "example" else _text(value) + "\n"
    if rows:
        yield from _table(("parameter", "meaning"), rows)


def parts(doc: str) -> Iterator[tuple[str, Any]]:
    """`("text", …)`, `("entry", (names, text))` and `("example", …)`, in order."""
    for block in re.split(r"\n\s*\n", doc):
        lines = block.split("\n")
        if lines and all(line.startswith("    ") for line in lines):
            yield "example", "\n".join(line[4:] for line in lines)
            continue
        before: list[str] = []
        entries: list[tuple[str, list[str]]] = []
        for line in lines:
            if match := ENTRY.match(line):
                entries.append((match[1], [match[2]]))
            elif entries:
                entries[-1][1].append(line.strip())
            else:
                before.append(line)
        if before:
            yield "text", "\n".join(before)
        for names, words in entries:
            yield "entry", (names, " ".join(words))


def signature(function: Any, name: str) -> str:
    """As it is written, one parameter a line where it is long. It compiles."""
    node = _node(function)
    asked = list(_arguments(node.args))
    returns = f" -> {_plain(node.returns)}"
    head = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    whole = f"{head} {name}({', '.join(asked)}){returns}: ..."
    if len(whole) <= 100:
        return whole
    return f"{head} {name}(\n" + "".join(f"    {each},\n" for each in asked) + f"){returns}: ..."


def _arguments(args: ast.arguments) -> Iterator[str]:
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    for arg, default in zip(plain, defaults, strict=True):
        if arg.arg not in ("self", "cls"):
            yield _argument(arg, default)
    if args.vararg is not None:
        yield f"*{_argument(args.vararg, None)}"
    elif args.kwonlyargs:
        yield "*"
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        yield _argument(arg, default)


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    told = arg.arg + (f": {_plain(arg.annotation)}" if arg.annotation is not None else "")
    return told if default is None else f"{told} = {_value(default)}"


def _plain(annotation: ast.expr) -> str:
    """An annotation without the quotes that a name needs which is not known yet."""
    return (
        str(annotation.value) if isinstance(annotation, ast.Constant) and annotation.value else ast.unparse(annotation)
    )


def _value(node: ast.expr) -> str:
    return (
        json.dumps(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
    )


# ── What there is to tell ────────────────────────────────────────────────────────────────────────────────────────


def public() -> Iterator[tuple[str, str, Any]]:
    """(where, name, value) of all that has an entry."""
    for path, module in (("rankguard", rankguard), *PARTS):
        for name in module.__all__:
            if (path, name) not in ELSEWHERE:
                yield path, name, getattr(module, name)


def methods(kind: type) -> Iterator[tuple[str, Any]]:
    """The public ones that the class defines itself, as written, class methods included."""
    for name, value in vars(kind).items():
        if not name.startswith("_"):
            found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
            if inspect.isfunction(found):
                yield name, found


def attributes(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """(name, type, docstring, default): fields, what `__init__` sets without an underscore, and properties."""
    node = _node(kind)
    for statement, after in _with_next(node.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "ClassVar" not in ast.unparse(statement.annotation) and not statement.target.id.startswith("_"):
                default = "" if statement.value is None else _value(statement.value)
                yield statement.target.id, _plain(statement.annotation), _literal(after), default
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            yield from _set_in(statement, kind)
        elif isinstance(statement, ast.FunctionDef) and _is_property(statement):
            kind_of = _plain(statement.returns or ast.Name("Any"))
            yield statement.name, kind_of, ast.get_docstring(statement) or "", ""


def _is_property(function: ast.FunctionDef) -> bool:
    return not function.name.startswith("_") and any(ast.unparse(d) == "property" for d in function.decorator_list)


def _set_in(init: ast.FunctionDef, kind: type) -> Iterator[tuple[str, str, str, str]]:
    types = {arg.arg: ast.unparse(arg.annotation) for arg in init.args.args if arg.annotation is not None}
    for statement, after in _with_next(init.body):
        if isinstance(statement, ast.AnnAssign):
            targets, told = [statement.target], _plain(statement.annotation)
        elif isinstance(statement, ast.Assign):
            targets = [each for t in statement.targets for each in (t.elts if isinstance(t, ast.Tuple) else [t])]
            told = ""
        else:
            continue
        for target in targets:
            name, doc = ast.unparse(target).removeprefix("self."), _literal(after)
            if doc and name.isidentifier() and not name.startswith("_"):
                value = ast.unparse(statement.value) if statement.value is not None else ""
                yield name, told or types.get(value) or TYPES[kind.__name__, name], doc, ""


TYPES = {
    ("Job", "run_id"): "str",
    ("Job", "run_dir"): "str | None",
    ("Job", "nprocs"): "int",
    ("Job", "attempt"): "int",
    ("Job", "http"): "str | None",
    ("Rank", "rank"): "int",
    ("Rank", "local_rank"): "int",
    ("Rank", "world_size"): "int",
    ("Player", "job"): "rankguard.core.job.Job",
    ("ScriptedRun", "clock"): "Clock",
    ("ScriptedRun", "job"): "rankguard.core.job.Job",
}
"""Of attributes that are set to what another one is, where the source need not say it."""


def _with_next(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    return zip(body, [*body[1:], None], strict=True)


def _literal(statement: ast.stmt | None) -> str:
    if (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ):
        return inspect.cleandoc(statement.value.value)
    return ""


_trees: dict[str, ast.Module] = {}


def _node(value: Any) -> Any:
    """The definition of a class or a function; of an overloaded one the last, which is the one that runs."""
    module = value.__module__
    if module not in _trees:
        _trees[module] = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())
    body: list[ast.stmt] = _trees[module].body
    for name in value.__qualname__.split("."):
        found = [
            n for n in body if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name
        ]
        node, body = found[-1], found[-1].body
    return node


def _doc_of_constant(module: Any, name: str) -> str:
    for home, names in module._HOMES.items():  # noqa: SLF001  # our own
        if name in names:
            tree = ast.parse(Path(str(importlib.import_module(f"{module.__name__}.{home}").__file__)).read_text())
            for statement, after in _with_next(tree.body):
                target = (
                    statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
                )
                if isinstance(target, ast.Name) and target.id == name:
                    return _literal(after)
    return ""


def _type_of(value: Any) -> str:
    return "A mapping" if isinstance(value, dict) else f"One of {', '.join(f'`{each}`' for each in value)}"


# ── docs/verdict.md ──────────────────────────────────────────────────────────────────────────────────────────────

VERDICT_HEAD = """# The verdict, field by field

Made by `docs/make_api.py` from `rankguard/schema/verdict-1.json`, which comes with the package; do not edit it by hand.

The same object is `verdict.json` in a run's folder, `rankguard report --json`, `run --report json`, the standard input of `--on-verdict`, `/status` of the [page](probes.md), and, with these names as attributes, `rankguard.Verdict`: `verdict.culprit.cause.kind`. `state.json` has the same shape while the run lives, with `outcome: "running"`.

{about} Instants are ISO 8601 in UTC. The kinds of causes, with what proves each: [causes](causes.md).

```console
$ rankguard report --json | jq '.culprit.rank, .culprit.cause.kind'
```
"""
TITLES = {
    "ending": "How a process ended",
    "memory": "Memory of a rank",
    "exception": "An exception",
    "cause": "A cause",
    "progress": "Progress",
    "culprit": "The culprit",
    "rank": "A row of `ranks`",
}


def verdict_page() -> str:
    """The whole page of the verdict."""
    return "\n".join(_verdict_page()).rstrip() + "\n"


def _verdict_page() -> Iterator[str]:
    schema = json.loads(SCHEMA.read_text())
    yield VERDICT_HEAD.format(about=schema["description"])
    yield "## The object\n"
    yield from _fields(schema, schema)
    for name, found in schema["$defs"].items():
        if "properties" in found:
            yield f"## {TITLES[name]}\n"
            if told := found.get("description"):
                yield f"{told}\n"
            yield from _fields(schema, found)
    for name in ("phase", "confidence"):
        found = schema["$defs"][name]
        yield f"## {name.capitalize()}\n"
        yield f"{found['description']} One of {', '.join(f'`{each}`' for each in found['enum'])}.\n"


def _fields(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[str]:
    yield from _table(("field", "type", "what it is"), _rows(schema, node, ""))


def _rows(schema: dict[str, Any], node: dict[str, Any], before: str) -> Iterator[list[str]]:
    for name, field in node["properties"].items():
        yield [f"`{before}{name}`", _kind(field), _in_line(_described(schema, field))]
        inner = _inner(field)
        if inner is not None:
            yield from _rows(schema, inner[1], f"{before}{name}{inner[0]}.")


def _inner(field: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """An object that is described in place."""
    for each in (field, *field.get("anyOf", ()), *field.get("oneOf", ())):
        if "properties" in each:
            return "", each
        if "properties" in each.get("items", {}):
            return "[]", each["items"]
    return None


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        if name in TITLES:
            return f"[{name}](#{_anchor(TITLES[name])})"
        return "text" if name == "instant" else f"[{name}](#{name})"
    for word in ("anyOf", "oneOf"):
        if word in field:
            return " or ".join(_kind(each) for each in field[word])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join("null" if each is None else f"`{each}`" for each in field["enum"])
    kinds = field.get("type", "any")
    told = [_WORDS.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    if "array" in kinds and "items" in field:
        told[told.index("list")] = f"list of {_kind(field['items'])}"
    return " or ".join(told)


_WORDS = {"string": "text", "integer": "whole number", "array": "list", "boolean": "true or false"}


def _described(schema: dict[str, Any], field: dict[str, Any]) -> str:
    """Its own description, else that of what it refers to."""
    if "description" in field:
        return str(field["description"])
    for each in (field, *field.get("anyOf", ()), *field.get("oneOf", ()), field.get("items", {})):
        if "$ref" in each:
            return str(schema["$defs"][each["$ref"].rpartition("/")[2]].get("description", ""))
        if "description" in each:
            return str(each["description"])
    return ""


def undescribed(schema: dict[str, Any]) -> Iterator[str]:
    """Fields that nothing is said of."""
    for where, node in (("", schema), *schema["$defs"].items()):
        if "properties" in node:
            yield from (f"{where} {row[0]}" for row in _rows(schema, node, "") if not row[2])


# ── Words ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _text(text: str) -> str:
    """Pages that a docstring names become links."""
    return PAGE.sub(r"[\1](\1.md)", text)


def _in_line(text: str) -> str:
    return _text(re.sub(r"(?<!\\)\|", r"\|", " ".join(text.split())))


def _table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\|", cell) for cell in row) + " |"
    yield ""


if __name__ == "__main__":
    API.write_text(page())
    VERDICT.write_text(verdict_page())
