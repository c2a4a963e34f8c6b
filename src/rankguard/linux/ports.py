"""A free MASTER_PORT, held until the job ends.

Held by binding an abstract socket of that name: it is private to the network namespace, as ports are, and it is gone
the moment its holder is, however that ended (unix(7)). Chosen below the ephemeral range, so that no outgoing
connection takes it before rank 0 listens (ip(7): `ip_local_port_range`).
"""

import os
import socket


def hold_free_port() -> tuple[int, socket.socket]:
    """A port that nobody listens on and no other rankguard holds, and the lock. Raises `OSError` when there is none."""
    low = 20000
    high = _ephemeral_start() - 1
    if high < low + 1000:
        low, high = 10000, 19999
    span = high - low
    first = int.from_bytes(os.urandom(4)) % span  # `random` would cost a start 4 ms of imports
    for port in (low + (first + n) % span for n in range(min(512, span))):
        lock = hold(f"master-port-{port}")
        if lock is None:
            continue
        if _is_free(port):
            return port, lock
        lock.close()
    raise OSError("no free port below the ephemeral range")


def hold(name: str) -> socket.socket | None:
    """A name of this network namespace, held until the socket is closed; null where another process holds it."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        held.bind(f"\0rankguard-{name}")
    except OSError:
        held.close()
        return None
    return held


def _ephemeral_start() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def _is_free(port: int) -> bool:
    """Nobody is bound to it on any address, IPv6 and what lingers in TIME_WAIT included."""
    families = [socket.AF_INET, socket.AF_INET6] if socket.has_ipv6 else [socket.AF_INET]
    for family in families:
        try:
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
                probe.bind(("", port))
        except OSError as error:
            if family == socket.AF_INET6 and error.errno not in (98, 13):  # no IPv6 here: not a word about the port
                continue
            return False
    return True
