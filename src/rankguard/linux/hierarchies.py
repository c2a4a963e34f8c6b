"""Where we are in each cgroup hierarchy, and what is in a group. No group is made here.

Sources: cgroups(7), proc_pid_mountinfo(5), cgroup_namespaces(7). Read next: `cgroup.py` (the groups of a job).
"""

import os
from collections.abc import Iterator

from rankguard.linux.files import read_text
from rankguard.record import Record


class Group(Record):
    """Our own group in one hierarchy. `name` is what the kernel calls it, `path` its directory, `top` the mount point."""

    name: str
    path: str
    top: str

    def upwards(self) -> Iterator[str]:
        """Its directory and those of all ancestors that can be seen."""
        path = self.path
        while True:
            yield path
            if path == self.top or len(path) <= len(self.top):
                return
            path = path.rpartition("/")[0]


def own_groups() -> dict[str, Group]:
    """Our own group in each hierarchy that we can see: `v2`, and v1 controllers by name (`memory`, `freezer` …)."""
    return groups_of("self")


def groups_of(pid: int | str) -> dict[str, Group]:
    """The groups of any process, as far as our own mounts show them: those of another container's mostly not."""
    groups = parse_groups(read_text(f"/proc/{pid}/cgroup") or "", read_text("/proc/self/mountinfo") or "")
    return {key: group for key, group in groups.items() if os.path.isdir(group.path)}


def parse_groups(cgroup: str, mountinfo: str) -> dict[str, Group]:
    """`own_groups` from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo` (proc_pid_mountinfo(5))."""
    names: dict[str, str] = {}
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        names |= dict.fromkeys(["v2"] if number == "0" and not controllers else controllers.split(","), name)
    groups: dict[str, Group] = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind, _, options = (*right.split(" "), "", "", "")[:3]
        if kind not in ("cgroup", "cgroup2") or len(fields) < 6:
            continue
        root, top = _unescaped(fields[3]), _unescaped(fields[4])
        for key in ["v2"] if kind == "cgroup2" else options.split(","):
            # A container without a cgroup namespace has its group bound to the mount point: both name the prefix.
            # With a namespace both say "/". Names above the root of our namespace ("/../x") cannot be reached.
            ours = names.get(key)
            if ours is None or "/.." in ours or not f"{ours}/".startswith(f"{root.rstrip('/')}/"):
                continue
            if key not in groups or "ro" not in fields[5].split(","):  # of two mounts the one that can be written
                inside = ours[len(root.rstrip("/")) :].rstrip("/")
                groups[key] = Group(name=ours, path=top.rstrip("/") + inside, top=top.rstrip("/"))
    return groups


def counter(path: str, key: str = "oom_kill") -> int | None:
    """The number after `key` in a file of `key number` lines; null when there is none."""
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdecimal():
            return int(value)
    return None


def remove_group(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:  # gone already, or a process lives in it
        pass


def below(path: str) -> Iterator[str]:
    """A directory and all below it, deepest first."""
    return (directory for directory, _, _ in os.walk(path, topdown=False))


def processes(path: str) -> list[int]:
    return [int(pid) for pid in (read_text(f"{path}/cgroup.procs") or "").split()]


def _unescaped(field: str) -> str:
    """Space, tab, newline and backslash are octal in mountinfo."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
