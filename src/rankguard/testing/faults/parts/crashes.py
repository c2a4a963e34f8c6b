"""Crashes in C, each made by the instruction or the call that makes it in real programs; never by a signal to oneself.

Each with a core and without: `RLIMIT_CORE` is what decides (core(5)).
"""

import ctypes
import mmap
import resource
import tempfile
from collections.abc import Callable
from typing import Any

from rankguard.testing.faults.actor import Actor
from rankguard.testing.faults.surroundings import machine_code

UD2 = b"\x0f\x0b"
IDIV_BY_ZERO = b"\x31\xc9\xb8\x01\x00\x00\x00\x99\xf7\xf9\xc3"  # xor ecx,ecx; mov eax,1; cdq; idiv ecx; ret


def segfault(_actor: Actor) -> None:
    """Reads address 0."""
    ctypes.string_at(0)


def bus_error(_actor: Actor) -> None:
    """Reads a mapped file behind its new end, as when somebody truncates a checkpoint that is being loaded."""
    with tempfile.TemporaryFile(dir=".") as file:
        file.truncate(1 << 20)
        mapped = mmap.mmap(file.fileno(), 1 << 20)
        file.truncate(0)
        mapped.read(1)


def illegal_instruction(_actor: Actor) -> None:
    """A library built for another processor."""
    ctypes.CFUNCTYPE(None)(machine_code(UD2))()


def divide_by_zero(_actor: Actor) -> None:
    ctypes.CFUNCTYPE(ctypes.c_int)(machine_code(IDIV_BY_ZERO))()


def abort(_actor: Actor) -> None:
    """What a failed assert and an uncaught C++ exception come to."""
    ctypes.CDLL(None).abort()


def double_free(_actor: Actor) -> None:
    """The allocator finds its own memory spoiled, says so on stderr, and aborts."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    block = libc.malloc(1000)  # too large for Python's own allocator, small enough for glibc's quickest check
    libc.free(block)
    libc.free(block)


def _with_core(crash: Callable[[Actor], None]) -> Callable[[Actor], None]:
    def act(actor: Actor) -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        crash(actor)

    return act


def _without_core(crash: Callable[[Actor], None]) -> Callable[[Actor], None]:
    def act(actor: Actor) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        crash(actor)

    return act


def __getattr__(name: str) -> Any:
    """`core_X` and `plain_X`: the crash X with a core and without."""
    kind, _, crash = name.partition("_")
    makers = {"core": _with_core, "plain": _without_core}
    if kind in makers and crash in globals():
        return makers[kind](globals()[crash])
    raise AttributeError(name)
