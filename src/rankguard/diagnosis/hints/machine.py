"""Hints for what a machine refuses: ports, disks, shared memory, files, processes, instructions, names; and core files.

Sources of the texts: strerror(3) of glibc, CPython, torch's `TCPStore.cpp` and `dataloader.py`, OpenBLAS, libgomp.
Numbers come from the look round after the failure (`supervisor/survey.py`); without it the hint says how to find them.
"""

import os

from rankguard.circumstances import Core, Place
from rankguard.diagnosis.evidence import SIGBUS, signal_of
from rankguard.diagnosis.hints import Row, Told
from rankguard.diagnosis.wants import paths_in, port_in
from rankguard.diagnosis.words import several, size, whose

_SIGILL, _SIGSEGV, _SIGFPE = 4, 11, 8
_ROOM = 0.02
"""Of a file system, below which it is called full: other processes may have freed some since."""
_SMALL_SHM = 1 << 30


def _port_in_use(told: Told) -> str | None:
    """Who holds it, as far as that could be seen."""
    wanted = port_in(told.rank)
    uses = [use for survey in told.case.surveys for use in survey.ports if wanted in (None, use.port)]
    if not uses:
        port = f"sport = :{wanted}" if wanted else ""
        return (
            f"see who listens there: `ss -ltnp {port}`".replace(" `", "`")
            if port
            else "see who listens there: `ss -ltnp`"
        )
    use = uses[0]
    who = f"pid {use.pid}" + (f", {use.name}" if use.name else "")
    if use.rank is not None and use.rank == told.rank.rank:
        return f"close port {use.port} before it is bound again: {whose(told.case, told.rank)} holds it itself ({who})"
    if use.rank is not None:
        return f"give each rank a port of its own (base + LOCAL_RANK): {several(told.case, [use.rank])} of this job holds port {use.port} ({who})"
    if use.pid is not None:
        return f"end who holds port {use.port} ({who}), or choose another port"
    if use.state == "time-wait":
        return f"set SO_REUSEADDR before the bind, or wait a minute: port {use.port} only lingers in TIME_WAIT"
    if use.state in ("free", "gone") and len(told.case.ranks) > 1:
        held = f"port {use.port} was likely held by another rank, as nobody held it once the ranks were stopped"
        return f"give each rank a port of its own (base + LOCAL_RANK): {held}"
    if use.state in ("free", "gone"):
        return f"see which process binds port {use.port} for a short time: nobody held it a moment later"
    by = f" of uid {use.uid}" if use.uid is not None else ""
    return f"end who holds port {use.port}{by} or choose another port: {use.why_not} (as root: `ss -ltnp sport = :{use.port}`)"


def _disk_full(told: Told) -> str:
    """Which file system, how full it is, what of it is used up."""
    places = [place for survey in told.case.surveys for place in survey.places]
    named = [place for place in places if place.path in paths_in(told.words) or _above(place, told)]
    full = [place for place in [*named, *places] if _lacks(place)]
    if not full:
        return "free space on the disk that the message names (`df -h`, `df -i`; in a container /dev/shm and /tmp count too)"
    first = full[0]
    if first.mount == "/dev/shm":  # noqa: S108  # the kernel's shared memory
        return f"give /dev/shm more room, it has {size(first.total)}: `docker run --shm-size`, an emptyDir with `medium: Memory`"
    return f"free space on {first.mount}: {_lacks(first)} (`du -xh {first.mount} | sort -h | tail`)"


def _above(place: Place, told: Told) -> bool:
    return any(path.startswith(place.path.rstrip("/") + "/") for path in paths_in(told.words))


def _lacks(place: Place) -> str | None:
    if place.free < max(1 << 20, place.total * _ROOM):
        return f"{size(place.free)} of {size(place.total)} are free"
    if place.inodes and place.inodes_free < max(16, place.inodes * _ROOM):
        return f"{place.inodes_free} of {place.inodes} inodes are free, though {size(place.free)} are"
    return None


def _shm_full(told: Told) -> str | None:
    """The text of a DataLoader, or SIGBUS: how large /dev/shm is, and how full it still was."""
    if told.found is None and signal_of(told.rank) != SIGBUS:
        return None
    shm = told.host.shm
    more = "give it more: `docker run --shm-size=8g`, an emptyDir with `medium: Memory`"
    if shm is None:
        return "SIGBUS often means that /dev/shm is full (`df -h /dev/shm`): " + more
    if shm.total <= _SMALL_SHM or _lacks(shm):
        room = f"{size(shm.total)}, {size(shm.free)} of them free after the failure"
        return f"make /dev/shm larger, which has {room}: `docker run --shm-size=8g`, an emptyDir with `medium: Memory`"
    if told.found is not None:
        return None
    return "look for a mapped file that was cut short or whose disk is full: SIGBUS says that a page of it could not be had"


def _open_files(told: Told) -> str:
    soft, hard = told.case.spec.nofile
    most = (
        f"; up to {hard} without root"
        if hard > soft
        else "; that is the hard limit: `docker run --ulimit nofile=`, limits.conf"
    )
    return f"raise the limit of open files (`ulimit -n`, now {soft}{most})"


def _not_forked(told: Told) -> str | None:
    """EAGAIN is also what a socket says that has nothing to read: only where a process was to be made."""
    raised = told.cause.exception
    made = raised is not None and any(call in (raised.traceback or "") for call in _MAKING)
    return _threads(told) if made else None


_MAKING = ("os.fork(", "fork_exec(", "forkpty(", "start_new_thread(", "posix_spawn")


