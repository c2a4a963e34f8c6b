"""One rig of four hosts for all tests here; each test finds it empty and whole, and has to leave it empty."""

import time
from collections.abc import Iterator

import pytest
from tests.faults.nest import gone
from tests.nodes.jobs import HANG
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
    until = time.monotonic() + HANG
    left = {host.name: still_there(host, until) for host in _rig.hosts}
    for host in _rig.hosts:
        host.forget()
    assert left == {host.name: {} for host in _rig.hosts}


def still_there(host: Host, until: float) -> dict[int, str]:
    """What lives in a host and does not end: where a front was killed, nobody waits for its warden, which ends by itself."""
    found = host.processes().items()
    return {pid: line for pid, line in found if line and not gone(pid, max(0.0, until - time.monotonic()))}


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Runs real links in this process (`loops.py`)."""
    made = Loop()
    yield made
    made.close()
