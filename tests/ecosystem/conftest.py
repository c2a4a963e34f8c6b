"""Programs that nobody here wrote, under `rankguard watch`. `make test-ecosystem` installs them; each test skips by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.ecosystem.engine import Engine


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Engine]:
    """Starts an engine; use it as a block."""

    def start(*words: str, **more: Any) -> Engine:
        return Engine(tmp_path, *words, **more)

    return start
