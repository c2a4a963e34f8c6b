"""Every Python that these tests start ends in an orderly way: `orderly/sitecustomize.py` says why, and how."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _orderly(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "orderly"))
