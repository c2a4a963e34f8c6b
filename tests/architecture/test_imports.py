"""Holds the shape of the package: who may import whom, what the pure parts may not touch, how long a file may be.

Read from the source by AST, so imports inside functions and under TYPE_CHECKING count like any other. The layers are
explained in CONTRIBUTING.md; a unit is a module of `rankguard` or a whole subpackage.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "rankguard"

NOUNS = {
    "record",
    "model",
    "jobspec",
    "facts",
    "orders",
    "errors",
    "case",
    "circumstances",
    "collective",
    "stacks",
    "_version",
}
DRIVER = NOUNS | {"core", "diagnosis", "linux", "launchers", "report", "driver", "wire"}

MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(NOUNS, NOUNS),
    "core": NOUNS,
    "diagnosis": NOUNS,
    "linux": NOUNS,
    "launchers": NOUNS | {"linux", "inside", "nodes"},  # inside: the other half of a function's journey
    "report": NOUNS | {"diagnosis"},
    "wire": NOUNS,
    "private": NOUNS,
    "driver": DRIVER,
    "nodes": (NOUNS - {"orders", "case"}) | {"wire"},  # both ends of a link, and what is told over it
    "supervisor": DRIVER | {"keep", "private", "nodes", "page"},
    "runs": DRIVER | {"runs", "private", "_version", "http", "page"},
    "adopted": DRIVER | {"adopted"},  # drives the core in the caller's thread, for processes that others started
    "lost": DRIVER,  # the front's verdict when nobody else is left to give one
    "page": NOUNS | {"core", "diagnosis", "report"},
    "http": NOUNS | {"core", "diagnosis", "report", "linux", "page"},
    "kept": DRIVER | {"lost"},  # the same, of an engine that was kept
    "warden": set(),
    "keep": {"warden"},  # the rest of the warden, for `--on-lost keep`
    "inside": {"errors"},
}
"""Units that are not listed are doors (the public API, the front, the command line): see `test_doors`."""

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("errors", "report"): "str(RankFailed) is the report's wording, loaded when somebody reads it",
    ("model", "report"): "a notebook's view of a verdict, as above",
    ("warden", "keep"): "loaded while all is well by those wardens alone that may have to keep an engine",
    ("warden", "supervisor"): "in the child that becomes the supervisor; the warden itself loads nothing of ours",
}
"""Allowed against the table, inside a function only."""

IMPURE = {"os", "time", "signal", "subprocess", "threading", "asyncio", "socket", "random", "logging"}
MAX_LINES, AIM_LINES = 500, 300


class Import(NamedTuple):
    """One import: where it stands and the module it names. `lazy`: inside a function or under TYPE_CHECKING."""

    file: Path
    line: int
    unit: str
    target: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.target}"

    @property
    def target_unit(self) -> str:
        """`core` for rankguard.core.machine, `` for rankguard itself."""
        return self.target.split(".")[1] if "." in self.target else ""


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


@cache
def imports() -> tuple[Import, ...]:
    """Every import of the package."""
    return tuple(found for file in files() for found in imports_of(file))


def ours() -> list[Import]:
    """Imports of one unit by another."""
    return [i for i in imports() if i.target.split(".")[0] == "rankguard" and i.target_unit != i.unit]


def imports_of(file: Path) -> Iterator[Import]:
    relative = file.relative_to(PACKAGE).with_suffix("")
    unit = relative.parts[0] if relative.parts != ("__init__",) else ""
    package = ["rankguard", *relative.parts[:-1]]
    for node, lazy in walk(ast.parse(file.read_text()), lazy=False):
        for target in targets(node, package):
            yield Import(file, node.lineno, unit, target, lazy)


def walk(node: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.AST, bool]]:
    """All nodes, each with whether it runs later than the import of its module (or never)."""
    yield node, lazy
    inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    inner = inner or (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"))
    for child in ast.iter_child_nodes(node):
        yield from walk(child, lazy=inner)


def targets(node: ast.AST, package: list[str]) -> Iterator[str]:
    """The modules that a statement imports; relative names resolved, `import_module("…")` included."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        # `from rankguard import model` names a module, `from rankguard.model import Verdict` does not.
        submodules = [f"{module}.{alias.name}" for alias in node.names if is_module(f"{module}.{alias.name}")]
        yield from submodules
        if len(submodules) < len(node.names):
            yield module
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def is_module(name: str) -> bool:
    path = ROOT.joinpath("src", *name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_layers_import_only_what_they_may() -> None:
    wrong = [
        str(i)
        for i in ours()
        if i.unit in MAY_IMPORT
        and i.target_unit not in MAY_IMPORT[i.unit]
        and not (i.lazy and (i.unit, i.target_unit) in EXCEPTIONS)
    ]
    assert wrong == []


def test_doors() -> None:
    """Doors go through the driver, never into the core; none uses the command line, and only drills the test tools."""
    doors = [i for i in ours() if i.unit not in MAY_IMPORT]
    wrong = [str(i) for i in doors if i.target.startswith("rankguard.core.") and i.unit != "testing"]
    wrong += [str(i) for i in doors if i.target_unit == "cli" and i.unit != "__main__"]
    laboratory = [i for i in doors if i.unit in ("drills", "cli") and i.target.startswith("rankguard.testing.faults")]
    wrong += [str(i) for i in doors if i.target_unit == "testing" and i not in laboratory]
    assert wrong == []


def test_a_rank_loads_nothing_of_ours_at_import() -> None:
    """What runs in the user's process must not cost or change it: `inside` imports itself and, when needed, errors."""
    assert [str(i) for i in ours() if i.unit == "inside" and not i.lazy] == []


@pytest.mark.parametrize("unit", ["core", *sorted(NOUNS)])
def test_pure_parts_touch_nothing(unit: str) -> None:
    """The step is deterministic: time, signals and randomness are data, given to it."""
    wrong = [str(i) for i in imports() if i.unit == unit and i.target.split(".")[0] in IMPURE]
    assert wrong == []


def test_what_a_page_is_given_is_made_of_what_was_told() -> None:
    """Facts, verdict and lines in, an object out; only the page itself is read from our own files."""
    pure = [i for i in imports() if i.unit == "page" and i.file.name != "assemble.py"]
    assert [str(i) for i in pure if i.target.split(".")[0] in IMPURE] == []


def test_only_the_standard_library_is_imported() -> None:
    """Anything else stands inside a function, and in docs/dependencies.md with its reason."""
    named = set(re.findall(r"`([\w.-]+)`", (ROOT / "docs" / "dependencies.md").read_text()))
    foreign = [i for i in imports() if i.target.split(".")[0] not in sys.stdlib_module_names | {"rankguard"}]
    assert [str(i) for i in foreign if not i.lazy] == []
    assert [
        f"{i}, which docs/dependencies.md does not name" for i in foreign if i.target.split(".")[0] not in named
    ] == []


def test_files_are_short(capsys: pytest.CaptureFixture[str]) -> None:
    """Aim for 300 lines; at 500 a file has two jobs."""
    lengths = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files()}
    with capsys.disabled():
        for name, lines in lengths.items():
            if AIM_LINES < lines <= MAX_LINES:
                print(f"\n  {name}: {lines} lines, the aim is {AIM_LINES}", end="")
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_module_says_what_it_is() -> None:
    """What it is, what it is not, what to read next."""
    silent = [
        file.relative_to(ROOT).as_posix() for file in files() if not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []
