"""The plan of a job whose agents Ray places, for `rankguard run --on ray` and `launch(on="ray")` alike. Pure but for a token,
and for the question whether there is a Ray.

Not the placing (`rayplace.py`), and nothing of Ray is imported.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from rankguard.jobspec import NodesPlan

INSTALL = "pip install 'rankguard[ray]'"
PLACER = ("-P", "-m", "rankguard.nodes.rayplace")
"""-P: a `random.py` in the current folder is not Python's."""


def ray_is_missing() -> bool:
    """There is no package `ray` for the program that places agents, which runs under our Python."""
    from importlib.util import find_spec  # asked for with Ray alone

    return find_spec("ray") is None


def ray_plan(
    count: int,
    nproc: int,
    address: str | None,
    resources: Mapping[str, float],
    host: str = "",
    port: int = 0,
    **times: Any,
) -> NodesPlan:
    """`count` nodes with `nproc` ranks each. `resources`: what is set aside on each, by Ray's names of them.

    `host`, `port`: where the coordinator is to be met; empty: at the address by which Ray knows this machine, and at a
    free port. The token is new: whoever places the agents hands it to them.
    """
    settings = {} if not address else {"ray_address": address}
    return NodesPlan(
        count=count,
        nproc=nproc,
        host=host,
        port=port,
        token=os.urandom(32).hex(),
        agent=(sys.executable, *PLACER),
        on="ray",
        settings=settings | ({"resources": json.dumps(dict(resources))} if resources else {}),
        **times,
    )
