"""Cells of the matrix on a kernel whose memory controller is cgroup2's, and that has no PIDFD_GET_INFO (`make test-uml`).

Each gets a group that holds its own process and one that is the job's, as a container or a systemd unit has; for
nobody they are delegated.
"""

import os

import pytest
from tests.matrix.axes import asked
from tests.matrix.page import wrong
from tests.matrix.runner import run
from tests.others import why_no_stranger

CELLS = (
    "oom-own-group/all-ready/exec/own/root",
    "oom-own-group/starting/exec/own/nobody",  # delegation
    "oom-victim-not-grower/starting/exec/own/root",
    "oom-victim-not-grower/all-ready/exec/ro/root",
    "oom-child/all-ready/exec/own/root",
    "kill/ready-early/exec/own/nobody",
    "exception/stopping/exec/ro/nobody",
    "fork-bomb/all-ready/exec/own/root",  # ended by cgroup.kill
)


@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cgroup.controllers"), reason="the memory controller is not cgroup2's"
)
@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str) -> None:
    if name.endswith("nobody") and (reason := why_no_stranger()):
        pytest.skip(reason)
    (result,) = run(asked([name]), 1)

    assert result.why_not is None
    assert not result.wrong, wrong([result]) + "\n" + result.said
