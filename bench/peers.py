"""The peers, installed by the bench itself: torch into `.venv-torch`, SGLang's wheel into `.venv-bench`, Open MPI by apt.

Both folders are ignored by git. What cannot be had says why (`NotThere`), and its cells say it, too. With
`install=False` only what is there is used.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from bench.measure import NotThere

ROOT = Path(__file__).parents[1]
SGLANG = "0.5.23"
TORCH = ROOT / ".venv-torch/bin"
FOLDER = ROOT / ".venv-bench"


class Peers:
    """Where each peer is; what is not there is asked for once, and says so each time."""

    def __init__(self, install: bool = True, torch: bool = True) -> None:
        self._install, self._torch = install, torch
        self._found: dict[str, object] = {}

    def torch(self) -> Path:
        """The folder of the programs of an environment with torch, and with rankguard."""
        return self._get("torch", self._find_torch)

    def mpirun(self) -> list[str]:
        """The first words of a command."""
        return self._get("mpirun", self._find_mpirun)

    def sglang(self) -> Path:
        """The folder of the unpacked wheel."""
        return self._get("sglang", self._find_sglang)

    def prepared(self, names: Iterable[str]) -> dict[str, str]:
        """Install these now (`torch`, `mpirun`, `sglang`), not in the middle of a row; their versions, or why not."""
        asked = {
            "torch": lambda: _said(self.torch() / "python", "-c", "import torch; print(torch.__version__)"),
            "mpirun": lambda: f"(Open MPI) {_said(*self.mpirun(), '--version').split()[3]}",
            "sglang": lambda: str(self.sglang()) and SGLANG,
        }
        found = {}
        for name, version in asked.items():
            if name in names:
                try:
                    found[name] = version()
                except NotThere as why:
                    found[name] = f"not there: {why}"
        return found

    def _get(self, name, find):
        if name not in self._found:
            try:
                self._found[name] = find()
            except NotThere as why:
                self._found[name] = why
        found = self._found[name]
        if isinstance(found, NotThere):
            raise found
        return found

    def _find_torch(self) -> Path:
        if not self._torch:
            raise NotThere("left out")
        if not (TORCH.parent / ".stamp").exists():
            self._do("torch", "make", "--no-print-directory", ".venv-torch/.stamp")
        return TORCH

    def _find_mpirun(self) -> list[str]:
        if shutil.which("mpirun") is None:
            if os.getuid() != 0:
                raise NotThere("openmpi-bin is not installed, and only root may do that")
            self._do("openmpi-bin", "apt-get", "install", "-y", "-qq", "--no-install-recommends", "openmpi-bin")
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        return [shutil.which("mpirun") or "mpirun", *root, "--oversubscribe"]

    def _find_sglang(self) -> Path:
        folder = FOLDER / f"sglang-{SGLANG}"
        if not folder.exists():
            FOLDER.mkdir(exist_ok=True)
            words = ("download", "-q", "--no-deps", "--only-binary", ":all:", "-d", FOLDER, f"sglang=={SGLANG}")
            self._do("SGLang", sys.executable, "-m", "pip", "--disable-pip-version-check", *words)
            [wheel] = FOLDER.glob(f"sglang-{SGLANG}-*.whl")
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(folder.with_suffix(".new"))
            folder.with_suffix(".new").rename(folder)
            wheel.unlink()
        return folder

    def _do(self, what: str, *words: object) -> None:
        if not self._install:
            raise NotThere(f"{what} is not installed, and was not to be")
        print(f"installing {what} …", file=sys.stderr)
        done = subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise NotThere(f"{what} could not be installed: {why}")


def _said(*words: object) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    return done.stdout.strip() or "0 0 0 unknown"
