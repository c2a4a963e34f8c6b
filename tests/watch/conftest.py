"""Fixtures of the tests of `rankguard watch`."""

from pathlib import Path

import pytest
from tests.watch.engines import Engines


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    """Writes engines and watches them."""
    return Engines(tmp_path)
