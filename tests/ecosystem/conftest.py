"""Programs that nobody here wrote, under `rankguard`. `make test-ecosystem` installs them; each test skips by itself."""

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.ecosystem.engine import Engine
from tests.torch._runs import Run


@pytest.fixture
def watch(tmp_path: Path) -> Callable[..., Engine]:
    """Starts an engine; use it as a block."""
    return _numbered(tmp_path, "engine", Engine)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    """`run(n, program, …)` starts n ranks of a program; use it as a block."""
    return _numbered(tmp_path, "job", Run)


@pytest.fixture
def orderly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks of torch end as those of `tests/torch` do, and use one thread each, since there are more than processors."""
    import tests.torch.conftest

    monkeypatch.setenv("PYTHONPATH", str(Path(tests.torch.conftest.__file__).parent / "orderly"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def _numbered(folder: Path, name: str, start: Callable[..., Any]) -> Callable[..., Any]:
    """Each in a folder of its own, in which it is started."""
    numbers = count(1)

    def begin(*words: Any, **more: Any) -> Any:
        own = folder / f"{name}-{next(numbers)}"
        own.mkdir()
        return start(own, *words, **({"cwd": own} if start is Run else {}), **more)

    return begin
