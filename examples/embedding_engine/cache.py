"""The host cache: vectors of texts that were asked for before, in memory that is taken when the rank starts.

Engines keep attention's keys and values there, and take it at the start so that a machine with too little memory says so
before it serves. Like those, it is shared out: each rank keeps its columns of every vector. All ranks see the same
batches in the same order, so they agree on what is known without a word about it.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist

BLOCK = 16 << 20


class HostCache:
    """Room for as many vectors as go into `size` bytes a rank; the oldest gives way. `tell` hears how far it is.

    The keys come on top: some 300 bytes for each vector that is kept.
    """

    def __init__(self, size: int, width: int, tell: Callable[..., None]) -> None:
        columns = width // dist.get_world_size()
        self._vectors = torch.empty(size // (4 * columns), columns)
        memory = self._vectors.view(-1).view(torch.uint8)
        for done in range(0, len(memory), BLOCK):
            tell("allocating host cache", done >> 20, len(memory) >> 20)
            memory[done : done + BLOCK] = 0  # the kernel gives a page when it is first written to
        self._places: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._next = self.hits = 0

    def __len__(self) -> int:
        return len(self._places)

    def get(self, ids: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The vectors of `ids`, those that are not known by `compute`. Collective: all ranks call it alike."""
        keys = [key_of(row) for row in ids]
        known = [number for number, key in enumerate(keys) if key in self._places]
        new = [number for number, key in enumerate(keys) if key not in self._places]
        vectors = torch.empty(len(ids), self._vectors.shape[1] * dist.get_world_size())
        if known:
            vectors[known] = self._gathered([self._places[keys[number]] for number in known])
        if new:
            vectors[new] = compute(ids[new])
            for number in new:
                self._keep(keys[number], vectors[number])
        self.hits += len(known)
        return vectors

    def _gathered(self, places: list[int]) -> torch.Tensor:
        mine = self._vectors[places]
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine)
        return torch.cat(parts, dim=1)

    def _keep(self, key: bytes, vector: torch.Tensor) -> None:
        if key in self._places or not len(self._vectors):  # twice in one batch; no room at all
            return
        place = self._next % len(self._vectors)
        self._places.pop(self._keys.get(place, b""), None)
        self._places[key], self._keys[place] = place, key
        self._vectors[place] = vector.chunk(dist.get_world_size())[dist.get_rank()]
        self._next += 1


def key_of(ids: torch.Tensor) -> bytes:
    """The text's own tokens, whatever it was filled up with (`model.PADDING` is 0)."""
    return b",".join(b"%d" % token for token in ids.tolist() if token)
