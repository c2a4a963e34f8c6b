"""Checks of what the kernel lets us do with processes: to start, watch, end, count and name them."""

import ctypes
import os
import signal
import socket
import struct
import time

from rankguard.doctor.check import Answer, Check, Machine, limited, missing, ok, unknown
from rankguard.linux import tree
from rankguard.linux.exitorder import ExitOrder
from rankguard.linux.files import read_text
from rankguard.linux.foreign import reaped_ending
from rankguard.linux.kmsg import in_init_pid_namespace
from rankguard.linux.libc import PR_SET_PDEATHSIG, become_subreaper, prctl, signalfd

_OLD = "use a kernel of 5.4 or newer, and a sandbox that lets the call through (gVisor, seccomp)"
_PTRACE_SEIZE = 0x4206
_CAPABILITIES = {5: "KILL", 12: "NET_ADMIN", 19: "SYS_PTRACE", 21: "SYS_ADMIN", 24: "SYS_RESOURCE", 34: "SYSLOG"}


def _pidfd(_machine: Machine) -> Answer:
    child = _child(lambda: os._exit(7))
    try:
        fd = os.pidfd_open(child)
        ended = os.waitid(os.P_PIDFD, fd, os.WEXITED)
    except OSError as error:
        return missing(f"pidfd_open: {error.strerror}", "no rank can be watched", _OLD)
    return (
        ok("endings are told by the kernel") if ended and ended.si_status == 7 else unknown("a wrong status", "?", _OLD)
    )


def _wait_without_reaping(_machine: Machine) -> Answer:
    child = _child(lambda: os._exit(3))
    seen = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    again = os.waitid(os.P_PID, child, os.WEXITED)
    if seen and again and (seen.si_status, again.si_status) == (3, 3):
        return ok("an ending can be looked at before it is reaped")
    return missing("WNOWAIT does not keep the status", "evidence of a death is gone before it is read", _OLD)


def _status_of_others(_machine: Machine) -> Answer:
    """What `PIDFD_GET_INFO` says of a process that somebody has reaped."""
    told, tell = os.pipe()
    child = _child(lambda: (os.read(told, 1), os._exit(7)))
    fd = os.pidfd_open(child)
    os.write(tell, b"x")
    os.waitpid(child, 0)
    ending = reaped_ending(fd)
    if ending is not None and ending.code == 7:
        return ok("told by the kernel, also after somebody else reaped them")
    return limited(
        "not told by this kernel once they are reaped",
        "`wait_ready` and `guard` may have to say `status unknown` of a process that its owner reaped first;"
        " `run` and `launch` lose nothing",
        "a kernel of 6.15 or newer (PIDFD_GET_INFO with the exit status)",
    )


def _exit_order(_machine: Machine) -> Answer:
    order = ExitOrder()
    os.waitpid(_child(lambda: os._exit(0)), 0)
    told = list(order.take())
    order.close()
    if told:
        return ok("the kernel tells in what order ranks began to exit")
    return limited(
        order.why_not or "the kernel sends nothing to this network namespace",
        "of ranks that end without a word, nobody knows who was first: `either` names them all",
        "root with CAP_NET_ADMIN, in the machine's own namespaces, and a kernel of 5.19 or newer",
    )


def _subreaper(_machine: Machine) -> Answer:
    """An orphan of ours has to become our child."""
    become_subreaper()
    told, tell = os.pipe()
    may_end, end = os.pipe()

    def middle() -> None:
        orphan = os.fork()
        if orphan == 0:  # by hand: it must not die with the one that it is an orphan of
            signal.alarm(10)
            os.read(may_end, 1)
            os.write(tell, str(os.getppid()).encode())
            os._exit(0)
        os._exit(0)

    os.waitpid(_child(middle), 0)
    os.write(end, b"x")
    if int(os.read(told, 32)) == os.getpid():
        os.waitpid(-1, 0)
        return ok("orphans of the ranks fall to us")
    return missing("an orphan did not fall to us", "what ranks leave behind cannot be found and ended", _OLD)


