"""Failures on demand, for the examples: an exception, a crash, memory that grows until the kernel's OOM killer comes.

Each has two options, at which step and in which rank: `--raise-at 40 --raise-rank 3`. A training script needs none of it.
"""

import argparse
import ctypes
import mmap

BLOCK_MIB = 16


class Trouble:
    """What shall happen to the rank that runs this; `strike(step)` makes it happen."""

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("failures on demand")
        for what, how in (
            ("raise", "raise an exception"),
            ("grow", "allocate memory until somebody ends it"),
            ("crash", "read from address 0"),
        ):
            group.add_argument(f"--{what}-at", type=int, metavar="STEP", help=f"at this step {how} …")
            group.add_argument(f"--{what}-rank", type=int, metavar="RANK", default=0, help="… in this rank (0)")
        group.add_argument(
            "--grow-most", type=int, metavar="MIB", default=2048, help="give up growing here: there is no limit (2048)"
        )

    def __init__(self, asked: argparse.Namespace, rank: int) -> None:
        self._raise_at = asked.raise_at if asked.raise_rank == rank else None
        self._grow_at = asked.grow_at if asked.grow_rank == rank else None
        self._crash_at = asked.crash_at if asked.crash_rank == rank else None
        self._grow_most = asked.grow_most

    def strike(self, step: int) -> None:
        if step == self._raise_at:
            raise ValueError(f"the loss is not a number at step {step}")
        if step == self._grow_at:
            grow(self._grow_most)
        if step == self._crash_at:
            ctypes.string_at(0)


def grow(most_mib: int) -> None:
    """Hold more and more memory. Returns never: the OOM killer comes, or `most_mib` is reached."""
    held = []
    for _ in range(0, most_mib, BLOCK_MIB):
        block = mmap.mmap(-1, BLOCK_MIB << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block[:: mmap.PAGESIZE] = b"x" * len(range(0, len(block), mmap.PAGESIZE))
        held.append(block)
    raise RuntimeError(f"holds {most_mib} MiB and nobody has ended it: this machine has set no memory limit")
