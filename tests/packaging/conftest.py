"""What is built once, in a place without a compiler, and the clean environments that it is installed into."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.packaging.pythons import EXPECTED, Python, pythons

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "env", "uname", "ldd", "cat", "sleep", "git")
"""What a PATH without a compiler has."""


class Built:
    """The files that users install."""

    def __init__(self, folder: Path) -> None:
        (self.wheel,) = folder.glob("*.whl")
        (self.sdist,) = folder.glob("*.tar.gz")


class Clean:
    """A virtual environment that holds what was installed into it, and nothing else."""

    def __init__(self, folder: Path, python: Python, path: str) -> None:
        self.python = python
        self.folder = folder
        self.bin = folder / "bin"
        kept = ("HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
        self.env = {name: value for name, value in os.environ.items() if name in kept or name.startswith("PIP_")}
        self.env |= {"PATH": f"{self.bin}:{path}", "RANKGUARD_HOME": str(folder / "runs"), "LC_ALL": "C.UTF-8"}
        self.env |= {"XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder)}  # no runs of anybody else
        subprocess.run([python.path, "-m", "venv", folder], check=True, env=self.env)

    def install(self, *words: str) -> None:
        pip = [self.bin / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *words]
        done = subprocess.run(pip, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def run(self, *words: str | Path, **more) -> subprocess.CompletedProcess[str]:
        """A program of this environment, far from the sources, every warning an error."""
        env = self.env | {"PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"} | more.pop("env", {})
        return subprocess.run(
            [self.bin / words[0], *words[1:]],
            env=env, capture_output=True, text=True, timeout=400, cwd=self.folder, stdin=subprocess.DEVNULL, **more,
        )  # fmt: skip

    def packages(self) -> list[str]:
        listed = self.run(
            "python",
            "-m",
            "pip",
            "--disable-pip-version-check",
            "list",
            "--format",
            "freeze",
            env={"PYTHONWARNINGS": ""},
        )
        return sorted(line.partition("==")[0].lower() for line in listed.stdout.split())


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH without a compiler."""
    folder = tmp_path_factory.mktemp("path")
    for tool in TOOLS:
        if found := shutil.which(tool):
            (folder / tool).symlink_to(found)
    assert not any(shutil.which(compiler, path=str(folder)) for compiler in ("gcc", "cc", "clang", "c++", "ld"))
    return str(folder)


@pytest.fixture(scope="session")
def build(path: str) -> Callable[..., Built]:
    """Builds wheel and sdist of a folder with the sources, as `python -m build` does."""

    def made(source: Path, out: Path, *, umask: int = 0o022) -> Built:
        env = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
        words = [sys.executable, "-m", "build", "-q", "--outdir", out, source]
        done = subprocess.run(
            words, env=env | {"PATH": path}, capture_output=True, text=True, preexec_fn=lambda: os.umask(umask) and None
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Built(out)

    return made


@pytest.fixture(scope="session")
def built(build: Callable[..., Built], tmp_path_factory: pytest.TempPathFactory) -> Built:
    pytest.importorskip("build", reason="the package `build` is not installed: make test-packaging")
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def environment(path: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Sequence[str]], Clean]:
    """A clean environment of a version with these things in it; each is made once."""
    made: dict[tuple[str, ...], Clean] = {}

    def make(version: str, *installed: str) -> Clean:
        if version not in pythons():
            pytest.skip(f"there is no CPython {version} on this machine; there are {', '.join(sorted(pythons()))}")
        key = (version, *installed)
        if key not in made:
            made[key] = Clean(tmp_path_factory.mktemp(f"venv-{version}-"), pythons()[version], path)
            made[key].install(*installed)
        return made[key]

    return make


@pytest.fixture(params=EXPECTED)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def whole(version: str, built: Built, environment) -> Clean:
    """`pip install rankguard`, wheels only."""
    return environment(version, "--only-binary", ":all:", str(built.wheel))


@pytest.fixture
def alone(version: str, built: Built, environment) -> Clean:
    """The wheel and nothing else."""
    return environment(version, "--no-deps", "--no-index", str(built.wheel))
