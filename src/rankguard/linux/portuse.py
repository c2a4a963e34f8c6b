"""Who holds a TCP port at this moment: which process, of which rank, and how.

Bound and listening sockets are found by their inodes, in `/proc/net/tcp` and in the file descriptors of processes that
we may look into. The search is a generator, so that whoever has other news to handle goes on in slices. Not the ports
that we give out ourselves (`ports.py`).

Sources: proc_pid_net(5), include/net/tcp_states.h. A socket that is bound and neither listens nor is connected is in
none of these files.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from rankguard.circumstances import PortUse
from rankguard.linux import tree
from rankguard.linux.files import listed, read_text
from rankguard.record import Record

_LISTEN, _TIME_WAIT = "0A", "06"


class Sockets(Record):
    """The sockets on one port: inodes of those that listen, of others, and whether some only wait for time to pass."""

    listening: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    time_wait: bool = False
    uid: int | None = None


def sockets_on(port: int) -> Sockets:
    """What the kernel tells of a local port, in our network namespace."""
    listening: list[str] = []
    others: list[str] = []
    waits, owner = False, None
    for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        for line in (read_text(file) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or int(fields[1].rpartition(":")[2], 16) != port:
                continue
            state, uid, inode = fields[3], fields[7], fields[9]
            if state == _TIME_WAIT or inode == "0":
                waits = True
            elif state == _LISTEN:
                listening.append(inode)
                owner = int(uid)
            else:
                others.append(inode)
                owner = int(uid) if owner is None else owner
    return Sockets(tuple(listening), tuple(others), waits, owner)


def search(port: int, ranks: Mapping[int, int], told: list[PortUse]) -> Iterator[None]:
    """Find the holder of `port` and add it to `told`; `ranks` are pids → numbers, looked at first. Yields between processes."""
    found = sockets_on(port)
    wanted = {f"socket:[{inode}]" for inode in found.listening or found.others}
    if not wanted:
        told.append(PortUse(port, "time-wait" if found.time_wait else "free"))
        return
    state, hidden = "listening" if found.listening else "connected", False
    for pid in _pids(ranks):
        holds = _holds(pid, wanted)
        if holds:
            told.append(PortUse(port, state, pid, _name(pid), ranks.get(tree.nearest(pid, ranks) or 0), found.uid))
            return
        hidden = hidden or holds is None
        yield
    gone = not sockets_on(port).listening if found.listening else not sockets_on(port).others
    why = (
        "it has gone since"
        if gone
        else "its process is not one that this user may look into"
        if hidden
        else "its process is in another container"
    )
    told.append(PortUse(port, "gone" if gone else state, uid=found.uid, why_not=why))


def _pids(first: Iterable[int]) -> Iterator[int]:
    known = list(first)
    below = [each for pid in known for each in tree.descendants(pid)]
    yield from known
    yield from below
    seen = {*known, *below}
    yield from (int(name) for name in listed("/proc") if name.isdecimal() and int(name) not in seen)


def _holds(pid: int, wanted: set[str]) -> bool | None:
    """Whether a process holds one of the sockets; null when we may not know."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(f"/proc/{pid}/fd/{name}") in wanted:
                return True
        except OSError:
            continue
    return False


def _name(pid: int) -> str | None:
    """`python3 serve.py`: the command and its script. Not its other arguments, which may hold anybody's secrets."""
    words = (read_text(f"/proc/{pid}/cmdline") or "").split("\0")
    comm = (read_text(f"/proc/{pid}/comm") or "").strip() or None
    scripts = (word for word in words[1:8] if re.fullmatch(r"[\w./-]+\.(py|sh)", word))
    script = next((word for word in scripts if "/rankguard/inside/" not in word), None)
    return f"{comm} {os.path.basename(script)}" if comm and script else comm
