"""What runs in each rank: load a share of the model, take the host cache, say ready, then compute batch after batch.

Rank 0 hears of a batch from the front, over a socket whose port is in its payload; the others hear of it from rank 0,
by a broadcast. When there is nothing to do all ranks meet once a second: whoever hangs is then silent, and silence is
what `stall_timeout` looks at; whoever has ended breaks the connection.

torch is imported by the function and not by the file: the front imports the file, and needs no torch.
"""

import json
import os
import select
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rankguard

if TYPE_CHECKING:
    import torch

TURN_S = 1.0
"""When the front is silent the ranks meet this often."""


def scheduler(rank: rankguard.Rank, folder: Path, cache_bytes: int, max_tokens: int) -> None:
    """The whole life of a rank. It ends by being told to, or by a failure."""
    began = time.monotonic()
    import torch
    import torch.distributed as dist
    from cache import HostCache
    from model import Model

    torch.set_num_threads(1)
    rank.status("meeting the other ranks")
    dist.init_process_group("gloo")
    model = Model(folder, rank.rank, rank.world_size, tell=rank.status)
    cache = HostCache(cache_bytes, model.width, tell=rank.status)
    door = Door() if rank.rank == 0 else None
    rank.ready(
        {
            "status": "ready",
            "max_tokens": max_tokens,
            "memory_bytes": resident(),
            "loaded_in_s": round(time.monotonic() - began, 3),
            "port": door.port if door else None,
        }
    )
    rank.status("serving")
    with torch.inference_mode():
        while True:
            asked = door.next_batch() if door else None
            ids = told_to_all(asked or [])
            present = torch.ones(1)
            dist.all_reduce(present)
            rank.alive()
            vectors = cache.get(ids, model) if len(ids) else ids
            if asked is not None:
                facts = {"ranks": int(present), "cached": len(cache), "hits": cache.hits}
                door.answer({"vectors": vectors.tolist(), "facts": facts})


class Door:
    """Rank 0's line to the front: one line of JSON for a batch of questions, one for the answers."""

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._line: socket.socket | None = None
        self._lines: Any = None

    def next_batch(self) -> list[list[int]] | None:
        """The token ids of the texts that are asked for; null when nobody has asked within a turn."""
        if not select.select([self._line or self._door], [], [], TURN_S)[0]:
            return None
        if self._line is None:
            self._line, _ = self._door.accept()
            self._lines = self._line.makefile("rb")
            return None
        asked = self._lines.readline()
        if not asked:
            raise ConnectionError("the front has let go of rank 0")
        return json.loads(asked)

    def answer(self, what: dict[str, Any]) -> None:
        assert self._line is not None
        self._line.sendall(json.dumps(what).encode() + b"\n")


def told_to_all(batch: list[list[int]]) -> "torch.Tensor":
    """Rank 0's batch in every rank, as a table: a row for each text, the shorter ones filled up."""
    import torch
    import torch.distributed as dist
    from model import PADDING

    longest = max(map(len, batch), default=0)
    shape = torch.tensor([len(batch), longest])
    dist.broadcast(shape, src=0)
    ids = torch.full(shape.tolist(), PADDING)
    for row, tokens in zip(ids, batch, strict=False):  # of the other ranks there is no batch
        row[: len(tokens)] = torch.tensor(tokens)
    if ids.numel():
        dist.broadcast(ids, src=0)
    return ids


def resident() -> int:
    """Bytes of memory that this process holds now (proc(5), statm)."""
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
