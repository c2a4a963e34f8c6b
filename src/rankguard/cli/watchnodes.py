"""`watch --nnodes N`: the same command once on each node; which one this is, and where node 0 is met.

As for `run` (`nodes.py`), but that each node watches an engine of its own, which waits for nobody. The engine's own options
of the same names stand behind `--` and are not looked at. Read next: `watch.py`, docs/watch.md.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from rankguard.cli.nodes import EVERYWHERE, endpoint, is_here, listens_on, number, token
from rankguard.errors import UsageError
from rankguard.jobspec import NodesPlan, Share, WatchPlan

PORT = 29490
"""Not torchrun's 29500, nor 29400: the engine may want these."""


def share(
    asked: SimpleNamespace, watched: WatchPlan, fields: Sequence[str], env: Mapping[str, str]
) -> tuple[Share | None, list[str]]:
    """The part of this node, null for an engine on one machine; and what is to be said. `fields`: of options that mean something
    on several alone. Raises `UsageError`.
    """
    least, count = asked.nnodes if "nnodes" in asked.given else (1, 1)
    if least != count:
        raise UsageError(f"`--nnodes {least}:{count}`: expected one number", f"--nnodes {count}")
    if count == 1:
        unused = [field for field in fields if field in asked.given]
        return None, [f"`--{field.replace('_', '-')}` has no effect without `--nnodes N`" for field in unused]
    if watched.attaches:
        raise UsageError(
            f"`--nnodes {count}`: expected a COMMAND; an engine that is attached to is watched on its own node alone",
            f"rankguard watch --nnodes {count} --rdzv-endpoint HOST:{PORT} -- COMMAND",
        )
    words = SimpleNamespace(
        **vars(asked) | {"nnodes": (count, count)},
        master_addr=None,
        master_port=None,
        written={"node_rank": f"--node-rank {asked.node_rank}"},
    )
    if words.rdzv_endpoint in ("", None):
        words.rdzv_endpoint = None
    elif words.rdzv_endpoint.host in EVERYWHERE:
        raise UsageError(
            f"`--rdzv-endpoint {words.rdzv_endpoint.host}`: expected the address by which other nodes reach node 0",
            f"--rdzv-endpoint HOST:{PORT}",
        )
    met = endpoint(words, env)
    if met is None:
        raise UsageError(
            f"`--nnodes {count}`: expected --rdzv-endpoint too, the address of node 0, on each node",
            f"rankguard watch --nnodes {count} --rdzv-endpoint HOST:{PORT} -- COMMAND",
        )
    words.node_rank = asked.node_rank if "node_rank" in asked.given else None
    node = number(words, env)
    if node is None and is_here(met.host):
        node = 0
    port, name = met.port or PORT, asked.rdzv_id or "none"
    found = Share(
        host=met.host, port=port, count=count, token=token(env, f"watch {name}"), node=node,
        join_timeout=asked.join_timeout, orphan_timeout=asked.orphan_timeout,
    )  # fmt: skip
    if node != 0:
        return found, []
    host = listens_on(met.host)
    plan = NodesPlan(
        count=count, nproc=1, host=host, port=port, token=found.token, watch=watched, join_timeout=asked.join_timeout,
        node_timeout=asked.node_timeout, orphan_timeout=asked.orphan_timeout,
    )  # fmt: skip
    return found.replace(host=host or "127.0.0.1", coordinator=plan), []
