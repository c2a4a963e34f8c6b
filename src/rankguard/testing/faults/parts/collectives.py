"""torch's collectives on the CPU (gloo), for real. Needs torch in the ranks' Python."""

from datetime import timedelta
from importlib import import_module
from typing import Any

from rankguard.testing.faults.actor import Actor

PATIENCE_S = 3


def collective_not_joined(actor: Actor) -> None:
    """Has something else to do while the others are in a collective."""
    _meet(actor)
    actor.wait_for_ever()


def others_collective_not_joined(actor: Actor) -> None:
    torch = import_module("torch")
    _meet(actor).all_reduce(torch.ones(4))
    actor.wait_for_ever()


def _meet(actor: Actor) -> Any:
    """`torch.distributed`, with a process group of all ranks."""
    dist = import_module("torch.distributed")

    dist.init_process_group(
        "gloo", init_method=f"file://{actor.folder}/store", rank=actor.rank, world_size=actor.world_size,
        timeout=timedelta(seconds=PATIENCE_S),
    )  # fmt: skip
    return dist
