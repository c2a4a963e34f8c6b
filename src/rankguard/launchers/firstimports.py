"""What a program imports before it does anything else, read from its text without running any of it.

A rank that is forked finds these modules imported, as it would have them by then: nothing of the program has run before,
so nothing can have been set that they look at. The text is followed in the order in which Python runs it, into files of
the program's own, up to the first statement that might do something: a call, an assignment to an attribute or to an
item (`os.environ[…]`, `sys.path`), a loop, an import under a condition. Whatever comes after that is left to the ranks.

Not `inside/imports.py`, which takes every import of the top level: there the user has asked for a warm start.
"""

import ast
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder

from rankguard.inside.imports import names_in

FILES_MOST = 100
BYTES_MOST = 2 << 20
_NO_EFFECT = frozenset(
    (
        *("bool", "dict", "float", "frozenset", "getattr", "int", "isinstance", "len", "list", "max", "min", "range", "set"),
        *("str", "tuple", "os.getenv", "os.environ.get", "os.path.abspath", "os.path.basename", "os.path.dirname"),
        *("os.path.exists", "os.path.expanduser", "os.path.join", "os.path.realpath", "Path", "pathlib.Path"),
        *("logging.getLogger", "getLogger", "TypeVar", "typing.TypeVar", "namedtuple", "collections.namedtuple"),
        *("dataclass", "dataclasses.dataclass", "field", "dataclasses.field", "functools.wraps", "lru_cache"),
        *("functools.lru_cache", "time.time", "time.perf_counter"),
    )
)  # fmt: skip
"""Calls, and decorators, that change nothing outside of what they give back."""
_DECORATORS = _NO_EFFECT | {
    *("abstractmethod", "abc.abstractmethod", "cached_property", "classmethod", "contextmanager", "contextlib.contextmanager"),
    *("functools.cache", "functools.cached_property", "overload", "property", "staticmethod", "torch.jit.ignore"),
    *("torch.no_grad", "torch.inference_mode", "typing.overload"),
}  # fmt: skip
_IMPORT_FAILS = frozenset(
    {"ImportError", "ModuleNotFoundError", "Exception", "BaseException", "OSError", "RuntimeError"}
)


def _texts_in(tree: ast.Module) -> set[str]:
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {text for text in texts if isinstance(text, str) and text.isidentifier()}


class _Stop(Exception):
    """Here the program does something that may matter to what is imported later."""


class _NotFound(Exception):
    """The import would fail."""


