"""docs/api.md and docs/verdict.md are what the docstrings and the schema make of them, and tell all that a reference must:
every public name, method and attribute, every parameter, every error that a door raises, every field.

`make docs`, or `UPDATE_GOLDEN=1 pytest tests/docs/test_api.py`, writes them anew.
"""

import ast
import builtins
import importlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.makers import maker_of

import rankguard
from rankguard import testing
from rankguard.record import Record

MAKER = maker_of("api")


def callables() -> Iterator[tuple[str, Any, Any]]:
    """(name, function, its class) of everything public that can be called, constructors of values apart."""
    for path, name, value in MAKER.public():
        prefix = ".".join([*path.split(".")[1:], name])
        if not inspect.isclass(value):
            if callable(value):
                yield prefix, value, None
        elif value is not testing.ScriptedRanks:  # its methods are a driver's: launchers/contract.py
            yield from ((f"{prefix}.{method}", function, value) for method, function in MAKER.methods(value))


CALLABLES = {name: (function, kind) for name, function, kind in callables()}
CLASSES = {f"{path}.{name}": value for path, name, value in MAKER.public() if inspect.isclass(value)}


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    if os.environ.get("UPDATE_GOLDEN"):
        MAKER.API.write_text(MAKER.page())
        MAKER.VERDICT.write_text(MAKER.verdict_page())
    return MAKER


def test_the_pages_are_up_to_date(maker: ModuleType) -> None:
    assert maker.page() == maker.API.read_text()
    assert maker.verdict_page() == maker.VERDICT.read_text()


def test_every_public_name_has_its_place(maker: ModuleType) -> None:
    placed = [name for names in maker.DOORS.values() for name in names]
    assert sorted(placed) == sorted(set(rankguard.__all__) - {"__version__"})

    titles = set(re.findall(r"^#{3,4} (.*)$", maker.API.read_text(), re.MULTILINE))
    assert {name for name in CALLABLES if name not in titles} == set()
    assert len(CALLABLES) > 40


def test_every_parameter_is_told() -> None:
    untold = []
    for name, (function, _kind) in CALLABLES.items():
        doc = function.__doc__ or ""
        asked = [each for each in inspect.signature(function).parameters if each not in ("self", "cls")]
        untold += [f"{name}: {each}" for each in asked if f"`{each}`" not in doc] if doc else [name]
    assert untold == []


def test_examples_are_code() -> None:
    # The formatter takes the indentation of a docstring that is nothing but a first line and an example.
    prose = re.sub(r"^```.*?^```", "", MAKER.API.read_text(), flags=re.DOTALL | re.MULTILINE)

    assert re.findall(r"^\w[\w, ]* = .*\(|^(?:with|try|print)\b.*[:)]$", prose, re.MULTILINE) == []


def test_many_parameters_are_a_table() -> None:
    for name, (function, _kind) in CALLABLES.items():
        told = [each for what, each in MAKER.parts(inspect.cleandoc(function.__doc__)) if what == "entry"]
        listed = {word for names, _text in told for word in re.findall(r"`(\w+)`", names)}
        asked = {each for each in inspect.signature(function).parameters if each not in ("self", "cls")}
        assert not listed or listed == asked, name
        assert len(asked) < 3 or listed or "as of `" in function.__doc__, name


def test_every_attribute_is_told() -> None:
    for kind in CLASSES.values():
        attributes_are_told(kind)


def attributes_are_told(kind: Any) -> None:
    assert kind.__doc__
    if kind is rankguard.Verdict:
        return  # the schema tells them
    told = {each for each, _type, doc, _default in MAKER.attributes(kind) if doc}
    if issubclass(kind, Record):
        assert told >= set(kind._fields)
    if kind in MAKER.MADE_BY_USERS:
        given = set(inspect.signature(kind).parameters)
        assert given <= set(re.findall(r"`(\w+)`", kind.__doc__))
    made = vars(kind).get("__init__")
    if inspect.isfunction(made) and not issubclass(kind, Record) and kind is not testing.ScriptedRanks:
        internal = {"ScriptedRun": {"ranks", "driver"}}.get(kind.__name__, set())
        assert set(re.findall(r"self\.([a-z]\w*)(?:: .*?)? = ", inspect.getsource(made))) - told - internal == set()


def test_every_field_of_the_verdict_is_told(maker: ModuleType) -> None:
    assert list(maker.undescribed(json.loads(maker.SCHEMA.read_text()))) == []

    page = maker.VERDICT.read_text()
    assert [field for field in rankguard.Verdict._fields if f"| `{field}` |" not in page] == []


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────

SEEN_BEFORE = {rankguard.Job: {"SpawnFailed"}}
"""By `launch`, which waits until all ranks have started."""
OF_US = {"RankguardBug", "AssertionError"}
"""Faults of ours, which no door can promise not to raise."""

PROMISED = {
    "wait_ready": {"RankFailed", "ReadyTimeout", "UsageError", "OSError"},
    "guard": {"RankFailed", "UsageError", "OSError"},
    "stop": {"UsageError"},
    "launch": {"UsageError", "SpawnFailed"},
    "Job.wait_ready": {"RankFailed", "ReadyTimeout", "UsageError"},
    "Job.wait_ready_async": {"RankFailed", "ReadyTimeout", "UsageError"},
    "Job.wait": {"RankFailed", "ReadyTimeout", "TimeoutError"},
    "Job.close": {"RuntimeError"},
    "Rank.ready": {"TimeoutError", "UsageError"},
    "read_run": {"UsageError"},
}
"""What these are known to raise, whatever the reading of the source below finds."""


def test_every_error_that_it_raises_is_named() -> None:
    unnamed = {}
    for name, (function, kind) in CALLABLES.items():
        doc = f"{function.__doc__} {kind.__doc__ if kind is not None else ''}"
        raised = errors_of(function) - SEEN_BEFORE.get(kind, set()) | PROMISED.get(name, set())
        unnamed[name] = {error for error in raised - OF_US if f"`{error}`" not in doc}
    assert {name: errors for name, errors in unnamed.items() if errors} == {}


def test_the_reading_of_the_source_finds_errors() -> None:
    assert errors_of(rankguard.launch) >= {"UsageError", "SpawnFailed"}
    assert errors_of(rankguard.wait_ready) >= {"UsageError"}
    assert errors_of(rankguard.Job.wait) >= {"TimeoutError", "RankFailed"}
    assert errors_of(rankguard.Rank.ready) >= {"TimeoutError", "UsageError"}
    assert errors_of(testing.Clock.advance) == {"ValueError"}


def errors_of(function: Any) -> set[str]:
    """The errors that the text of a function raises, with those of the functions of ours that it calls by name or as its
    own method, less those that it catches. What is called through a value of another class is not followed.
    """
    return _errors(function.__module__, MAKER._node(function), _class_of(function), frozenset())


def _class_of(function: Any) -> str | None:
    return function.__qualname__.rpartition(".")[0] or None


_seen: dict[tuple[str, str], set[str]] = {}


def _errors(module: str, node: Any, kind: str | None, path: frozenset[tuple[str, str]]) -> set[str]:
    place = (module, f"{kind}.{node.name}")
    if place in path:
        return set()
    if place not in _seen:
        _seen[place] = set().union(*(_raised(module, each, kind, node, path | {place}) for each in node.body))
    return _seen[place]


def _raised(module: str, node: ast.AST, kind: str | None, function: Any, path: Any) -> set[str]:
    def below(nodes: Any) -> set[str]:
        return set().union(*(_raised(module, each, kind, function, path) for each in nodes))

    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef | ast.Name | ast.Constant):
        return set()
    if isinstance(node, ast.Try):
        caught = [each.type for each in node.handlers]
        found = {error for error in below(node.body) if not any(_catches(each, error) for each in caught)}
        return found | below([*node.handlers, *node.orelse, *node.finalbody])
    found = below(ast.iter_child_nodes(node))
    if isinstance(node, ast.Raise) and node.exc is not None:
        named = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        if isinstance(named, ast.Name) and _error(named.id) is not None:
            found.add(named.id)
        elif isinstance(named, ast.Call | ast.Name):
            made = named.func if isinstance(named, ast.Call) else named
            where = _resolve(module, made, kind, function)
            if where is not None and getattr(where[1], "returns", None) is not None:
                found |= {word for word in re.findall(r"\w+", ast.unparse(where[1].returns)) if _error(word)}
    if isinstance(node, ast.Call) and (where := _resolve(module, node.func, kind, function)) is not None:
        found |= _errors(*where, path)
    return found


def _resolve(module: str, called: ast.AST, kind: str | None, function: Any) -> tuple[str, Any, str | None] | None:
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self" and kind:
        found = _defined(module, kind).get(called.attr) if kind in _defined(module) else None
        return (module, found, kind) if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) else None
    if not isinstance(called, ast.Name):
        return None
    if called.id in _defined(module):
        return _entered(module, _defined(module)[called.id])
    home, name = _imported(function).get(called.id) or _imported(_tree(module)).get(called.id) or ("", "")
    return _entered(home, _defined(home)[name]) if home and name in _defined(home) else None


@cache
def _defined(module: str, kind: str | None = None) -> dict[str, Any]:
    """What a module, or a class in it, defines."""
    body = _defined(module)[kind].body if kind else _tree(module).body
    return {each.name: each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


@cache
def _imported(node: Any) -> dict[str, tuple[str, str]]:
    """Name → (module, name there), of ours."""
    places = node.body if isinstance(node, ast.Module) else ast.walk(node)
    found = [each for each in places if isinstance(each, ast.ImportFrom)]
    return {
        alias.asname or alias.name: (each.module, alias.name)
        for each in found
        if (each.module or "").startswith("rankguard")
        for alias in each.names
    }


def _entered(module: str, node: Any) -> tuple[str, Any, str | None] | None:
    """A function, or the constructor of a class."""
    if not isinstance(node, ast.ClassDef):
        return module, node, None
    made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    return (module, made[0], node.name) if made and _error(node.name) is None else None


def _tree(module: str) -> ast.Module:
    if module not in MAKER._trees:
        MAKER._trees[module] = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text())
    return MAKER._trees[module]


def _error(name: str) -> type[BaseException] | None:
    for home in (rankguard, testing, builtins):
        found = getattr(home, name, None) if home is builtins or name in home.__all__ else None
        if inspect.isclass(found) and issubclass(found, BaseException):
            return found
    return None


def _catches(handler: ast.expr | None, error: str) -> bool:
    if handler is None:
        return True
    raised = _error(error)
    names = re.findall(r"\w+", ast.unparse(handler))
    return any(
        caught is not None and raised is not None and issubclass(raised, caught) for caught in map(_error, names)
    )
