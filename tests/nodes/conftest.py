"""One rig of four hosts for all tests here; each test finds it empty and whole, and has to leave it empty."""

from collections.abc import Iterator

import pytest
from tests.nodes.loops import Loop
from tests.nodes.rig import Host, Rig, why_not


@pytest.fixture(scope="session")
def _rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Rig(4, tmp_path_factory.mktemp("rig")) as rig:
        yield rig


@pytest.fixture
def hosts(_rig: Rig) -> Iterator[list[Host]]:
    """host-a to host-d. Whatever still lives in them at the end is a failure, and is killed."""
    yield _rig.hosts
    # One without a command line has ended, and is about to be reaped.
    left = {host.name: {pid: line for pid, line in host.processes().items() if line} for host in _rig.hosts}
    for host in _rig.hosts:
        host.forget()
    assert left == {host.name: {} for host in _rig.hosts}


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Runs real links in this process (`loops.py`)."""
    made = Loop()
    yield made
    made.close()
