"""What a program imports at its top level from installed packages, read from its text without running any of it.

Followed are the program's own files (beside the script, or of the same package): what they import at their top level is
imported with them. Not followed: what is inside functions, behind `if TYPE_CHECKING`, or under `if __name__`. A name is
taken only when the interpreter would find it outside the program's own folders.
"""

import ast
import os
import sys

__rankguard_frame__ = True

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

USED = {"torch._dynamo": frozenset({"DistributedDataParallel", "FullyShardedDataParallel", "fully_shard", "optim"})}
"""Modules that a package imports only when something of it is first used, and by which of its names in a text that can be
told. (torch 2.13: DistributedDataParallel and the optimizers load torch._dynamo and SymPy with it, 1.3 s in every rank.)"""
FILES_MOST = 200
BYTES_MOST = 4 << 20


def find(program: "list[str]") -> "list[str]":
    """Modules to import for the words `SCRIPT ARGS…` or `-m MODULE ARGS…`, in the order of the text."""
    first, own = _start(program)
    if first is None:
        return []
    found: dict[str, None] = {}
    waiting, seen = [first], {first}
    used: set[str] = set()
    while waiting and len(seen) < FILES_MOST:
        path = waiting.pop(0)
        tree = _read(path)
        used |= names_in(tree)
        for name, names in _imports(tree, path):
            local = _local(name, names, own)
            for file in local:
                if file not in seen:
                    seen.add(file)
                    waiting.append(file)
            if not local and _installed(name.partition(".")[0], own):
                found[name] = None
                found.update(dict.fromkeys(f"{name}.{each}" for each in names if _is_module(name, each)))
    found.update(dict.fromkeys(name for name in used_later(found, used) if _is_module(*name.rsplit(".", 1))))
    return list(found)


def used_later(modules: "Iterable[str]", names: "set[str]") -> "list[str]":
    """What packages among `modules` are going to import when the program uses these names of theirs."""
    tops = {module.partition(".")[0] for module in modules}
    return [name for name, by in USED.items() if name.partition(".")[0] in tops and names & by]


def _start(program: "list[str]") -> "tuple[str | None, list[str]]":
    """The first file to read, and the folders in which the program's own files are."""
    if program[0] == "-m":
        top = [entry or os.getcwd() for entry in ["", *sys.path]]
        parts = program[1].split(".")
        for folder in top:
            path = os.path.join(folder, *parts)
            for file in (f"{path}.py", os.path.join(path, "__main__.py")):
                if os.path.isfile(file):
                    return file, [] if _in_packages(file) else [folder]
        return None, []
    script = program[0]
    if os.path.isdir(script):
        return os.path.join(script, "__main__.py"), [script]
    return (script, [os.path.dirname(os.path.realpath(script))]) if os.path.isfile(script) else (None, [])


def _read(path: str) -> ast.Module:
    """The file's text; an empty one when it is not Python."""
    try:
        with open(path, "rb") as file:
            return ast.parse(file.read(BYTES_MOST))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def names_in(tree: ast.Module) -> "set[str]":
    """Every name in the text, inside functions too: what the program is going to use."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.update(node.name.split("."))
    return found


def _imports(tree: ast.Module, path: str) -> "Iterator[tuple[str, list[str]]]":
    """(module, names taken from it) of the statements that run when the file is imported."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, []
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                yield node.module, [alias.name for alias in node.names]
            elif node.level:
                yield from _relative(path, node)
        elif isinstance(node, ast.If):
            if not _is_not_run(node.test):
                waiting[:0] = [*node.body, *node.orelse]
        elif isinstance(node, ast.Try | ast.With):
            waiting[:0] = node.body


def _relative(path: str, node: ast.ImportFrom) -> "Iterator[tuple[str, list[str]]]":
    """`from .x import y`, as the path below the package's folder."""
    folder = os.path.dirname(os.path.abspath(path))
    for _ in range(node.level - 1):
        folder = os.path.dirname(folder)
    base = os.path.join(folder, *(node.module or "").split("."))
    yield base.rstrip("/"), [alias.name for alias in node.names]


def _is_not_run(test: ast.expr) -> bool:
    """`TYPE_CHECKING`, `typing.TYPE_CHECKING` or a comparison of `__name__`."""
    names = {node.id for node in ast.walk(test) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute)}
    return bool(names & {"TYPE_CHECKING", "__name__"})


def _local(name: str, names: "list[str]", own: "list[str]") -> "list[str]":
    """Files of the program itself that this import loads; none when it is not the program's own."""
    bases = [name] if os.path.isabs(name) else [os.path.join(folder, *name.split(".")) for folder in own]
    found = []
    for base in bases:
        for path in (base, *(os.path.join(base, each) for each in names)):
            found += [file for file in (f"{path}.py", os.path.join(path, "__init__.py")) if os.path.isfile(file)]
    return [] if any(_in_packages(file) for file in found) else found


def _in_packages(path: str) -> bool:
    return any(f"{os.sep}{part}{os.sep}" in path for part in ("site-packages", "dist-packages"))


def _installed(top: str, own: "list[str]") -> bool:
    """It comes from site-packages, or wherever an installed package is that no folder of the program holds."""
    if os.path.isabs(top) or not top or top in sys.stdlib_module_names or top == "rankguard":
        return False
    from importlib.machinery import PathFinder

    try:
        spec = PathFinder.find_spec(top, [entry for entry in sys.path if entry not in ("", *own)])
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _is_module(package: str, name: str) -> bool:
    """`from package import name` takes a module, as far as the folders tell."""
    if name == "*":
        return False
    for entry in sys.path:
        path = os.path.join(entry, *package.split("."), name)
        if os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__init__.py")):
            return True
    return False
