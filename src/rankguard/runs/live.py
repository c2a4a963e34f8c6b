"""Ask a live run from another terminal: find its control socket, ask, wait for the answer. The other end: `supervisor/control.py`."""

import os
import select
import socket
import stat
import struct
import time

from rankguard.private import CONTROL, private_folders
from rankguard.wire import Message, Wire, peer_uid


class NotLive(Exception):
    """Nobody answers for this run: it has ended, or runs on another machine or in another container."""


def socket_of(folder: str) -> str | None:
    """Where the run that keeps its files in `folder` listens, by the link that it left there."""
    try:
        return os.readlink(f"{folder}/{CONTROL}")
    except OSError:
        return None


def live_sockets() -> dict[str, str]:
    """Run id → socket of every run of ours on this machine, those that keep no files included."""
    found: dict[str, str] = {}
    for run_id, folder in private_folders():
        path = f"{folder}/{CONTROL}"
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.getuid() and _listens(path):
            found.setdefault(run_id, path)
    return found


def _listens(path: str) -> bool:
    """Somebody does: the socket of a supervisor that was killed stays on disk, and refuses (unix(7): ECONNREFUSED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as end:
        try:
            end.connect(path)
        except BlockingIOError:  # its queue of callers is full
            return True
        except OSError:
            return False
    return True


def ask(address: str, message: Message, timeout: float) -> Message:
    """The answer to one ask. Raises `NotLive` when nobody answers, `TimeoutError` when not in time."""
    wire = _connect(address, timeout)
    try:
        wire.send(message)
        until = time.monotonic() + timeout
        poll = select.poll()
        while not wire.closed:
            poll.register(wire, select.POLLIN | (select.POLLOUT if wire.pending else 0))
            left = until - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise TimeoutError(f"no answer within {timeout:g} s")
            wire.flush()
            for answer, fds in wire.receive():
                for fd in fds:
                    os.close(fd)
                return answer
        raise NotLive(address)
    finally:
        wire.close()


def _connect(address: str, timeout: float) -> Wire:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # A stopped supervisor accepts nobody; a timeout of Python's would give up at once where a queue is full.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(timeout), 0))
        end.connect("\0" + address[1:] if address.startswith("@") else address)
        uid = peer_uid(end)
    except BlockingIOError:
        end.close()
        raise TimeoutError(f"nobody took the call within {timeout:g} s") from None
    except (OSError, ValueError) as error:
        end.close()
        raise NotLive(address) from error
    if uid != os.getuid() and 0 not in (uid, os.getuid()):
        end.close()
        raise NotLive(f"{address} belongs to user {uid}")
    return Wire(end)
