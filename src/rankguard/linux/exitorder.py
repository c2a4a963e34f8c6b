"""The order in which children of this process began to exit, as the kernel tells it.

A pidfd becomes readable when an exit is complete, which takes a large process hundreds of milliseconds. The kernel's
taskstats are sent when it begins, before the memory is given back and any file or connection is closed: `do_exit` calls
`taskstats_exit` before `exit_mm` and `exit_files` (kernel/exit.c, 2.6.17 to 6.18). So nobody that died of losing a
connection to another process can stand before that process in this order. (A core is dumped before the exit begins.)

Only the initial namespaces are told, and only with CAP_NET_ADMIN (kernel/taskstats.c `add_del_listener`): elsewhere
`take` returns nothing, and `why_not` says why. The kernel sends every exit of the machine; a filter of the socket keeps
what is no child's main thread from us (`ac_tgid` and `ac_pid` are equal: Linux 5.19), so that nothing wakes or fills up.
Sources: Documentation/accounting/taskstats.rst, include/uapi/linux/{taskstats,genetlink,filter}.h.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

_NETLINK_GENERIC, _GENL_ID_CTRL, _NLMSG_ERROR = 16, 0x10, 2
_REQUEST, _ACK = 1, 4
_GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 3, 1, 2
_CMD_GET, _PID, _REGISTER_CPUMASK = 1, 1, 3
_TYPE_PID, _TYPE_STATS, _TYPE_AGGR_PID = 1, 3, 4
_HEADER = 20
"""`struct nlmsghdr` and `struct genlmsghdr`."""
_AC_PID, _AC_PPID, _AC_ETIME, _AC_TGID = 128, 132, 144, 368
_VERSION_WITH_TGID = 12
_SO_ATTACH_FILTER = 26
_ALL = 0xFFFFFFFF
_READ = 16 << 10
_MOST = 4096
"""Messages of one `take`: it ends, however many threads exit."""


class ExitOrder:
    """Listens from now on, for children that exit in this process's lifetime."""

    def __init__(self) -> None:
        self.why_not: str | None = None
        self._socket: socket.socket | None = None
        self._told = 0
        try:
            self._socket = listen(os.getpid())
        except (OSError, struct.error, KeyError) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            self.why_not = f"the order of exits is not known: {said}"

    def take(self) -> Iterator[tuple[int, int, float]]:
        """What has come since the last call: (pid, its place in the order from 0, seconds from its start to its exit)."""
        for _ in range(_MOST if self._socket is not None else 0):
            try:
                message = self._socket.recv(_READ)  # type: ignore[union-attr]  # nobody closes it meanwhile
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some are lost, and those that are told are in order all the same
                continue
            if (found := stats_in(message)) is not None:
                pid, stats = found
                yield pid, self._told, struct.unpack_from("=Q", stats, _AC_ETIME)[0] / 1e6
                self._told += 1

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def listen(parent: int | None) -> socket.socket:
    """A socket that is told of the children of one process alone, or of all processes. Raises `OSError`, and what an
    unexpected answer makes of reading it: `struct.error`, `KeyError`.
    """
    told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
    try:
        told.bind((0, 0))
        told.settimeout(1.0)  # the kernel answers in the call itself: no time-out is met
        family = _ask(told, _GENL_ID_CTRL, _GETFAMILY, _FAMILY_NAME, b"TASKSTATS\0", ack=False)
        number = struct.unpack("=H", dict(_attributes(family[_HEADER:]))[_FAMILY_ID])[0]
        own = _ask(told, number, _CMD_GET, _PID, struct.pack("=I", os.getpid()), ack=False)
        _attach(told, _place_of_stats(own), parent)  # before the listener: no message of others is in the queue
        with open("/sys/devices/system/cpu/possible", "rb") as file:
            _ask(told, number, _CMD_GET, _REGISTER_CPUMASK, file.read().strip() + b"\0", ack=True)
        told.setblocking(False)
    except BaseException:
        told.close()
        raise
    return told


def _ask(told: socket.socket, family: int, command: int, attribute: int, value: bytes, *, ack: bool) -> bytes:
    body = struct.pack("=BBHHH", command, 1, 0, 4 + len(value), attribute) + value + bytes(-len(value) % 4)
    told.send(struct.pack("=IHHII", 16 + len(body), family, _REQUEST | (_ACK if ack else 0), 1, 0) + body)
    answer = told.recv(_READ)
    if struct.unpack_from("=H", answer, 4)[0] == _NLMSG_ERROR and (error := -struct.unpack_from("=i", answer, 16)[0]):
        raise OSError(error, os.strerror(error))
    return answer


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _place_of_stats(message: bytes) -> int:
    """Where `struct taskstats` begins: kernels pad it to 8 bytes, or not. Raises `OSError` when it is of an old kernel."""
    found = stats_in(message)
    if found is None or struct.unpack_from("=H", found[1])[0] < _VERSION_WITH_TGID:
        raise OSError(errno.ENOSYS, "the kernel is older than 5.19")
    return message.index(found[1])


def _attach(told: socket.socket, stats: int, parent: int | None) -> None:
    """Answers pass, and statistics of main threads (whose parent this is). (filter.h: classic BPF, loads are big-endian.)"""
    load, load_half, to_x, equal, equal_x, accept = 0x20, 0x28, 0x07, 0x15, 0x1D, 0x06
    here = struct.unpack(">I", struct.pack("=I", parent or 0))[0]
    control = struct.unpack(">H", struct.pack("=H", _GENL_ID_CTRL))[0]
    error = struct.unpack(">H", struct.pack("=H", _NLMSG_ERROR))[0]
    program = [
        (load_half, 0, 0, 4),  # nlmsg_type
        (equal, 7, 0, control),
        (equal, 6, 0, error),
        (load, 0, 0, stats + _AC_PPID),
        (equal, 0, 0 if parent is None else 5, here),
        (load, 0, 0, stats + _AC_PID),
        (to_x, 0, 0, 0),
        (load, 0, 0, stats + _AC_TGID),
        (equal_x, 0, 1, 0),
        (accept, 0, 0, _ALL),
        (accept, 0, 0, 0),
    ]
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    told.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def stats_in(message: bytes) -> tuple[int, bytes] | None:
    """The process that a message is about, and its `struct taskstats`."""
    for kind, nested in _attributes(message[_HEADER:]):
        if kind == _TYPE_AGGR_PID:
            parts = dict(_attributes(nested))
            return struct.unpack("=I", parts[_TYPE_PID])[0], parts[_TYPE_STATS]
    return None
