"""The second part of `make demo` where torch is not: one line, and no failure. Where it is: `tests/torch`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples/embedding_engine/demo.py"


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_it_says_how_to_get_it() -> None:
    ended = subprocess.run([sys.executable, DEMO, "/no/such/python"], capture_output=True, text=True)

    said = "a real engine: `make .venv-torch/.stamp-engine demo` installs torch, and shows examples/embedding_engine"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"\n{said}\n", "")
