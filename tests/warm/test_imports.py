"""What a program imports at its top level is read from its text, and nothing of it runs."""

from pathlib import Path

import pytest

from rankguard.inside.imports import find


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages, on the path: a, b, b.part, b.part.deep."""
    packages = tmp_path / "packages"
    for folder in ("b/part/deep",):
        (packages / folder).mkdir(parents=True)
    for file in ("a.py", "b/__init__.py", "b/part/__init__.py", "b/part/deep/__init__.py", "b/leaf.py"):
        (packages / file).write_text("raise AssertionError('this must not run')")
    monkeypatch.syspath_prepend(str(packages))
    return tmp_path


def found(folder: Path, text: str, **files: str) -> list[str]:
    (folder / "program.py").write_text(text)
    for name, content in files.items():
        (folder / f"{name}.py").write_text(content)
    return find([str(folder / "program.py"), "--a", "b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a", ["a"]),
        ("import a as x, b.part", ["a", "b.part"]),
        ("from b import leaf, name", ["b", "b.leaf"]),
        ("from b.part import deep", ["b.part", "b.part.deep"]),
        ("from b import *", ["b"]),
        ("import os, sys, json", []),
        ("import nowhere_to_be_found", []),
        ("import rankguard", []),
        ("try:\n    import a\nexcept ImportError:\n    import b", ["a"]),
        ("if os.name == 'posix':\n    import a", ["a"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a", []),
        ("if __name__ == '__main__':\n    import a", []),
        ("def main():\n    import a", []),
        ("import a\nimport a.b\nthis is no Python", []),
        ("\0", []),
        ("", []),
    ],
)
def test_top_level(path: Path, text: str, expected: list[str]) -> None:
    assert found(path, text) == expected


def test_the_programs_own_files_are_followed(path: Path) -> None:
    assert found(path, "import own\nimport b", own="import a\nimport own") == ["b", "a"]


def test_a_file_of_the_programs_own_hides_a_package(path: Path) -> None:
    assert found(path, "import a", a="import b") == ["b"]


def test_a_module_of_a_package_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = path / "own"
    (own / "pack").mkdir(parents=True)
    (own / "pack/__init__.py").write_text("")
    (own / "pack/train.py").write_text("from . import tools\nimport b")
    (own / "pack/tools.py").write_text("import a")
    monkeypatch.chdir(own)
    assert find(["-m", "pack.train", "x"]) == ["b", "a"]


def test_nothing_there(path: Path) -> None:
    assert find([str(path / "gone.py")]) == []
    assert find(["-m", "no.such.module"]) == []


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("import torch\nprint(torch.ones(1))", []),
        ("import torch\nimport re\nre.compile('x')", []),
        ("from torch.nn.parallel import DistributedDataParallel", ["torch._dynamo"]),
        ("import torch\ndef train():\n    return torch.optim.SGD([])", ["torch._dynamo"]),
        ("from torch import optim", ["torch._dynamo"]),
        ("import optim", []),
    ],
)
def test_what_torch_imports_when_it_is_used(path: Path, text: str, more: list[str]) -> None:
    for name in (
        "torch/__init__.py",
        "torch/nn/__init__.py",
        "torch/nn/parallel/__init__.py",
        "torch/_dynamo/__init__.py",
    ):
        (path / "packages" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "packages" / name).write_text("raise AssertionError('this must not run')")

    assert [name for name in found(path, text) if name == "torch._dynamo"] == more
