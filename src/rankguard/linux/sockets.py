"""Whom a socket of a process is connected to, by its inode: `a TCP socket to 10.0.0.5:443`.

Of the process's own network namespace, so of a container's as well. Not who holds a port (`portuse.py`).
Sources: proc_pid_net(5) (`tcp`, `tcp6`); include/net/tcp_states.h.
"""

import ipaddress
import re
import sys

from rankguard.linux.files import read_text

_INODE = re.compile(r"socket:\[(\d+)\]")
_LISTEN = "0A"
_MOST = 4 << 20
"""Bytes of one table; a machine with more connections than that is told the inode only."""


def named(pid: int, target: str) -> str:
    """What `/proc/<pid>/fd/N` names, with the other end where it is a TCP socket."""
    found = _INODE.fullmatch(target)
    if found is None:
        return target
    for table in ("tcp", "tcp6"):
        for line in (read_text(f"/proc/{pid}/net/{table}", _MOST) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[9] == found[1]:
                ours, other = _address(fields[1]), _address(fields[2])
                if ours is None or other is None:
                    return target
                return f"a TCP socket that listens at {ours}" if fields[3] == _LISTEN else f"a TCP socket to {other}"
    return target


def _address(text: str) -> str | None:
    """`0100007F:1F90`: words of 32 bits as this machine stores them, and the port."""
    host, _, port = text.partition(":")
    try:
        words = [int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8)]
        address = ipaddress.ip_address(b"".join(words))
        number = int(port, 16)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return f"{address.ipv4_mapped}:{number}" if address.ipv4_mapped is not None else f"[{address}]:{number}"
    return f"{address}:{number}"
