"""The other end of sd_notify, as systemd has it: a datagram socket that knows who sent what."""

import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Self


class Manager:
    """`address` is what a service is told; `said` what came, one `KEY=VALUE` after another, with the sender's pid."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.address = f"@rankguard-test-{os.getpid()}-{folder.name}" if abstract else str(folder / "notify")
        self.socket.bind("\0" + self.address[1:] if abstract else self.address)
        self.said: list[str] = []
        self.senders: set[int] = set()

    def take(self, seconds: float = 0.0) -> bool:
        """One datagram, waiting for it at most so long."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return False
        data, ancillary, _flags, _from = self.socket.recvmsg(65536, socket.CMSG_SPACE(12))
        self.said += data.decode().split("\n")
        self.senders.add(struct.unpack("iII", ancillary[0][2])[0])
        return True

    def until(self, line: str, seconds: float = 60.0) -> None:
        """Take what comes until something begins so."""
        seen, until = len(self.said), time.monotonic() + seconds
        while not any(said.startswith(line) for said in self.said[seen:]):
            assert self.take(max(0.0, until - time.monotonic())), (line, self.said[:10], self.said[-10:])

    def drain(self) -> None:
        while self.take():
            pass

    def env(self, **more: str) -> dict[str, str]:
        return os.environ | {"NOTIFY_SOCKET": self.address} | more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()
