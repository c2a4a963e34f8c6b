"""The kernel log as a witness: which process the OOM killer ended, in which control group, and how large it was.

Not a log reader: of all that the kernel says only its kills for memory are kept. Needs /dev/kmsg, which containers
rarely have and `dmesg_restrict` keeps from other users; `KernelLog.why_not` says so and nothing here raises.
The line that names the group is rate-limited (`oom_kill_process`: 10 in 5 s), the one that names the pid is not: of
many kills at once the later ones have no group and can be told by their pid alone (`in_init_pid_namespace`).

Sources: Documentation/ABI/testing/dev-kmsg (the record), mm/oom_kill.c `dump_oom_victim`, `__oom_kill_process` and
mm/memcontrol.c `mem_cgroup_print_oom_group` (the texts, the same from 5.0 to 6.18).
Read next: `cgroup.py` (the counters; `JobGroups.rank_of` turns a record's group into a rank).
"""

import errno
import os
from collections.abc import Iterable

from rankguard.model import OomRecord

_RECORD_MAX = 8192  # CONSOLE_EXT_LOG_MAX: a smaller buffer gets EINVAL for a long record
_MOST_RECORDS = 10_000
"""A drain ends, however fast somebody writes to the log."""
_KMSG = os.makedev(1, 11)  # Documentation/admin-guide/devices.txt
_INIT_PID_NS = "pid:[4026531836]"  # include/linux/proc_ns.h, PROC_PID_INIT_INO
_GROUP_KILL = " are going to be killed due to memory.oom.group set"
_GROUP_KILL_US = 100_000
"""Later kills are another matter: what would tell them apart may have been left out by the rate limit."""


class KernelLog:
    """The kernel log from now on. `fileno` becomes readable at every record, also those of no interest here."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self.why_not: str | None = None
        self._fd = -1
        self._parser = OomLines()
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
        return self._parser.take(lines)

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


class OomLines:
    """Puts the lines of one kill together. Pure; a kill may be spread over several calls."""

    def __init__(self) -> None:
        self._cgroups: dict[int, str] = {}  # pid of a victim that was chosen and not yet killed → its group
        self._killed: set[int] = set()  # since the last choice
        self._whole: tuple[str, int] | None = None  # the group that is being killed as a whole, and since when

    def take(self, records: Iterable[str]) -> list[OomRecord]:
        """The kills that these records complete, in their order. A record is `prefix;text`, then ` KEY=value` lines."""
        found = []
        for record in records:
            prefix, _, rest = record.partition(";")
            level, _, when = (*prefix.split(","), "", "", "")[:3]
            if not (level.isdecimal() and when.isdecimal()) or int(level) > 7:
                continue  # facility 0 is the kernel's; what processes write to /dev/kmsg carries another
            text = _unescaped(rest.partition("\n")[0])
            if text.startswith("oom-kill:"):
                self._choose(text)
            elif text.startswith("Tasks in ") and text.endswith(_GROUP_KILL):
                self._whole = text[len("Tasks in ") : -len(_GROUP_KILL)], int(when)
            elif ": Killed process " in text and "ut of memory" in text:
                kill = self._kill(text, int(when))
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
