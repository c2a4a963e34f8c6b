"""Who holds a port, by the kernel's tables: real sockets of this process, of a child, of nobody."""

import os
import signal
import socket

from rankguard.linux.portuse import search, sockets_on


def found(port, ranks=None):
    told = []
    for _ in search(port, ranks or {}, told):
        pass
    (use,) = told
    return use


def test_a_listener_of_our_own():
    with socket.create_server(("127.0.0.1", 0)) as held:
        use = found(held.getsockname()[1])

    assert (use.state, use.pid, use.rank, use.uid) == ("listening", os.getpid(), None, os.getuid())


def test_a_listener_on_ipv6():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as held:
        assert found(held.getsockname()[1]).pid == os.getpid()


def test_a_listener_below_a_rank():
    """The rank's number is told where a child of it holds the port."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        pid = os.fork()
        if pid == 0:
            signal.pause()
        held.close()
        try:
            use = found(port, {os.getpid(): 3})
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    assert (use.pid, use.rank) == (pid, 3)


def test_nobody():
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]

    assert (found(port).state, found(port).pid) == ("free", None)


def test_a_port_that_only_lingers():
    """Who closes first keeps the connection in TIME_WAIT (tcp(7)); its socket belongs to nobody."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            server, _address = held.accept()
            server.close()
            assert client.recv(1) == b""

    assert (found(port).state, sockets_on(port).time_wait) == ("time-wait", True)
