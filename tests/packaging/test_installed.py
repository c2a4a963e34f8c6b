"""What users get, installed without a compiler into a clean environment of every CPython that this machine has."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT, Built, Clean

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
CLOSURE = ["markdown-it-py", "mdurl", "py-spy", "pygments", "rankguard", "rich"]
"""All that comes with the command line; the most that it may ever be is 8."""


def ranks(folder: Path) -> str:
    program = folder / "ranks.py"
    program.write_text("import os, sys\nif os.environ['RANK'] == '1': sys.exit(3)\nsys.stdin.read()\n")
    return str(program)


def failed(done: subprocess.CompletedProcess[str]) -> None:
    """Two ranks, of which the second ended with 3."""
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: rank 1 of 2 ended with exit code 3"), done.stderr
    assert re.fullmatch(
        r"rankguard: exit 3 exit-code \w+ rank=1 node=\S+ phase=\w+ run=\w+", done.stderr.splitlines()[-1]
    )


def test_few_packages_come_with_it(whole: Clean) -> None:
    installed = [name for name in whole.packages() if name not in ("pip", "setuptools")]

    assert installed == CLOSURE
    assert len(installed) <= 8


def test_the_command_line(whole: Clean, tmp_path: Path) -> None:
    version = whole.run("rankguard", "--version")
    assert (version.returncode, version.stderr) == (0, "")
    for start in ("exec", "warm"):
        failed(whole.run("rankguard", "run", "-n", "2", "--start", start, ranks(tmp_path)))
    told = whole.run("rankguard", "report")
    assert (told.returncode, told.stderr) == (0, "")
    doctor = whole.run("rankguard", "doctor", "--json")
    assert doctor.stderr == ""
    found = {check["id"]: check["state"] for check in json.loads(doctor.stdout)["checks"]}
    assert found["py-spy"] == "ok", found
    page = whole.run("rankguard", "report", "--html", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr


@pytest.mark.parametrize("drill", ["kill", "oom", "exception", "hang"])
def test_drills(whole: Clean, drill: str) -> None:
    done = whole.run("rankguard", "drill", drill)

    assert done.returncode in (0, 77), done.stdout + done.stderr
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])


def test_every_door(whole: Clean) -> None:
    done = whole.run("python", HERE / "program.py")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("all fork spawn forkserver") or done.stdout.startswith("all forkserver spawn fork")


def test_the_wheel_alone_serves_every_door(alone: Clean) -> None:
    done = alone.run("python", HERE / "program.py")

    assert [name for name in alone.packages() if name not in ("pip", "setuptools")] == ["rankguard"]
    assert (done.returncode, done.stderr) == (0, "")


def test_the_wheel_alone_has_a_plain_command_line(alone: Clean, tmp_path: Path) -> None:
    failed(alone.run("rankguard", "run", "-n", "2", ranks(tmp_path)))
    for words in (("report",), ("explain",), ("runs",), ("doctor",), ("run", "--help"), ("drill",)):
        done = alone.run("rankguard", *words)
        assert (done.returncode in (0, 1), done.stderr) == (True, ""), words


def test_the_sdist_installs_without_a_compiler(version: str, built: Built, environment, tmp_path: Path) -> None:
    clean = environment(version, "--no-deps", str(built.sdist))

    failed(clean.run("rankguard", "run", "-n", "2", ranks(tmp_path)))


def wrong_lines(told: str, file: str) -> set[int]:
    return {int(line) for line in re.findall(rf"{re.escape(file)}:(\d+)", told)}


EXPECTED = {n for n, line in enumerate((HERE / "typed.py").read_text().splitlines(), 1) if line.endswith("# error")}


def test_mypy_reads_the_types(alone: Clean, tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed: make test-packaging")
    words = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", str(tmp_path)]
    done = subprocess.run(
        [*words, "--python-executable", alone.bin / "python", HERE / "typed.py"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip

    assert wrong_lines(done.stdout, "typed.py") == EXPECTED, done.stdout


def test_pyright_reads_the_types(alone: Clean, tmp_path: Path) -> None:
    pytest.importorskip("pyright", reason="pyright is not installed: make test-packaging")
    (tmp_path / "typed.py").write_text((HERE / "typed.py").read_text())
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    words = [sys.executable, "-m", "pyright", "--pythonpath", alone.bin / "python", "typed.py"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)

    assert wrong_lines(done.stdout, "typed.py") == EXPECTED, done.stdout + done.stderr


def test_classifiers_are_what_is_tested() -> None:
    """A version is named once its tests have run: 3.14 has not been seen here."""
    named = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())

    assert named == ["3.11", "3.12", "3.13"]
