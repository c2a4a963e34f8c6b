"""What a program imports before it does anything else: the order of the text, and where it ends."""

import sys
from pathlib import Path

import pytest

from rankguard.launchers.firstimports import FirstImports


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Installed packages: a, b, b.part, b.leaf, c."""
    packages = tmp_path / "packages"
    (packages / "b/part").mkdir(parents=True)
    for file in ("a.py", "c.py", "b/__init__.py", "b/part/__init__.py", "b/leaf.py"):
        (packages / file).write_text("raise AssertionError('this must not run')")
    (tmp_path / "own").mkdir()
    return tmp_path


def first(path: Path, text: str, **files: str) -> tuple[list[str], str | None]:
    for name, content in (files | {"program": text}).items():
        file = path / "own" / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    found = FirstImports([str(path / "packages"), *sys.path])
    found.script(str(path / "own/program.py"))
    return list(found.modules), found.stopped


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("'''doc'''\nfrom __future__ import annotations\nimport os, sys, a as x\nimport b.part", ["a", "b.part"]),
        ("from b import leaf, name\nfrom b.part import thing", ["b", "b.leaf", "b.part"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nimport b", ["b"]),
        ("try:\n    import a\nexcept ImportError:\n    a = None\nimport b", ["a", "b"]),
        ("try:\n    import nowhere\nexcept ImportError:\n    nowhere = None\nimport b", ["b"]),
        ("try:\n    import nowhere\nexcept (ImportError, OSError):\n    import c\nimport b", ["c", "b"]),
        ("import a\nLR, N = 1e-3, 2 ** 4\nlog = logging.getLogger(__name__)\nimport b", ["a", "b"]),
        ("import a\nimport os\nRANK = int(os.environ['RANK'])\nimport b", ["a", "b"]),
        ("import a\ndef f(x=1): import c; c.now()\n@dataclass\nclass C(a.B):\n    x: int = field(default=1)\nimport b", ["a", "b"]),
        ("import a\nx = lambda: go()\nimport b", ["a", "b"]),
        ("import rankguard\nimport a", ["a"]),
        ("import a\nif a.cond:\n    import json\nelse:\n    x = 1\nimport b", ["a", "b"]),
    ],
)  # fmt: skip
def test_what_does_nothing_is_passed_over(path: Path, text: str, modules: list[str]) -> None:
    assert first(path, text) == (modules, None)


@pytest.mark.parametrize(
    "statement",
    [
        "os.environ['X'] = '1'",
        "os.environ.setdefault('X', '1')",
        "os.putenv('X', '1')",
        "del os.environ['X']",
        "sys.path.insert(0, '..')",
        "sys.path += ['..']",
        "sys.path[:0] = ['..']",
        "warnings.filterwarnings('ignore')",
        "multiprocessing.set_start_method('spawn')",
        "a.backends.tf32 = True",
        "from gevent import monkey; monkey.patch_all()",
        "main()",
        "X = a.zeros(3)",
        "for x in y: pass",
        "while False: pass",
        "with open('x') as f: pass",
        "assert a.version",
        "raise SystemExit",
        "exec('import c')",
        "if go(): pass",
        "if a.cond:\n    import c",
        "if sys.version_info >= (3, 11):\n    import nowhere",
        "if __name__ == '__main__':\n    main()",
        "@a.register\ndef f(): pass",
        "class C(a.make()): pass",
        "class C:\n    x = a.zeros(3)",
        "def f(x=a.zeros(3)): pass",
        "try:\n    go()\nexcept ImportError:\n    pass",
        "[go() for x in y]",
        "(lambda: go())()",
        "f'{go()}'",
        "async def f(): pass\nimport asyncio; asyncio.run(f())",
        "match a.x:\n    case 1: pass",
        "global_name: int = go()",
    ],
)
def test_what_might_do_something_ends_it(path: Path, statement: str) -> None:
    (path / "packages/gevent.py").write_text("")
    modules, stopped = first(path, f"import a\n{statement}\nimport b")

    assert "a" in modules
    assert not {"b", "c"} & set(modules)
    assert str(stopped).startswith("program.py:")


def test_the_programs_own_files_are_followed_in_the_order_in_which_they_run(path: Path) -> None:
    assert first(path, "import own\nimport c", own="import b\nimport more", more="import a") == (["b", "a", "c"], None)
    modules, stopped = first(path, "import own\nimport c", own="import b\nimport more", more="import a\ngo()")
    assert modules == ["b", "a"]
    assert stopped == "more.py:2 runs before what is imported after it"


def test_a_package_of_the_programs_own(path: Path) -> None:
    own = path / "own/pack"
    own.mkdir()
    (own / "__init__.py").write_text("import a")
    (own / "net.py").write_text("from . import deep\nfrom .deep import x\nif __name__ == '__main__': go()")
    (own / "deep.py").write_text("import b")

    assert first(path, "from pack.net import Net\nimport c") == (["a", "b", "c"], None)


def test_a_file_of_the_programs_own_goes_before_a_package(path: Path) -> None:
    assert first(path, "import a\nimport queue", a="import b", queue="import c") == (["b", "c"], None)


def test_a_folder_of_the_programs_own_does_not(path: Path) -> None:
    (path / "own/b").mkdir()
    assert first(path, "import b") == (["b"], None)


@pytest.mark.parametrize("text", ["import (", "\0", "import nowhere"])
def test_what_cannot_be_read_or_found(path: Path, text: str) -> None:
    modules, stopped = first(path, text)

    assert modules == []
    assert stopped is not None


def test_a_module_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = path / "own/pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("import a")
    (pack / "train.py").write_text("from . import tools\nimport c")
    (pack / "tools.py").write_text("import b")
    (pack / "__main__.py").write_text("import c")
    monkeypatch.chdir(path / "own")
    told = []
    for name in ("pack.train", "pack", "b.part", "no.such"):
        found = FirstImports([str(path / "packages"), *sys.path])
        found.module(name)
        told.append((list(found.modules), found.stopped is None))

    assert told == [(["a", "b", "c"], True), (["a", "c"], True), (["b", "b.part"], False), ([], False)]


def test_what_a_function_needs_is_imported_and_not_run(path: Path) -> None:
    for name, text in (("main", "import a\nif __name__ == '__main__': go()"), ("module", "import b")):
        (path / f"own/{name}.py").write_text(text)
    found = FirstImports([str(path / "packages"), *sys.path])
    found.imported(str(path / "own/main.py"))
    found.imported(str(path / "own/module.py"))

    assert (list(found.modules), found.stopped) == (["a", "b"], None)
