"""Whom a socket is connected to, as the kernel tells it of real ones."""

import os
import socket
import subprocess
import sys

import pytest

from rankguard.linux import sockets


def named(sock: socket.socket, pid: int | None = None) -> str:
    return sockets.named(pid or os.getpid(), os.readlink(f"/proc/self/fd/{sock.fileno()}"))


@pytest.mark.parametrize(("family", "host", "shown"), [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET6, "::1", "[::1]"),
])  # fmt: skip
def test_a_connection_has_another_end(family, host, shown):
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port)) as client, server.accept()[0] as accepted:
            assert named(server) == f"a TCP socket that listens at {shown}:{port}"
            assert named(client) == f"a TCP socket to {shown}:{port}"
            assert named(accepted) == f"a TCP socket to {shown}:{client.getsockname()[1]}"


def test_an_address_of_the_other_family_is_told_as_that():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as accepted:
            assert named(accepted) == f"a TCP socket to 127.0.0.1:{client.getsockname()[1]}"


def test_in_the_network_of_its_process():
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = os.readlink(f"/proc/self/fd/{server.fileno()}")
        code = "import os, sys; from rankguard.linux import sockets; print(sockets.named(os.getppid(), sys.argv[1]))"
        found = subprocess.run([sys.executable, "-c", code, own], capture_output=True, text=True, check=True)
        assert found.stdout == f"a TCP socket that listens at 127.0.0.1:{server.getsockname()[1]}\n"


def test_what_has_no_such_end_is_told_as_it_is():
    one, other = socket.socketpair()
    with one, other:
        assert named(one) == os.readlink(f"/proc/self/fd/{one.fileno()}")
    assert sockets.named(os.getpid(), "/shared/cache.lock") == "/shared/cache.lock"
    assert sockets.named(os.getpid(), "pipe:[7]") == "pipe:[7]"
    assert sockets.named(1 << 22, "socket:[7]") == "socket:[7]"