def _parent_death_signal(_machine: Machine) -> Answer:
    """A process that asked for it has to die with its parent."""
    become_subreaper()
    told, tell = os.pipe()

    def rank() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.write(tell, b"x")
        time.sleep(1.5)
        os._exit(0)

    def parent() -> None:
        _child(rank)
        os.read(told, 1)
        os._exit(0)

    os.waitpid(_child(parent), 0)
    _pid, status = os.waitpid(-1, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return ok("ranks die with us, whatever kills us")
    return limited(
        "it did not come", "ranks live on when all three processes of rankguard are killed in one instant", _OLD
    )


def _signalfd(_machine: Machine) -> Answer:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    fd = signalfd({signal.SIGUSR1})
    os.kill(os.getpid(), signal.SIGUSR1)
    number, _errno, _code, pid, _uid = struct.unpack_from("IiiII", os.read(fd, 128))
    if (number, pid) == (signal.SIGUSR1, os.getpid()):
        return ok("signals come with the pid of their sender")
    return limited("signals come without their sender", "`stopped_by` cannot name who asked for the end", _OLD)


def _senders(_machine: Machine) -> Answer:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        theirs.send(b"x")
        _data, ancillary, _flags, _address = ours.recvmsg(1, socket.CMSG_SPACE(12))
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and struct.unpack("iII", data)[
            0
        ] == os.getpid():
            return ok("messages of ranks come with the pid of their sender")
    return missing("messages come without their sender", "readiness cannot be told from a stranger's", _OLD)


def _memfd(_machine: Machine) -> Answer:
    try:
        os.close(os.memfd_create("rankguard-doctor"))
    except OSError as error:
        return missing(
            f"memfd_create: {error.strerror}",
            "`launch` of a function cannot carry arguments; `run` loses nothing",
            _OLD,
        )
    return ok("arguments and payloads of any size travel in memory")


def _children_file(_machine: Machine) -> Answer:
    child = _child(lambda: time.sleep(30))
    found = tree.children(os.getpid())
    os.kill(child, signal.SIGKILL)
    if child in found:
        return ok("the whole tree below a process can be found")
    return missing(
        "/proc/PID/task/TID/children lists no child",
        "processes that ranks leave behind cannot be found, nor is their end proved",
        "a kernel with CONFIG_PROC_CHILDREN, and /proc mounted",
    )


def _proc(_machine: Machine) -> Answer:
    options = ""
    for line in (read_text("/proc/self/mounts") or "").splitlines():
        fields = line.split()
        if fields[1] == "/proc" and fields[2] == "proc":
            options = fields[3]
    if not os.path.exists("/proc/self/stat"):
        return missing(
            "/proc is not mounted", "memory, states and children of ranks cannot be read", "mount -t proc proc /proc"
        )
    if read_text("/proc/1/stat") is not None:
        return ok("processes of others can be seen")
    return limited(
        f"processes of other users are hidden ({options})" if "hidepid" in options else "pid 1 cannot be seen",
        "who sent a signal, or who holds a GPU or a port, may have no name in a report",
        "mount -o remount,hidepid=0 /proc, or the group of its gid= option",
    )


def _pid_namespace(_machine: Machine) -> Answer:
    if in_init_pid_namespace():
        return ok("the initial one: pids in the kernel log are those that we see")
    return limited(
        "not the initial one (a container)",
        "a kernel log line names a rank by its cgroup only, not by its pid",
        "docker run --pid=host; or writable cgroups, which make this no loss (check `rank-groups`)",
    )


def _init(_machine: Machine) -> Answer:
    name = (read_text("/proc/1/comm") or "?").strip()
    where = [
        what
        for what, told in (
            ("Kubernetes", os.environ.get("KUBERNETES_SERVICE_HOST")),
            ("Docker", os.path.exists("/.dockerenv")),
            ("Podman", os.path.exists("/run/.containerenv")),
            ("Slurm", os.environ.get("SLURM_JOB_ID")),
            ("systemd", os.path.isdir("/run/systemd/system")),
        )
        if told
    ]
    return ok(f"pid 1 is `{name}`; {', '.join(where) or 'no container, batch system or systemd is seen'}", pid_1=name)


def _user(_machine: Machine) -> Answer:
    mask = _status_field("CapEff")
    held = [name for bit, name in _CAPABILITIES.items() if mask >> bit & 1]
    return ok(
        f"uid {os.getuid()}; {'CAP_' + ', CAP_'.join(held) if held else 'no special capabilities'}", uid=os.getuid()
    )


def _sigchld(machine: Machine) -> Answer:
    if not machine.sigchld_ignored:
        return ok("not ignored")
    return limited(
        "ignored by whoever started us",
        "rankguard undoes it for itself; a Python program started the same way sees every failure as exit code 0",
        "start from a shell or service that does not ignore SIGCHLD (`trap - CHLD`)",
    )


def _ptrace(_machine: Machine) -> Answer:
    """Whether a process beside a rank (py-spy) may look into it: not its parent, the same user."""
    target = _child(lambda: time.sleep(30))
    told, tell = os.pipe()

    def tracer() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        failed = libc.ptrace(_PTRACE_SEIZE, target, None, None) != 0
        os.write(tell, bytes([ctypes.get_errno() if failed else 0]))
        os._exit(0)

    os.waitpid(_child(tracer), 0)
    error = os.read(told, 1)[0]
    os.kill(target, signal.SIGKILL)
    scope = (read_text("/proc/sys/kernel/yama/ptrace_scope") or "").strip()
    if not error:
        return ok("one process may look into another of the same user")
    return limited(
        f"not allowed: {os.strerror(error)}" + (f" (kernel.yama.ptrace_scope = {scope})" if scope else ""),
        "stacks of Python ranks have the calls of the main thread only; of other programs what the kernel tells",
        "sysctl kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE)",
    )


def _kill_others(_machine: Machine) -> Answer:
    """Start and end a process: the least that a launcher has to be able to do."""
    child = _child(lambda: time.sleep(30))
    os.kill(child, signal.SIGTERM)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ok("processes can be started and ended")
    return missing("a child did not end by SIGTERM", "ranks cannot be stopped", _OLD)


def _child(work: object) -> int:
    """Fork; the child does `work` and ends. It dies with us."""
    pid = os.fork()
    if pid == 0:
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            work()  # type: ignore[operator]  # a function or lambda
        finally:
            os._exit(1)
    return pid


def _status_field(name: str) -> int:
    for line in (read_text("/proc/self/status") or "").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1], 16)
    return 0


