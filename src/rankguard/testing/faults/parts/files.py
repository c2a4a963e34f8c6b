"""Disks, shared memory, descriptors and ports that are full or taken."""

import ctypes
import mmap
import os
import resource
import socket

from rankguard.testing.faults.actor import Actor

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000  # unshare(2)
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # mount(2)
SMALL = 1 << 20


def disk_full(_actor: Actor) -> None:
    """Writes a checkpoint to a disk on which nothing is free: /dev/full, full(4)."""
    with open("/dev/full", "wb", buffering=0) as checkpoint:
        checkpoint.write(b"weights")


def disk_full_tmpfs(actor: Actor) -> None:
    """Writes a checkpoint to a file system that is too small for it."""
    os.mkdir(f"{actor.folder}/small")
    mount_small(f"{actor.folder}/small")
    with open(f"{actor.folder}/small/checkpoint", "wb", buffering=0) as checkpoint:
        while True:
            checkpoint.write(bytes(64 << 10))


def shm_full(_actor: Actor) -> None:
    """Touches shared memory that /dev/shm has promised and does not have, as with docker's 64 MiB: SIGBUS."""
    mount_small("/dev/shm")  # noqa: S108  # the place itself is the subject
    with open("/dev/shm/segment", "w+b") as file:  # noqa: S108
        file.truncate(8 * SMALL)
        shared = mmap.mmap(file.fileno(), 8 * SMALL)
        shared[:] = bytes(8 * SMALL)


def mount_small(path: str) -> None:
    """A tmpfs of 1 MiB that only this process sees: in a mount namespace of its own, and a user namespace if need be.

    Raises `OSError` where namespaces are forbidden.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _must(libc.unshare(CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER), path)
    if user != 0:  # files need an owner that the new namespace knows, user_namespaces(7)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _must(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), path)
    _must(libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, f"size={SMALL}".encode()), path)


def _must(done: int, path: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def descriptors_exhausted(_actor: Actor) -> None:
    """Opens files and closes none."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    kept = []
    while True:
        kept.append(open("/dev/null", "rb"))  # noqa: SIM115  # that is the fault


def prepare_port_in_use(actor: Actor) -> None:
    """One of the others listens before the victim does."""
    if actor.rank == min({0, 1} - {actor.victim}):
        server = socket.create_server(("127.0.0.1", 0))
        with open("port", "w") as file:
            file.write(str(server.getsockname()[1]))
        _kept.append(server)


def port_in_use(_actor: Actor) -> None:
    with open("port") as file:
        port = int(file.read())
    with socket.create_server(("127.0.0.1", port)) as server:
        server.accept()


_kept: list[socket.socket] = []