class FirstImports:
    """`modules`: names to import, in the order of the text. `stopped`: `FILE:LINE WHAT`, or null when the text ended."""

    def __init__(self, path: Sequence[str]) -> None:
        """`path`: the ranks' `sys.path`; of it the folders that are not the program's own hold installed packages."""
        self.modules: dict[str, None] = {}
        self.folders: dict[str, list[str]] = {}
        """Of each package that is in `modules`: where it lies."""
        self.stopped: str | None = None
        self.names: set[str] = set()
        """Every name in the files of the program that were read, and every text that is one (`"TORCH_LOGS"`)."""
        self._path = list(path)
        self._own: list[str] = []
        self._seen: set[str] = set()

    def script(self, file: str) -> None:
        """Of a program `python FILE`."""
        self._own = [os.path.dirname(os.path.realpath(file))]
        self._guarded(lambda: self._file(file, main=True))

    def module(self, name: str) -> None:
        """Of a program `python -m NAME` in the current folder."""
        self._own = [os.getcwd()]
        self._guarded(lambda: self._dash_m(name))

    def imported(self, file: str) -> None:
        """Of a file that is imported, as that of a function is."""
        if self.stopped is None:
            self._own = self._own or [os.path.dirname(os.path.realpath(file))]
            self._guarded(lambda: self._file(file, main=False))

    def _guarded(self, walk: Callable[[], None]) -> None:
        try:
            walk()
        except _Stop as stop:
            self.stopped = str(stop)
        except _NotFound as missing:
            self.stopped = f"{missing} is found nowhere"
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            self.stopped = f"its text cannot be read ({type(error).__name__})"

    def _dash_m(self, name: str) -> None:
        spec, local = self._find(name.partition(".")[0])
        parts = name.split(".")
        for depth in range(1, len(parts)):
            if not local:
                self.modules[".".join(parts[:depth])] = None
            elif spec.origin is not None:
                self._file(spec.origin, main=False)
            spec = self._below(spec, parts[depth])
        if spec.submodule_search_locations is not None:
            if not local:
                self.modules[name] = None
            elif spec.origin is not None:
                self._file(spec.origin, main=False)
            spec = self._below(spec, "__main__")
        if spec.origin is None:
            raise _NotFound(name)
        self._file(spec.origin, main=True, package=None if local else name.rpartition(".")[0])

    # ── Files and statements ─────────────────────────────────────────────────────────────────────────────────────

    def _file(self, file: str, *, main: bool, package: str | None = None) -> None:
        """`package`: of an installed file, which relative imports go on from."""
        if file in self._seen:
            return
        self._seen.add(file)
        if not file.endswith(".py") and not main:
            raise _Stop(f"`{os.path.basename(file)}` is no text")
        if len(self._seen) > FILES_MOST:
            raise _Stop(f"it has more than {FILES_MOST} files of its own")
        with open(file, "rb") as text:
            tree = ast.parse(text.read(BYTES_MOST))
        self.names |= names_in(tree) | _texts_in(tree)
        self._run(tree.body, _Place(file, main, package))

    def _run(self, body: Sequence[ast.stmt], place: "_Place") -> None:
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._import(alias.name, [], place)
            elif isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
                if node.level:
                    self._relative(node, names, place)
                else:
                    self._import(node.module or "", names, place)
            elif isinstance(node, ast.Try):
                self._try(node, place)
            elif isinstance(node, ast.If):
                self._if(node, place)
            elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self._define(node, place)
            elif not _does_nothing(node):
                raise place.stop(node)

    def _define(self, node: "ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef", place: "_Place") -> None:
        for each in node.decorator_list:
            if _dotted(each.func if isinstance(each, ast.Call) else each) not in _DECORATORS:
                raise place.stop(node)
        if isinstance(node, ast.ClassDef):
            now = [*node.bases, *(each.value for each in node.keywords)]
        else:
            now = [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        if not all(map(_is_pure, now)):
            raise place.stop(node)
        if isinstance(node, ast.ClassDef):
            self._run(node.body, place)

    def _try(self, node: ast.Try, place: "_Place") -> None:
        try:
            self._run(node.body, place)
            self._run(node.orelse, place)
        except _NotFound:
            caught = [each for each in node.handlers if each.type is None or _names(each.type) & _IMPORT_FAILS]
            if not caught:
                raise
            self._run(caught[0].body, place)
        self._run(node.finalbody, place)

    def _if(self, node: ast.If, place: "_Place") -> None:
        names = _names(node.test)
        if "TYPE_CHECKING" in names and not isinstance(node.test, ast.BoolOp | ast.UnaryOp):
            return self._run(node.orelse, place)
        if "__name__" in names:
            if place.main:
                raise place.stop(node)
            return self._run(node.orelse, place)
        # Which branch will run is not known: nothing may be imported in either but what is there anyway.
        before = dict(self.modules)
        if not _is_pure(node.test):
            raise place.stop(node)
        for branch in (node.body, node.orelse):
            try:
                self._run(branch, place)
            except _NotFound:
                raise place.stop(node) from None
            if self.modules != before:
                self.modules = before
                raise place.stop(node)
        return None

    # ── Imports ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _import(self, name: str, names: list[str], place: "_Place") -> None:
        """`import NAME`, or `from NAME import NAMES`."""
        top = name.partition(".")[0]
        if top == "rankguard":
            return
        if top in sys.builtin_module_names:
            return
        if top in sys.stdlib_module_names and PathFinder.find_spec(top, self._own) is None:
            return
        spec, local = self._find(top)
        if not local:
            self.modules[name] = None
            for each in names:
                if spec.submodule_search_locations and _is_module(spec.submodule_search_locations, name, each):
                    self.modules[f"{name}.{each}"] = None
            return
        for part in (*name.split(".")[1:], None):
            if spec.origin is not None:
                self._file(spec.origin, main=False)
            if part is not None:
                spec = self._below(spec, part)
        self._submodules(spec, names)

    def _relative(self, node: ast.ImportFrom, names: list[str], place: "_Place") -> None:
        if place.package is not None:  # an installed program's own package
            base = place.package.split(".")
            base = base[: len(base) - node.level + 1]
            if not base:
                raise _NotFound("its package")
            return self._import(".".join([*base, *(node.module or "").split(".")]).rstrip("."), names, place)
        folder = os.path.dirname(os.path.abspath(place.file))
        for _ in range(node.level - 1):
            folder = os.path.dirname(folder)
        spec = ModuleSpec("", None, is_package=True)
        spec.submodule_search_locations = [folder]
        for part in filter(None, (node.module or "").split(".")):
            spec = self._below(spec, part)
            if spec.origin is not None:
                self._file(spec.origin, main=False)
        return self._submodules(spec, names)

    def _submodules(self, spec: ModuleSpec, names: list[str]) -> None:
        """Of the program's own package: `from package import name` loads the file of that name, if there is one."""
        for each in names if spec.submodule_search_locations is not None else ():
            below = PathFinder.find_spec(each, spec.submodule_search_locations)
            if below is not None and below.origin is not None:
                self._file(below.origin, main=False)

    def _find(self, top: str) -> tuple[ModuleSpec, bool]:
        """Where Python would find it, and whether that is the program's own."""
        own = PathFinder.find_spec(top, self._own)
        if own is not None and own.origin is not None:
            return own, True
        rest = [entry for entry in self._path if entry not in ("", *self._own)]
        spec = PathFinder.find_spec(top, rest)
        for finder in () if spec is not None else sys.meta_path:  # those of editable packages
            if finder is not PathFinder and (found := getattr(finder, "find_spec", None)) is not None:
                spec = spec or found(top, None)
        if spec is not None and (spec.origin is not None or own is None):
            self.folders[top] = list(spec.submodule_search_locations or ())
            return spec, False
        if own is None:
            raise _NotFound(f"`{top}`")
        return own, True  # a folder of the program's own without `__init__.py`

    def _below(self, spec: ModuleSpec, part: str) -> ModuleSpec:
        found = PathFinder.find_spec(part, spec.submodule_search_locations or [])
        if found is None:
            raise _NotFound(f"`{spec.name}.{part}`")
        return found


class _Place:
    """A file that is being followed."""

    def __init__(self, file: str, main: bool, package: str | None) -> None:
        self.file, self.main, self.package = file, main, package

    def stop(self, node: ast.stmt) -> _Stop:
        return _Stop(f"{os.path.basename(self.file)}:{node.lineno} runs before what is imported after it")


# ── What does nothing ────────────────────────────────────────────────────────────────────────────────────────────


def _does_nothing(node: ast.stmt) -> bool:
    """It leaves no trace outside the module's own names."""
    if isinstance(node, ast.Expr):
        return _is_pure(node.value)
    if isinstance(node, ast.Assign):
        return all(map(_is_name, node.targets)) and _is_pure(node.value)
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return _is_name(node.target) and (node.value is None or _is_pure(node.value))
    return isinstance(node, ast.Pass)


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) or (isinstance(node, ast.Tuple) and all(map(_is_name, node.elts)))


_PURE = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.Starred),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.JoinedStr, ast.FormattedValue, ast.keyword),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)  # fmt: skip


def _is_pure(node: ast.AST) -> bool:
    if isinstance(node, ast.Lambda):
        return True
    if isinstance(node, ast.Call):
        return _dotted(node.func) in _NO_EFFECT and all(map(_is_pure, (*node.args, *node.keywords)))
    return isinstance(node, _PURE) and all(map(_is_pure, ast.iter_child_nodes(node)))


def _dotted(node: ast.expr) -> str:
    """`a.b.c`, or nothing."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return ".".join([node.id, *parts]) if isinstance(node, ast.Name) else ""


def _names(node: ast.expr) -> set[str]:
    return set(_each_name(node))


def _each_name(node: ast.expr) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Attribute):
            yield each.attr


def _is_module(locations: Sequence[str], package: str, name: str) -> bool:
    """`from package import name` takes a module, as far as the folders tell."""
    below = package.split(".")[1:]
    for folder in locations:
        path = os.path.join(folder, *below, name)
        if os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__init__.py")):
            return True
    return False
