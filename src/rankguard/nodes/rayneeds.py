"""What one node's agent asks of Ray, and what is said while Ray cannot give it: pure, facts in, words out.

Not the placing itself (`rayplace.py`), and nothing of Ray is imported here.
"""

from collections.abc import Mapping, Sequence

from rankguard.errors import UsageError
from rankguard.record import Record

ACCELERATORS = ("GPU", "TPU", "NPU", "HPU", "neuron_cores")
"""Ray's names of what it hands out by number (`ray/_private/accelerators`, 2.60)."""
SHOWN = 16
"""Nodes that a statement lists; a cluster may have thousands."""


class Holds(Record):
    """What one alive node of the cluster has: in all, and not in use by anybody."""

    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]


def bundle(nproc: int, asked: Mapping[str, float]) -> dict[str, float]:
    """What Ray sets aside on each node: `{"CPU": 8.0, "GPU": 8.0}`.

    One CPU for each rank, as Ray counts an actor, unless `asked` (`--resources`) says otherwise. GPUs and all else are
    asked for only where they are named: a job that asks for none sees the GPUs that its own environment lets it see.
    Raises `UsageError`.
    """
    for name in ACCELERATORS:
        amount = asked.get(name, 0)
        if amount > 1 and amount != int(amount):
            raise UsageError(f"`--resources {name}={amount:g}`: expected a whole number; Ray splits one, never several")
    needs = {"CPU": float(nproc)} | {name: float(amount) for name, amount in asked.items()}
    # Ray refuses a bundle of nothing; 0.0001 is the least that it counts.
    return {name: amount for name, amount in needs.items() if amount > 0} or {"CPU": 0.0001}


# ── While it waits ───────────────────────────────────────────────────────────────────────────────────────────────────


def standing(needs: Mapping[str, float], count: int, nodes: Sequence[Holds]) -> str:
    """Which bundles wait, for what, and what each alive node has.

    Bundles are alike and each needs a node of its own, so as many as there are nodes with enough to spare find their
    place, and the last ones wait. (Ray gives none before it can give all.)
    """
    fit = min(sum(_holds(node.free, needs) for node in nodes), count)
    if fit == count:
        return f"{_bundles(range(count), count)} for a place: Ray has enough for all, and has not answered yet"
    if not nodes:
        return f"{_bundles(range(count), count)} for {_amounts(needs)} on a node of its own: no node of the cluster is alive"
    shown = "; ".join(f"{node.name} {_spare(node, needs)}" for node in nodes[:SHOWN])
    more = f"; and {len(nodes) - SHOWN} more" if len(nodes) > SHOWN else ""
    what = f"{_bundles(range(fit, count), count)} for {_amounts(needs)} on a node of its own"
    return f"{what}: alive nodes have free {shown}{more}"


def remedy(needs: Mapping[str, float], count: int, nodes: Sequence[Holds]) -> str:
    """What to do about it."""
    large = sum(_holds(node.total, needs) for node in nodes)
    if large >= count:
        return "end what else runs on the cluster, or wait longer for it: --join-timeout"
    but_cpus = {name: amount for name, amount in needs.items() if name != "CPU"}
    if "CPU" in needs and sum(_holds(node.total, but_cpus) for node in nodes) >= count:
        least = sorted((node.total.get("CPU", 0.0) for node in nodes if _holds(node.total, but_cpus)), reverse=True)
        return f"--resources CPU={least[count - 1]:g}, if ranks may share CPUs"
    if large:
        return f"--nnodes {large}, or {count - large} more such nodes"
    return f"nodes with {_amounts(needs)}, or other `--resources`"


def _holds(has: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    return all(has.get(name, 0.0) >= amount for name, amount in needs.items())


def _bundles(which: range, count: int) -> str:
    named = f"{which[0]}" if len(which) == 1 else f"{which[0]}-{which[-1]}"
    return f"bundle {named} of {count} waits" if len(which) == 1 else f"bundles {named} of {count} wait"


def _amounts(needs: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {_plain(amount)}" for name, amount in needs.items()) + "}"


def _spare(node: Holds, needs: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {_plain(node.free.get(name, 0.0))} of {_plain(node.total[name])}"
        if node.total.get(name)
        else f"no {name}"
        for name in needs
    )


def _plain(amount: float) -> str:
    return f"{amount:.0f}" if amount == int(amount) else f"{amount:.4g}"
