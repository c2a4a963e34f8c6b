"""The kernel log as a witness: which process the OOM killer ended, in which control group, and how large it was; in whose
code a process crashed; which GPU failed.

Not a log reader: of all that the kernel says only these lines are kept. Needs /dev/kmsg, which containers
rarely have and `dmesg_restrict` keeps from other users; `KernelLog.why_not` says so and nothing here raises.
The line that names the group is rate-limited (`oom_kill_process`: 10 in 5 s), the one that names the pid is not: of
many kills at once the later ones have no group and can be told by their pid alone (`in_init_pid_namespace`).

Sources: Documentation/ABI/testing/dev-kmsg (the record), mm/oom_kill.c `dump_oom_victim`, `__oom_kill_process` and
mm/memcontrol.c `mem_cgroup_print_oom_group` (the texts, the same from 5.0 to 6.18); arch/x86/mm/fault.c
`show_signal_msg`, arch/x86/kernel/traps.c `show_signal` (crashes: x86 only, rate-limited, and told of the thread, not of
the process); NVIDIA's "Xid errors" (GPUs). What processes write to the log has another facility and is not believed.
Read next: `cgroup.py` (the counters; `JobGroups.rank_of` turns a record's group into a rank).
"""

import errno
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator

from rankguard.circumstances import KernelNote
from rankguard.model import OomRecord

_RECORD_MAX = 8192  # CONSOLE_EXT_LOG_MAX: a smaller buffer gets EINVAL for a long record
_MOST_RECORDS = 10_000
"""A drain ends, however fast somebody writes to the log."""
_KMSG = os.makedev(1, 11)  # Documentation/admin-guide/devices.txt
_INIT_PID_NS = "pid:[4026531836]"  # include/linux/proc_ns.h, PROC_PID_INIT_INO
_GROUP_KILL = " are going to be killed due to memory.oom.group set"
_GROUP_KILL_US = 100_000
"""Later kills are another matter: what would tell them apart may have been left out by the rate limit."""


_MOST_NOTES = 64


class KernelLog:
    """The kernel log from now on. `fileno` becomes readable at every record, also those of no interest here."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self.why_not: str | None = None
        self._fd = -1
        self._parser = OomLines()
        self._notes: deque[KernelNote] = deque(maxlen=_MOST_NOTES)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.why_not = f"unable to read the kernel log {path}: {error.strerror}"
            self.close()
            return
        if os.fstat(self._fd).st_rdev != _KMSG:  # containers put /dev/null or /dev/zero in its place
            self.why_not = f"unable to read the kernel log {path}: it is another file"
            self.close()

    @property
    def readable(self) -> bool:
        """We are told of kills."""
        return self._fd >= 0

    def drain(self) -> list[OomRecord]:
        """All kills told since the last call. Records that were overwritten before we came are lost (EPIPE)."""
        lines = []
        for _ in range(_MOST_RECORDS if self._fd >= 0 else 0):
            try:
                lines.append(os.read(self._fd, _RECORD_MAX).decode(errors="replace"))
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EINVAL, errno.EINTR):
                    break  # EAGAIN: that was all
        self._notes.extend(note for _when, text in of_kernel(lines) if (note := note_of(text)) is not None)
        return self._parser.take(lines)

    def notes(self) -> list[KernelNote]:
        """Crashes and GPU errors that the last calls of `drain` met, each told once."""
        told = list(self._notes)
        self._notes.clear()
        return told

    def fileno(self) -> int:
        """To wait on; -1 when it cannot be read."""
        return self._fd

    def close(self) -> None:
        """No further records."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def in_init_pid_namespace() -> bool:
    """The pids in the kernel log are those that we see: it names pids of the initial namespace only."""
    try:
        return os.readlink("/proc/self/ns/pid") == _INIT_PID_NS
    except OSError:
        return False


