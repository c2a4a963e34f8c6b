"""Memory that runs out: for the kernel, which kills; for the allocator, which says no; on a GPU, whose library says so."""

import mmap
import os
import resource
import signal
import time
from contextlib import suppress

from rankguard.linux.hierarchies import own_groups
from rankguard.testing.faults.actor import Actor

STEP = 4 << 20
ROOM = 96 << 20
"""What a rank may take beyond what it has, in its own group."""
HELD = 240 << 20
"""What the victim holds that is not the grower: more than the grower can get."""


def fill(size: int, kept: list[mmap.mmap], pause: float = 0.0) -> None:
    """Takes memory and touches it, a step after another, with `pause` seconds between them."""
    for _ in range(0, size, STEP):
        block = mmap.mmap(-1, STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block[::4096] = b"x" * (STEP // 4096)
        kept.append(block)
        time.sleep(pause)


def oom_own_group(actor: Actor) -> None:
    """Grows beyond the limit of a group that holds this rank alone."""
    limit_own_group(actor)
    fill(1 << 40, [])


def limit_own_group(actor: Actor) -> None:
    """A limit for the memory group that rankguard has made for this rank."""
    groups = own_groups()
    own = groups.get("memory") or groups["v2"]
    if not own.path.endswith(f"/rank-{actor.rank}"):
        raise RuntimeError(f"this rank has no memory group of its own, it is in {own.path}")
    v2 = "memory" not in groups
    with open(f"{own.path}/{'memory.current' if v2 else 'memory.usage_in_bytes'}") as file:
        used = int(file.read())
    with open(f"{own.path}/{'memory.max' if v2 else 'memory.limit_in_bytes'}", "w") as file:
        file.write(str(used + ROOM))
    with suppress(OSError), open(f"{own.path}/{'memory.swap.max' if v2 else 'memory.swappiness'}", "w") as file:
        file.write("0")


def oom_victim_not_grower(actor: Actor) -> None:
    """Holds most, and does not grow any more; somebody else does."""
    kept: list[mmap.mmap] = []
    fill(HELD, kept)
    actor.tell("filled")
    actor.wait_for_ever()


def others_oom_victim_not_grower(actor: Actor) -> None:
    """The first of the others takes what is left, and more; not all that the victim had before it is stopped itself."""
    if actor.rank == min({0, 1} - {actor.victim}):
        actor.wait("filled")
        fill(1 << 40, [], pause=0.02)
    actor.wait_for_ever()


def oom_child(actor: Actor) -> None:
    """A worker of the rank is killed; the rank says so as torch's DataLoader does, and fails."""
    limit_own_group(actor)
    worker = os.fork()
    if worker == 0:
        fill(1 << 40, [])
        os._exit(0)
    _pid, status = os.waitpid(worker, 0)
    if os.WIFSIGNALED(status):
        name = signal.strsignal(os.WTERMSIG(status))
        raise RuntimeError(
            f"DataLoader worker (pid {worker}) is killed by signal: {name}. "
        )  # torch/utils/data/_utils/signal_handling.py


def memory_limit(_actor: Actor) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    bytearray(2 << 30)


def memory_error(_actor: Actor) -> None:
    """Asks for more than any machine has; no limit is set."""
    bytearray(1 << 60)


class OutOfMemoryError(RuntimeError):
    """torch's class of that name, where torch is not installed."""


OutOfMemoryError.__module__ = "torch"

CUDA_TEXTS = {
    # torch 2.x, c10/cuda/CUDACachingAllocator.cpp, as users quote it
    "torch": (
        OutOfMemoryError,
        (
            "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.65 GiB of which 9.50 MiB is"
            " free. Including non-PyTorch memory, this process has 23.63 GiB memory in use. Of the allocated memory"
            " 23.14 GiB is allocated by PyTorch, and 46.27 MiB is reserved by PyTorch but unallocated."
        ),
    ),
    # cudaErrorMemoryAllocation through torch's C10_CUDA_CHECK: a pinned or a library's own allocation
    "driver": (
        RuntimeError,
        (
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call, so the"
            " stacktrace below might be incorrect."
        ),
    ),
    # jaxlib: XlaRuntimeError
    "jax": (RuntimeError, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes."),
}


def cuda_oom(_actor: Actor) -> None:
    _raise_recorded("torch")


def cuda_oom_driver(_actor: Actor) -> None:
    _raise_recorded("driver")


def cuda_oom_jax(_actor: Actor) -> None:
    _raise_recorded("jax")


def _raise_recorded(name: str) -> None:
    kind, text = CUDA_TEXTS[name]
    raise kind(text)
