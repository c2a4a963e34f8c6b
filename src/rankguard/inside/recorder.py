"""What PyTorch's flight recorder in this rank says of its collectives, when one of them has timed out.

Gloo's is on by default from torch 2.8 on and writes no file; NCCL's writes one by itself (`linux/flightrecorder.py`).
Asked only for the last words of a rank that waited in vain: it takes a lock and some milliseconds.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GROUPS, ENTRIES = 16, 8
_WORDS = ("imed out", "imeout", "monitoredBarrier")


def recorded(said: str) -> "list[list[Any]]":
    """For each process group: its name, the numbers of the last collective enqueued and completed, and the last ones as
    number, operation, state. Empty where there is no recorder, or `said` is of no time-out. Raises whatever torch raises.
    """
    dump = getattr(sys.modules.get("torch._C._distributed_c10d"), "_dump_fr_trace_json", None)
    if dump is None or not any(word in said for word in _WORDS):
        return []
    import json

    told = json.loads(dump())
    status = told.get("pg_status") or {}
    groups: dict[str, list[list[Any]]] = {}
    for entry in told.get("entries") or ():
        if not entry.get("is_p2p"):
            name = str(entry["process_group"][0])
            operation = str(entry["profiling_name"]).rpartition(":")[2]
            groups.setdefault(name, []).append([entry["collective_seq_id"], operation[:60], entry.get("state")])
    names = list(dict.fromkeys([*groups, *status]))[-GROUPS:]
    return [
        [
            name[:200],
            (status.get(name) or {}).get("last_enqueued_collective"),
            (status.get(name) or {}).get("last_completed_collective"),
            groups.get(name, [])[-ENTRIES:],
        ]
        for name in names
    ]
