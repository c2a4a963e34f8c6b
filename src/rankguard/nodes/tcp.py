"""TCP sockets of links: listening, how an address is written, what a connection is set to, and looking up a name.

Nothing here blocks but `listen`, which may have to look up a name of its own machine. Read next: `link.py`.
"""

import errno
import socket
from typing import Any

BACKLOG = 4096
"""Connections that the kernel keeps for us meanwhile; it takes `net.core.somaxconn` if that is less."""
UNSENT = 128 << 10
"""What the kernel keeps of a connection beyond what is on its way (TCP_NOTSENT_LOWAT, tcp(7)): its buffer grows to
megabytes, and news would wait behind the output in it."""

_THIN_LINEAR_TIMEOUTS = 16  # tcp(7), Linux 2.6.34
_RTO_MAX_MS = 44  # Linux 6.15
_RTO_MAX = 1000

_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EINVAL)

Address = tuple[Any, ...]
Found = tuple[int, Address]
"""A family and an address to connect to."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens: on every address of this machine, of both families, when `host` is empty. Port 0: a free one.

    Raises `OSError`.
    """
    found: list[Found]
    if host:
        named = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        found = [(family, place) for family, _type, _proto, _name, place in named]
    else:
        found = [(socket.AF_INET6, ("::", port)), (socket.AF_INET, ("0.0.0.0", port))]  # noqa: S104  # what "every" means
    refused = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for family, place in found:
        try:
            return _listen(family, place, dual=host in {"", "::"})
        except OSError as error:
            refused = error
            if error.errno == errno.EADDRINUSE or (not host and error.errno not in _NO_IPV6):
                break  # whoever has the port is whom all others meet there, by whichever address
    raise refused


def _listen(family: int, place: Address, *, dual: bool) -> socket.socket:
    end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier run's connections wait a minute
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        end.bind(place)
        end.listen(BACKLOG)
    except OSError:
        end.close()
        raise
    return end


def address_of(end: socket.socket) -> tuple[str, int]:
    """Where it listens, or our side of its connection: host and port."""
    name = end.getsockname()
    return plain(name), int(name[1])


def plain(place: Any) -> str:
    """The host of an address as people write it: that of IPv4 that came through a socket of both without `::ffff:`."""
    if not isinstance(place, tuple):
        return ""
    return str(place[0]).removeprefix("::ffff:") if "." in str(place[0]) else str(place[0])


def peer_of(end: socket.socket) -> str:
    """The host at the other end; empty when it is gone already."""
    try:
        return plain(end.getpeername())
    except OSError:
        return ""


def local_of(end: socket.socket) -> str:
    """The address of ours that the connection came to, or goes from."""
    return plain(end.getsockname())


def shown(host: str, port: int) -> str:
    """`10.0.0.1:29500`, `[::1]:29500`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune(end: socket.socket) -> None:
    """A connection of few and small messages that are urgent. What a kernel does not know is left as it is.

    No TCP_USER_TIMEOUT and no keepalive: the heartbeats of both ends decide when the other is lost, and a user who has
    set a long `--node-timeout` wants no shorter one.
    """
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (getattr(socket, "TCP_NOTSENT_LOWAT", 25), UNSENT),
        # After a cut of the network TCP tries again up to as long after its end as it lasted: 5.5 s after one of 8 s, with
        # these 0.8 s. A kernel that knows only the first of the two has six tries before the pauses begin to double.
        (_THIN_LINEAR_TIMEOUTS, 1),
        (_RTO_MAX_MS, _RTO_MAX),
    ):
        try:
            end.setsockopt(socket.IPPROTO_TCP, option, value)
        except OSError:
            pass


def connecting(family: int, place: Address) -> tuple[socket.socket, int]:
    """A socket on its way to an address, and the error number of connect(2), 0 or EINPROGRESS when all is well.

    Raises `OSError` when there is no socket to be had.
    """
    end = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    tune(end)
    try:
        return end, end.connect_ex(place)
    except OSError as error:  # an address that is none, told before the kernel is asked
        return end, error.errno or errno.EADDRNOTAVAIL


def met_itself(end: socket.socket) -> bool:
    """A connection to a free port of one's own machine may be given that very port: then it is its own other end."""
    try:
        return bool(end.getsockname() == end.getpeername())
    except OSError:
        return False


class Lookup:
    """A name being looked up, which can take the resolver many seconds: by a thread that ends with the answer.

    `fileno()` is readable when `take` has it. A numeric address needs no thread. The thread touches nothing but its own
    end of a socket pair and the answer.
    """

    def __init__(self, host: str, port: int) -> None:
        self._answer: list[Found] | str | None = None
        self._ours: socket.socket | None = None
        try:
            self._answer = _found(host, port, socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            self._ask(host, port)

    def _ask(self, host: str, port: int) -> None:
        from threading import Thread  # 3 ms, which an address in numbers does not need

        self._ours, theirs = socket.socketpair()

        def look() -> None:
            try:
                self._answer = _found(host, port, 0)
            except (OSError, UnicodeError) as error:
                self._answer = getattr(error, "strerror", None) or str(error)
            with theirs:
                try:
                    theirs.send(b".", socket.MSG_NOSIGNAL)  # and not only closed: a fork in between holds a copy
                except OSError:
                    pass

        try:
            Thread(target=look, name="rankguard-lookup", daemon=True).start()
        except RuntimeError as error:  # no more threads: a limit of this machine
            theirs.close()
            self._answer = str(error)

    def fileno(self) -> int:
        """-1 when the answer is there at once."""
        return -1 if self._ours is None else self._ours.fileno()

    def take(self) -> list[Found] | str | None:
        """The addresses, or why there are none; null while nothing is known."""
        return self._answer

    def close(self) -> None:
        """A thread that still asks ends by itself."""
        if self._ours is not None:
            self._ours.close()
            self._ours = None


def _found(host: str, port: int, flags: int) -> list[Found]:
    named = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((int(family), place) for family, _type, _proto, _name, place in named))
