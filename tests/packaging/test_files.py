"""What is in wheel and sdist, and that two builds are the same to the byte."""

import hashlib
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT, Built

pytestmark = pytest.mark.slow
LEFT_OUT = {".ci"}
"""Of what git keeps: how this project checks itself in one place."""


def in_sdist(built: Built) -> set[str]:
    with tarfile.open(built.sdist) as archive:
        assert all(member.isfile() and not member.uid and not member.gid for member in archive)
        return {name.partition("/")[2] for name in archive.getnames()}


def kept_by_git() -> set[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone: nothing says which files belong to it")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split() if (ROOT / name).exists()}


def test_the_sdist_is_what_git_keeps(built: Built) -> None:
    files, kept = in_sdist(built), kept_by_git()

    assert files - kept == {"PKG-INFO"}
    assert {name for name in kept - files if name.split("/")[0] not in LEFT_OUT} == set()


def test_the_wheel_is_the_package_and_the_man_page(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        files = set(archive.namelist())
        metadata = archive.read(next(name for name in files if name.endswith("/METADATA"))).decode()
        wheel = archive.read(next(name for name in files if name.endswith("/WHEEL"))).decode()
    package = {name for name in files if name.startswith("rankguard/")}
    rest = {name.partition("/")[2] for name in files - package}

    assert package == {name.removeprefix("src/") for name in in_sdist(built) if name.startswith("src/rankguard/")}
    assert {"rankguard/py.typed", "rankguard/schema/verdict-1.json", "rankguard/schema/events-1.json"} <= package
    licences = {name for name in rest if name.startswith("licenses/")}
    assert {Path(name).name for name in licences} == {"LICENSE", "LICENSE-uPlot"}
    assert rest - licences == {"data/share/man/man1/rankguard.1", "METADATA", "WHEEL", "RECORD", "entry_points.txt"}
    assert "Tag: py3-none-any" in wheel
    assert "Requires-Python: >=3.11" in metadata


def test_two_builds_are_the_same(built: Built, build, tmp_path: Path) -> None:
    """In another place, at another time, with another umask; the wheel from the sdist is the one from the clone."""
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in [source, *source.rglob("*")]:
        os.utime(path, (1, 1))
    again = build(source, tmp_path / "dist", umask=0o077)

    for first, second in ((built.wheel, again.wheel), (built.sdist, again.sdist)):
        assert hashlib.sha256(first.read_bytes()).hexdigest() == hashlib.sha256(second.read_bytes()).hexdigest()