_G = "processes"
CHECKS = (
    Check("start-and-end", _G, "start a process and end it", _kill_others, essential=True),
    Check("pidfd", _G, "open a pidfd of a child and wait on it", _pidfd, essential=True),
    Check("wait-without-reaping", _G, "look at an ending with WNOWAIT, then reap it", _wait_without_reaping, essential=True),
    Check("status-of-others", _G, "ask PIDFD_GET_INFO for the exit status of a process that is reaped", _status_of_others),
    Check("exit-order", _G, "be told by the kernel when a child begins to exit (taskstats)", _exit_order),
    Check("subreaper", _G, "become a subreaper and be given an orphan", _subreaper, essential=True),
    Check("parent-death-signal", _G, "see a process die with its parent (PR_SET_PDEATHSIG)", _parent_death_signal),
    Check("signalfd", _G, "read a signal and its sender from a signalfd", _signalfd, essential=True),
    Check("message-senders", _G, "receive a datagram with its sender's pid (SO_PASSCRED)", _senders, essential=True),
    Check("memfd", _G, "make a file in memory (memfd_create)", _memfd),
    Check("children-file", _G, "find a child in `/proc/PID/task/TID/children`", _children_file, essential=True),
    Check("proc", _G, "see processes of others in /proc (hidepid)", _proc),
    Check("pid-namespace", _G, "whether pids are those of the kernel log", _pid_namespace),
    Check("surroundings", _G, "pid 1, container, batch system", _init),
    Check("user", _G, "user and capabilities", _user),
    Check("sigchld", _G, "whether SIGCHLD is ignored", _sigchld),
    Check("ptrace", _G, "attach to a process of the same user that is no child (as py-spy does)", _ptrace),
)  # fmt: skip
