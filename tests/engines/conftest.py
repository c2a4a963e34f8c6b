"""A stage for each test, and the end of everybody who was on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engines.parts import Stage
from tests.watch.engines import Engines


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Where the processes of an engine meet the test."""
    stage = Stage(tmp_path)
    yield stage
    stage.close()


@pytest.fixture
def engines(tmp_path: Path) -> Engines:
    """Watches engines."""
    return Engines(tmp_path)
