"""The process that makes a rig's hosts, and takes them away: `rig.py` starts it, and its stdin is that one's life.

`python switchyard.py FOLDER NAME…` makes a network of its own with a bridge, and for each name a host: namespaces of network,
host name, mounts (own `/etc/hosts`, own `/dev/shm`) and SysV memory, joined to the bridge by a pair of veths. It writes one
line of JSON when they are there. When its stdin ends, however that came about, it kills whatever lives in a host, and the
namespaces go with it: nobody else holds them, and nothing of it has a name on this machine.

Standard library only, and nothing of rankguard.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys

NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x40000000  # <sched.h>
KINDS = ("net", "uts", "ipc", "mnt")
BRIDGE = "br0"
SUBNET = "10.77.0"
libc = ctypes.CDLL(None, use_errno=True)


def main(folder: str, names: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests; our end is theirs
    home = {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in KINDS if kind != "net"}
    _must("unshare", libc.unshare(NEW_NET))
    home["net"] = os.open("/proc/self/ns/net", os.O_RDONLY)
    _ip("link set lo up", f"link add {BRIDGE} type bridge", f"link set {BRIDGE} up")
    book = os.path.join(folder, "hosts")
    with open(book, "w") as file:
        file.write("127.0.0.1 localhost\n" + "".join(f"{SUBNET}.{i} {name}\n" for i, name in enumerate(names, 1)))
    hosts = []
    for number, name in enumerate(names):
        fds = _host(name, book)
        for kind in KINDS:
            _must("setns", libc.setns(home[kind], 0))
        net = f"/proc/{os.getpid()}/fd/{fds['net']}"
        _ip(
            f"link add port{number} type veth peer name eth0 netns {net}",
            f"link set port{number} master {BRIDGE} up",
        )
        _must("setns", libc.setns(fds["net"], 0))
        _ip("link set lo up", f"addr add {SUBNET}.{number + 1}/24 dev eth0", "link set eth0 up")
        _must("setns", libc.setns(home["net"], 0))
        hosts.append({"name": name, "address": f"{SUBNET}.{number + 1}", "port": f"port{number}", "fds": fds})
    print(json.dumps({"pid": os.getpid(), "hosts": hosts}), flush=True)
    sys.stdin.buffer.read()
    inhabited = {os.stat(f"/proc/self/fd/{host['fds']['net']}").st_ino for host in hosts}
    inhabited.add(os.stat(f"/proc/self/fd/{home['net']}").st_ino)
    while _kill_all_of(inhabited):
        pass


def _host(name: str, book: str) -> dict[str, int]:
    """Enter namespaces that are made by that; descriptors that keep them."""
    _must("unshare", libc.unshare(NEW_NET | NEW_UTS | NEW_IPC | NEW_MOUNTS))
    _must("sethostname", libc.sethostname(name.encode(), len(name)))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", book, "/etc/hosts"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "shm", "/dev/shm"], check=True)
    return {kind: os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in KINDS}


def _ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _must(call: str, result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"unable to {call}: {os.strerror(ctypes.get_errno())}")


def _kill_all_of(networks: set[int]) -> bool:
    """Kill what lives there; whether there was anything."""
    found = False
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                if os.stat(f"/proc/{name}/ns/net").st_ino in networks:  # a zombie has none
                    found = True
                    os.kill(int(name), signal.SIGKILL)
            except OSError:
                pass
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