def of_kernel(records: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Of records `prefix;text`, then ` KEY=value` lines: the kernel's own, as (microseconds, text)."""
    for record in records:
        prefix, _, rest = record.partition(";")
        level, _, when = (*prefix.split(","), "", "", "")[:3]
        # Facility 0 is the kernel's; what processes write to /dev/kmsg carries another.
        if level.isdecimal() and when.isdecimal() and int(level) <= 7:
            yield int(when), _unescaped(rest.partition("\n")[0])


def note_of(text: str) -> KernelNote | None:
    """The crash or the GPU error that a line of the kernel tells."""
    if (found := _SEGFAULT.match(text)) or (found := _TRAP.match(text)):
        kind = "segfault" if found.re is _SEGFAULT else "trap"
        return KernelNote(kind, text, pid=int(found["pid"]), name=found["name"], where=found["where"])
    found = _XID.match(text)
    if found is None:
        return None
    told = _XID_PROCESS.match(found["rest"])
    pid, name = (int(told["pid"]), told["name"] or None) if told and told["pid"].isdecimal() else (None, None)
    return KernelNote("xid", text, pid, name, where=found["pci"].lower(), number=int(found["number"]))


# A name has at most 15 characters, any but NUL (TASK_COMM_LEN); "likely on CPU 3 (core 1, socket 0)" may follow.
_IN = r"(?: in (?P<where>.+?)\[[0-9a-f]+(?:,[0-9a-f]+)?\+[0-9a-f]+\])?"
_SEGFAULT = re.compile(
    rf"(?P<name>.{{0,15}})\[(?P<pid>\d+)\]: segfault at [0-9a-f]+ ip [0-9a-f]+ sp [0-9a-f]+ error [0-9a-f]+{_IN}"
)
_TRAP = re.compile(
    r"traps: (?P<name>.{0,15})\[(?P<pid>\d+)\] (?:trap .{1,30}|general protection(?: fault)?)"
    rf" ip:[0-9a-f]+ sp:[0-9a-f]+ error:[0-9a-f]+{_IN}"
)
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<pci>[0-9A-Fa-f:.]+)\): (?P<number>\d{1,4}),? ?(?P<rest>.*)")
_XID_PROCESS = re.compile(r"pid='?(?P<pid>\d+|<unknown>)'?(?:, name=(?P<name>[^,]*))?")


class OomLines:
    """Puts the lines of one kill together. Pure; a kill may be spread over several calls."""

    def __init__(self) -> None:
        self._cgroups: dict[int, str] = {}  # pid of a victim that was chosen and not yet killed → its group
        self._killed: set[int] = set()  # since the last choice
        self._whole: tuple[str, int] | None = None  # the group that is being killed as a whole, and since when

    def take(self, records: Iterable[str]) -> list[OomRecord]:
        """The kills that these records complete, in their order."""
        found = []
        for when, text in of_kernel(records):
            if text.startswith("oom-kill:"):
                self._choose(text)
            elif text.startswith("Tasks in ") and text.endswith(_GROUP_KILL):
                self._whole = text[len("Tasks in ") : -len(_GROUP_KILL)], when
            elif ": Killed process " in text and "ut of memory" in text:
                kill = self._kill(text, when)
                found += [kill] if kill else []
        return found

    def _choose(self, text: str) -> None:
        """`oom-kill:constraint=…,oom_memcg=/a,task_memcg=/a/b,task=NAME,pid=N,uid=N`; a name may hold commas."""
        self._whole = None
        self._killed.clear()
        pid = text.rpartition(",pid=")[2].partition(",")[0]
        group = text.partition(",task_memcg=")[2].partition(",task=")[0]
        if pid.isdecimal() and group:
            self._cgroups[int(pid)] = group

    def _kill(self, text: str, when: int) -> OomRecord | None:
        """`Memory cgroup out of memory: Killed process N (NAME) total-vm:NkB, anon-rss:NkB, …`; a name may hold `)`."""
        head, _, rest = text.partition(": Killed process ")
        number, _, rest = rest.partition(" (")
        name, _, numbers = rest.rpartition(") total-vm:")
        if not number.isdecimal():
            return None
        # A whole group is killed right after its first victim, which is then killed (and counted) once more.
        whole = self._whole[0] if self._whole and when - self._whole[1] < _GROUP_KILL_US else None
        if whole and int(number) in self._killed:
            return None
        self._killed.add(int(number))
        anon = numbers.partition("anon-rss:")[2].partition("kB")[0]
        return OomRecord(
            pid=int(number),
            name=name,
            text=text,
            cgroup=self._cgroups.pop(int(number), whole),
            anon_rss_bytes=int(anon) * 1024 if anon.isdecimal() else None,
            of_whole_machine=head.startswith("Out of memory"),
            logged_us=when,
        )


def _unescaped(text: str) -> str:
    r"""The log writes a backslash and what is not printable ASCII as \xNN; names of systemd's groups hold backslashes."""
    first, *others = text.encode().split(b"\\x")
    try:
        return b"".join([first, *(bytes.fromhex(part[:2].decode()) + part[2:] for part in others)]).decode(
            errors="replace"
        )
    except ValueError:
        return text
