"""What is asked of Ray for each node, and the words while it cannot be given. Ray itself: `make test-ray`."""

import pytest

from rankguard.errors import UsageError
from rankguard.nodes.rayneeds import SHOWN, Holds, bundle, remedy, standing


def node(name, cpu=8.0, gpu=0.0, free_cpu=None, free_gpu=None):
    total = {"CPU": cpu, "memory": 1e9} | ({"GPU": gpu} if gpu else {})
    free = {"CPU": cpu if free_cpu is None else free_cpu, "GPU": gpu if free_gpu is None else free_gpu}
    return Holds(name=name, total=total, free=free)


@pytest.mark.parametrize(
    ("nproc", "asked", "expected"),
    [
        (8, {}, {"CPU": 8.0}),
        (8, {"GPU": 8}, {"CPU": 8.0, "GPU": 8.0}),
        (8, {"CPU": 1, "GPU": 8, "fast-net": 0.5}, {"CPU": 1.0, "GPU": 8.0, "fast-net": 0.5}),
        (4, {"GPU": 0.5, "CPU": 0}, {"GPU": 0.5}),
        (4, {"CPU": 0}, {"CPU": 0.0001}),
    ],
)
def test_a_bundle(nproc, asked, expected):
    assert bundle(nproc, asked) == expected


def test_ray_splits_one_gpu_and_never_several():
    with pytest.raises(UsageError) as raised:
        bundle(2, {"GPU": 1.5})
    assert raised.value.statement == "`--resources GPU=1.5`: expected a whole number; Ray splits one, never several"


def test_which_bundle_waits_for_what():
    nodes = [node("10.0.0.1", gpu=4.0), node("10.0.0.2", gpu=4.0, free_gpu=1.0), node("10.0.0.3", free_cpu=0.5)]
    needs = {"CPU": 4.0, "GPU": 4.0}
    assert standing(needs, 2, nodes) == (
        "bundle 1 of 2 waits for {CPU: 4, GPU: 4} on a node of its own: alive nodes have free "
        "10.0.0.1 CPU 8 of 8, GPU 4 of 4; 10.0.0.2 CPU 8 of 8, GPU 1 of 4; 10.0.0.3 CPU 0.5 of 8, no GPU"
    )
    assert standing({"CPU": 9.0}, 3, nodes[:1]) == (
        "bundles 0-2 of 3 wait for {CPU: 9} on a node of its own: alive nodes have free 10.0.0.1 CPU 8 of 8"
    )
    assert standing(needs, 2, []) == (
        "bundles 0-1 of 2 wait for {CPU: 4, GPU: 4} on a node of its own: no node of the cluster is alive"
    )
    assert standing({"CPU": 4.0}, 2, nodes) == (
        "bundles 0-1 of 2 wait for a place: Ray has enough for all, and has not answered yet"
    )


def test_of_a_thousand_nodes_some_are_shown():
    told = standing({"GPU": 1.0}, 1, [node(f"10.0.0.{n}") for n in range(1000)])
    assert told.endswith(f"10.0.0.{SHOWN - 1} no GPU; and {1000 - SHOWN} more")


@pytest.mark.parametrize(
    ("needs", "count", "nodes", "hint"),
    [
        ({"GPU": 4.0}, 1, [node("a", gpu=4.0, free_gpu=0.0)],
         "end what else runs on the cluster, or wait longer for it: --join-timeout"),
        ({"CPU": 16.0, "GPU": 4.0}, 2, [node("a", gpu=4.0), node("b", cpu=12.0, gpu=4.0), node("c")],
         "--resources CPU=8, if ranks may share CPUs"),
        ({"GPU": 4.0}, 3, [node("a", gpu=4.0), node("b", gpu=4.0), node("c")], "--nnodes 2, or 1 more such nodes"),
        ({"GPU": 8.0}, 2, [node("a", gpu=4.0)], "nodes with {GPU: 8}, or other `--resources`"),
    ],
)  # fmt: skip
def test_what_to_do(needs, count, nodes, hint):
    assert remedy(needs, count, nodes) == hint
