"""`launch(on="ray")`, as far as no Ray is needed: what is refused before anything starts. With Ray: tests/ray."""

import queue
import threading

import pytest

import rankguard
from rankguard import UsageError


def nothing(rank, *args):
    """Never run."""


@pytest.fixture
def with_ray(monkeypatch):
    """As if it were installed: nothing here comes so far that it is imported."""
    monkeypatch.setattr("rankguard.nodes.rayplan.ray_is_missing", lambda: False)


@pytest.mark.parametrize(
    ("more", "statement"),
    [
        ({"on": "slurm"}, "on='slurm' is not known"),
        ({"nnodes": 2}, "nnodes=2 expects on='ray'"),
        ({"ray_address": "auto"}, "ray_address and resources expect on='ray'"),
        ({"resources": {"GPU": 1}}, "ray_address and resources expect on='ray'"),
        ({"on": "ray", "nnodes": 0}, "nnodes must be at least 1, not 0"),
        ({"on": "ray", "nnodes": 3, "nprocs": 4}, "nprocs=4 cannot be shared evenly by nnodes=3"),
        ({"on": "ray", "join_timeout": 0}, "join_timeout must be more than 0 seconds, not 0"),
        ({"on": "ray", "args": (threading.Lock(),)}, "args[0] (_thread.lock) cannot travel to the ranks: "),
        ({"on": "ray", "args": ({"q": queue.Queue()},)}, "args[0]['q'] (queue.Queue) cannot travel to the ranks: "),
    ],
)
@pytest.mark.usefixtures("with_ray")
def test_what_is_refused(more, statement):
    with pytest.raises(UsageError) as refused:
        rankguard.launch(nothing, **more)

    assert refused.value.statement.startswith(statement)
    assert refused.value.hint or "nnodes" in more


def test_without_ray_nothing_is_started(monkeypatch):
    monkeypatch.setattr("rankguard.nodes.rayplan.ray_is_missing", lambda: True)
    with pytest.raises(UsageError, match="on='ray' expects the package `ray`") as refused:
        rankguard.launch(nothing, on="ray")
    assert refused.value.hint == "pip install 'rankguard[ray]'"
