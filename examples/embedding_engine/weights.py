"""A safetensors file, read in slices: a rank holds the part of each tensor that is its own, and no more of it.

The format: eight bytes with the length of a JSON header, the header (tensor → type, shape, first and last byte), the
data. The file is mapped, so a slice of rows reads those rows from the disk, and all ranks share what has been read.
"""

import json
import mmap
from math import prod
from pathlib import Path

import torch


class Weights:
    """Of one model. `weights(name, rows, columns)` is a copy of that part of a tensor of float32."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch maps nothing that is read-only
        size = int.from_bytes(self._bytes[:8], "little")
        self._begin = 8 + size
        self._header = json.loads(self._bytes[8 : self._begin])
        expected = self._begin + max(tensor["data_offsets"][1] for tensor in self._tensors())
        if len(self._bytes) != expected:
            raise ValueError(f"{path} has {len(self._bytes)} bytes, and {expected} are expected: it is not whole")

    def __call__(self, name: str, rows: slice = slice(None), columns: slice = slice(None)) -> torch.Tensor:
        tensor = self._header[name]
        if tensor["dtype"] != "F32":
            raise TypeError(f"{name} is {tensor['dtype']}, and F32 is expected")
        shape, offset = tensor["shape"], self._begin + tensor["data_offsets"][0]
        whole = torch.frombuffer(self._bytes, dtype=torch.float32, count=prod(shape), offset=offset).view(shape)
        return (whole[rows] if len(shape) == 1 else whole[rows, columns]).clone()

    def _tensors(self) -> list[dict]:
        return [tensor for name, tensor in self._header.items() if name != "__metadata__"]