def _threads(told: Told) -> str:
    """The group's limit where it is nearly met, else the user's."""
    pids, limit = told.host.pids, told.host.processes_limit
    if pids is not None and pids[1] - pids[0] < max(64, pids[1] // 10):
        return f"raise pids.max, which is {pids[1]} with {pids[0]} in use (`docker run --pids-limit`, podPidsLimit)"
    fewer = "let each rank start fewer threads (OMP_NUM_THREADS, DataLoader workers)"
    if limit is not None and limit >= 0:
        return f"raise `ulimit -u`, which is {limit} for all processes and threads of this user, or {fewer}"
    return f"{fewer}, or raise `ulimit -u`, `ulimit -v` and pids.max"


def _permission(told: Told) -> str | None:
    assert told.found is not None
    path = told.found[1]
    return f"see who may reach it: `namei -l {path}`" if path else None


def _no_host(told: Told) -> str:
    named = told.found[1] if told.found and told.found.lastindex else None
    which = f" {named}" if named else ""
    return f"see whether the name resolves here: `getent hosts{which or ' NAME'}`; MASTER_ADDR can be an address, too"


def _other_cpu(told: Told) -> str | None:
    if signal_of(told.rank) != _SIGILL:
        return None
    cpu = f" ({told.host.cpu})" if told.host.cpu else ""
    if told.host.cpu_lacks:
        lacks = ", ".join(told.host.cpu_lacks)
        return f"use a build for this CPU{cpu}, which lacks {lacks}: an instruction that it does not have is likely"
    return f"see which instruction it was (`gdb`, `x/i $pc`): a build for another CPU than this one{cpu}, or a trap of the program"


def _in_library(told: Told) -> str | None:
    """The library in whose code it crashed, by the kernel log; not where that tells nothing."""
    notes = [
        n.note
        for n in told.case.notes
        if n.rank == told.rank.rank and n.note.kind in ("segfault", "trap") and n.note.where
    ]
    where = notes[-1].where if notes else None
    if where is None or where.startswith(("python3", "libpython3", "libc.so", "libc-", "ld-", "_ctypes.")):
        return None
    return f"update or rebuild what `{where}` belongs to: it crashed in that library's code"


def _core(told: Told) -> str:
    """Where the core is, or what it takes to get one."""
    host, exited = told.host, told.rank.exited
    pattern = host.core_pattern
    core = next((core for survey in told.case.surveys for core in survey.cores if core.pid == told.rank.pid), None)
    if exited and exited.ending.core_dumped:
        return _dumped(told, core, pattern)
    if host.core_limit is None:
        return "no core was dumped: `ulimit -c unlimited` before the next run leaves one for `gdb`"
    if host.core_limit == 0:
        into = f"; core_pattern is `{pattern}`" if pattern and not pattern.startswith("|") else ""
        return f"`ulimit -c unlimited` before the next run leaves a core for `gdb`: the limit is 0{into}"
    return f"see why no core was dumped, though `ulimit -c` allows one: core_pattern is `{pattern}`, is its folder writable?"


def _dumped(told: Told, core: Core | None, pattern: str | None) -> str:
    program = told.program or "PROGRAM"
    if core is not None:
        return f"look at the core ({size(core.bytes)}): `gdb {program} {core.path}`"
    if pattern is not None and pattern.startswith("|"):
        handler = os.path.basename(pattern[1:].split()[0]) if pattern[1:].split() else "a program"
        if handler == "systemd-coredump":
            return f"look at the core: `coredumpctl debug {told.rank.pid}`, on the host if this is a container"
        return f"look for the core where the host's `{handler}` puts it: core_pattern hands it over"
    return "a core was dumped: `coredumpctl debug`, or `gdb` with the file that core_pattern names"


def _faulthandler(told: Told) -> str | None:
    """Under our bootstrap it is on already."""
    spec = told.case.spec
    if spec.python or spec.adopted or told.python is None:
        return None
    if "Fatal Python error" in "\n".join(told.rank.exited.log_tail if told.rank.exited else ()):
        return None
    return "run again with PYTHONFAULTHANDLER=1: Python then prints the line in which it crashed"


ROWS = (
    Row(_port_in_use, r"[Aa]ddress already in use|EADDRINUSE", ("exception", "exit-code", "reported-failure", "crash")),
    Row(_disk_full, None, ("disk-full",)),
    Row(
        _shm_full,
        r"killed by signal: Bus error|out of shared memory|unable to (?:open|mmap|allocate|resize|write to) .{0,80}shm|No space left on device: '/dev/shm",
    ),
    Row(_shm_full, None, ("crash",)),
    Row(
        _open_files,
        r"Too many open files|\[Errno 24\]|received 0 items of ancdata",
        owner="limits",
        retry=("no", "the same limit of open files would be met again"),
    ),
    Row(
        _threads,
        r"can't start new thread|pthread_create failed|Thread creation failed|fork: (?:retry: )?Resource temporarily"
        r"|[Cc]annot fork",
        ("exception", "exit-code", "crash", "reported-failure"),
        owner="limits",
        retry=("no", "the same limit of processes would be met again"),
    ),
    Row(
        _not_forked,
        r"BlockingIOError: \[Errno 11\] Resource temporarily unavailable",
        ("exception",),
        owner="limits",
        retry=("no", "the same limit of processes would be met again"),
    ),
    Row(_permission, r"PermissionError: \[Errno 13\] [^:\n]*: '(/[^'\n]+)'", ("exception",), retry=("no", "it may not do so the next time either")),
    Row(
        _no_host,
        r"(?:Failed to resolve '([\w.-]+)'|getaddrinfo|gaierror|Name or service not known|name resolution|nodename nor servname)",
        ("exception", "exit-code", "reported-failure"),
    ),
    Row(_other_cpu, None, ("crash",)),
    Row(_in_library, None, ("crash",)),
    Row(_faulthandler, None, ("crash",)),
    Row(_core, None, ("crash",)),
)  # fmt: skip
