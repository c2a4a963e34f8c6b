"""NVIDIA's Xid numbers: what each means, whose fault it is, and what to do. Data.

Source: NVIDIA, "XID Errors" and its catalogue (the buckets of immediate action: RESTART_APP, RESET_GPU, RESTART_BM,
CONTACT_SUPPORT). A number that is not here is told as it is, and decides nothing. Read next: `gpus.py`.
"""

from typing import NamedTuple

MACHINE, PROGRAM, FOLLOWS = "machine", "program", "follows"


class Xid(NamedTuple):
    """`whose`: `machine`, `program`, or `follows` (it comes after something else, and tells nothing by itself)."""

    meaning: str
    whose: str
    do: str


_RESET = "reset the GPU once nobody uses it (`nvidia-smi -r`)"
_DRAIN = "drain the machine; after a reboot run the vendor's diagnostics (`dcgmi diag -r 3`)"
_DEBUG = "run again with CUDA_LAUNCH_BLOCKING=1, or under `compute-sanitizer`"

XIDS = {
    13: Xid("exception in a kernel (out of bounds, illegal instruction)", PROGRAM, _DEBUG),
    31: Xid("GPU memory page fault (illegal address)", PROGRAM, _DEBUG),
    32: Xid("corrupted push buffer", MACHINE, _DRAIN),
    38: Xid("driver firmware error", MACHINE, _RESET),
    43: Xid("the GPU stopped processing after a fault of the program", PROGRAM, _DEBUG),
    45: Xid("clean-up after an earlier error or a killed program", FOLLOWS, ""),
    48: Xid("uncorrectable ECC error", MACHINE, _RESET),
    61: Xid("internal micro-controller breakpoint", MACHINE, _RESET),
    62: Xid("internal micro-controller halt", MACHINE, _RESET),
    63: Xid("a memory row is to be remapped", FOLLOWS, _RESET),
    64: Xid("remapping a memory row failed", MACHINE, _RESET),
    69: Xid("graphics engine class error", PROGRAM, _DEBUG),
    74: Xid("NVLink error", MACHINE, _DRAIN),
    79: Xid("the GPU has fallen off the bus", MACHINE, _DRAIN),
    92: Xid("high rate of corrected ECC errors", FOLLOWS, _RESET),
    94: Xid("contained ECC error: only this program is affected", MACHINE, _RESET),
    95: Xid("uncontained ECC error", MACHINE, _RESET),
    109: Xid("context switch timed out", MACHINE, _RESET),
    119: Xid("the GPU's system processor (GSP) timed out", MACHINE, _DRAIN),
    120: Xid("the GPU's system processor (GSP) failed", MACHINE, _DRAIN),
    140: Xid("unrecovered ECC error", MACHINE, _RESET),
    143: Xid("the GPU could not be initialised", MACHINE, _DRAIN),
}
