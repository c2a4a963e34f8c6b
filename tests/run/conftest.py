"""Fixtures of the tests that run the real command."""

from pathlib import Path

import pytest
from tests.run.command import Ranks


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    """Writes rank programs and runs them."""
    return Ranks(tmp_path)
