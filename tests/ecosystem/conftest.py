"""Programs that nobody here wrote, under `rankguard watch`. `make test-ecosystem` installs them; each test skips by itself."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.ecosystem.engine import Engine


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Engine]:
    """Starts an engine; use it as a block."""

    numbers = count(1)

    def start(*words: str, **more: Any) -> Engine:
        folder = tmp_path / f"engine-{next(numbers)}"
        folder.mkdir()
        return Engine(folder, *words, **more)

    return start
