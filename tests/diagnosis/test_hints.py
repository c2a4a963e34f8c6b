"""Each hint from the words that runtimes print, with the numbers of the look round; and what must not bring it.

What can be made to happen on a machine without a GPU happens in `tests/run/test_hints.py`.
"""

import pytest
from tests.diagnosis.cases import START, by_code, by_signal, case, error, killed, reported, suspect

from rankguard.circumstances import Core, GpuHolder, GpuState, Host, KernelNote, Module, Place, PortUse
from rankguard.diagnosis.advice import OWNERS, RETRY
from rankguard.diagnosis.hints import rows
from rankguard.diagnosis.kinds import FAMILIES
from rankguard.diagnosis.verdict import verdict
from rankguard.diagnosis.wants import Wants, wants
from rankguard.facts import GpusRead, KernelNoted, Surveyed
from rankguard.model import Ending, Family, MemoryState

GIB = 1 << 30
SHM = Place("/dev/shm", "/dev/shm", 64 << 20, 1 << 20, 1000, 900)
BIG_SHM = Place("/dev/shm", "/dev/shm", 24 * GIB, 24 * GIB, 1000, 900)


def raised(type_name, message="", *, traceback=None, frames=("/home/me/train.py:3 main",)):
    return suspect(1, report=reported(1, error=error(type_name, message, frames=frames, traceback=traceback)))


def exited(code, *tail):
    return suspect(1, by_code(1, code, log_tail=tail))


def crashed(signal, *tail, core=False):
    end = by_signal(1, signal, log_tail=tail)
    return suspect(1, end.replace(ending=end.ending.replace(core_dumped=core)))


def told(rank, *, host=None, more=None, **found):
    """The verdict's hints; `found` are fields of the look round."""
    surveys = (Surveyed(START + 10.1, host=host, **found),) if host is not None or found else ()
    return verdict(case(rank, surveys=surveys, **(more or {})), "")


def xid(number, rank=None, pid=None):
    text = f"NVRM: Xid (PCI:0000:3b:00): {number}, pid={pid}, name=python3, it failed"
    return KernelNoted(START + 9.9, rank, KernelNote("xid", text, pid, None, "0000:3b:00", number))


def gpus(*held, lost=False, ecc=None):
    holders = tuple(GpuHolder(pid, size, name, rank) for pid, size, name, rank in held)
    state = GpuState(3, "GPU-1f", "00000000:3B:00.0", 80 * GIB, 79 * GIB, ecc, lost, holders)
    return GpusRead(START + 10.5, (state,), "nvidia-ml-py")


SHUT_DOWN = ("terminate called without an active exception", "Fatal Python error: Aborted", "")
OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.20 GiB is free. "
    "Including non-PyTorch memory, this process has 77.90 GiB memory in use. Of the allocated memory 70.00 GiB is "
    "allocated by PyTorch, and 6.50 GiB is reserved by PyTorch but unallocated."
)
OLD_OOM = (
    "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.78 GiB total capacity; 14.50 GiB already allocated; "
    "10.00 MiB free; 14.60 GiB reserved in total by PyTorch)"
)
IN_USE = "[Errno 98] Address already in use"
GUARD = (
    "\n        An attempt has been made to start a new process before the\n        current process has finished its "
    "bootstrapping phase."
)
TCP_STORE = (
    "The server socket has failed to listen on any local network address. port: 29500, useIpv6: false, code: -98, "
    "name: EADDRINUSE, message: address already in use"
)

HINTS = {
    "main guard": (told(raised("RuntimeError", GUARD)), 'below `if __name__ == "__main__":`'),
    "start method": (told(raised("RuntimeError", "context has already been set")), "call `set_start_method` once"),
    "fork after CUDA": (
        told(raised("RuntimeError", "Cannot re-initialize CUDA in forked subprocess. To use CUDA with …")),
        "start those processes by `spawn`",
    ),
    "shadowed": (
        told(
            raised("AttributeError", "module 'random' has no attribute 'seed'"),
            modules=(Module("random", "/home/me/random.py", standard=True),),
        ),
        "rename `/home/me/random.py`: it hides the module `random`",
    ),
    "shadowed package": (
        told(
            raised("ModuleNotFoundError", "No module named 'torch.nn'; 'torch' is not a package"),
            modules=(Module("torch", "/home/me/torch.py"),),
        ),
        "rename `/home/me/torch.py`: it hides the module `torch`",
    ),
    "module elsewhere": (
        told(
            raised("ModuleNotFoundError", "No module named 'vllm'"),
            host=Host(venv=None),
            modules=(Module("vllm", found="/opt/venv"),),
        ),
        "`vllm` is installed in /opt/venv, but the ranks ran under /usr/bin/python3: use `/opt/venv/bin/python -m rankguard`",
    ),
    "active venv": (
        told(raised("ModuleNotFoundError", "No module named 'vllm'"), host=Host(active_venv="/opt/venv")),
        "not in /opt/venv, which is active",
    ),
    "module missing": (
        told(raised("ModuleNotFoundError", "No module named 'vllm.engine'"), host=Host()),
        "no virtual environment: `/usr/bin/python3 -m pip install vllm`",
    ),
    "local-rank": (
        told(exited(2, "usage: train.py [-h]", "train.py: error: unrecognized arguments: --local-rank=1")),
        "read LOCAL_RANK from the environment",
    ),
    "glibc": (
        told(raised("ImportError", "/lib/libc.so.6: version `GLIBC_2.38' not found (required by /x/_C.so)")),
        "was built for GLIBC 2.38 or newer",
    ),
    "undefined symbol": (told(raised("ImportError", "/x/flash.so: undefined symbol: _ZN3c10")), "reinstall the package"),
    "no library": (
        told(raised("ImportError", "libcudart.so.12: cannot open shared object file: No such file or directory")),
        "install `libcudart.so.12`",
    ),
    "gated": (
        told(raised("huggingface_hub.errors.GatedRepoError", "401 Client Error. Cannot access gated repo")),
        "ask for access on the model's page",
    ),
    "no file": (
        told(raised("FileNotFoundError", "[Errno 2] No such file or directory: 'weights/a.safetensors'")),
        "`weights/a.safetensors` is looked for in /work",
    ),
    "port of a stranger": (
        told(raised("RuntimeError", TCP_STORE), ports=(PortUse(29500, "listening", 812, "python3 serve.py"),)),
        "end who holds port 29500 (pid 812, python3 serve.py), or choose another port",
    ),
    "port of a rank": (
        told(raised("OSError", f"{IN_USE}: port 5000"), ports=(PortUse(5000, "listening", 400, "python3", rank=0),)),
        "rank 0 of this job holds port 5000 (pid 400, python3)",
    ),
    "port of its own": (
        told(raised("OSError", f"{IN_USE}: port 5000"), ports=(PortUse(5000, "listening", 401, "python3", rank=1),)),
        "close port 5000 before it is bound again: rank 1 holds it itself",
    ),
    "port in TIME_WAIT": (
        told(raised("OSError", IN_USE, traceback='  s.bind(("127.0.0.1", 5000))'), ports=(PortUse(5000, "time-wait"),)),
        "set SO_REUSEADDR before the bind, or wait a minute: port 5000 only lingers",
    ),
    "port of who is hidden": (
        told(raised("OSError", f"{IN_USE}: port 5000"), ports=(PortUse(5000, "listening", uid=7, why_not="it is hidden"),)),
        "port 5000 of uid 7 or choose another port: it is hidden (as root: `ss -ltnp sport = :5000`)",
    ),
    "port unknown": (told(raised("OSError", IN_USE)), "see who listens there: `ss -ltnp`"),
    "disk": (
        told(
            raised("OSError", "[Errno 28] No space left on device: '/data/ckpt/a'"),
            places=(Place("/data/ckpt", "/data", 100 * GIB, 1 << 19, 9, 9), Place("/work", "/", GIB, GIB, 9, 9)),
        ),
        "free space on /data: 512 KiB of 100 GiB are free",
    ),
    "inodes": (
        told(raised("OSError", "[Errno 28] No space left on device"), places=(Place("/work", "/", GIB, GIB, 5000, 3),)),
        "free space on /: 3 of 5000 inodes are free, though 1.0 GiB are",
    ),
    "disk is shm": (
        told(raised("OSError", "[Errno 28] No space left on device: '/dev/shm/x'"), places=(SHM.replace(free=0),)),
        "give /dev/shm more room, it has 64.0 MiB",
    ),
    "SIGBUS": (told(crashed(7), host=Host(shm=SHM)), "make /dev/shm larger, which has 64.0 MiB, 1.0 MiB of them free"),
    "SIGBUS with room": (told(crashed(7), host=Host(shm=BIG_SHM)), "a mapped file that was cut short"),
    "DataLoader": (
        told(raised("RuntimeError", "DataLoader worker (pid 7) is killed by signal: Bus error."), host=Host(shm=SHM)),
        "make /dev/shm larger",
    ),
    "open files": (
        told(raised("OSError", "[Errno 24] Too many open files"), more={"spec_more": {"nofile": (64, 4096)}}),
        "raise the limit of open files (`ulimit -n`, now 64; up to 4096 without root)",
    ),
    "threads, pids.max": (
        told(raised("RuntimeError", "can't start new thread"), host=Host(pids=(99, 100), processes_limit=5)),
        "raise pids.max, which is 100 with 99 in use",
    ),
    "threads, ulimit": (
        told(raised("RuntimeError", "can't start new thread"), host=Host(pids=(9, 9999), processes_limit=500)),
        "raise `ulimit -u`, which is 500",
    ),
    "OpenBLAS": (
        told(crashed(11, "OpenBLAS blas_thread_init: pthread_create failed for thread 3 of 64: Resource temporarily unavailable")),
        "OMP_NUM_THREADS",
    ),
    "no fork": (
        told(
            raised("BlockingIOError", "[Errno 11] Resource temporarily unavailable", traceback="    pid = os.fork()"),
            host=Host(processes_limit=500),
        ),
        "raise `ulimit -u`, which is 500",
    ),
    "permission": (
        told(raised("PermissionError", "[Errno 13] Permission denied: '/data/x'")), "see who may reach it: `namei -l /data/x`",
    ),
    "host": (
        told(raised("socket.gaierror", "[Errno -2] Name or service not known")), "see whether the name resolves here: `getent hosts NAME`",
    ),
    "SIGILL": (
        told(crashed(4), host=Host(cpu="Old CPU", cpu_lacks=("avx2", "avx512f"))),
        "use a build for this CPU (Old CPU), which lacks avx2, avx512f",
    ),
    "core file": (
        told(crashed(11, core=True), cores=(Core(401, "/home/me/core.401", 3 << 20),)),
        "look at the core (3.0 MiB): `gdb /usr/bin/python3 /home/me/core.401`",
    ),
    "core to systemd": (
        told(crashed(11, core=True), host=Host(core_pattern="|/usr/lib/systemd/systemd-coredump %P %u", core_limit=-1)),
        "`coredumpctl debug 401`",
    ),
    "core to another": (
        told(crashed(11, core=True), host=Host(core_pattern="|/usr/share/apport/apport %p", core_limit=-1)),
        "where the host's `apport` puts it",
    ),
    "no core": (
        told(crashed(11), host=Host(core_pattern="core", core_limit=0)), "the limit is 0; core_pattern is `core`",
    ),
    "no core in spite of the limit": (
        told(crashed(11), host=Host(core_pattern="/x/core", core_limit=-1)), "core_pattern is `/x/core`, is its folder writable?",
    ),
    "OOM in Kubernetes": (
        told(
            suspect(1, by_signal(1, 9), ooms=(killed(1, 401, rss=GIB),)),
            host=Host(container="kubernetes", oom_group=True),
            more={"memory": MemoryState(limit_bytes=4 * GIB, limit_from="memory.max of /sys/fs/cgroup")},
        ),
        "`resources.limits.memory` of the container, which is 4.0 GiB now; `kubectl describe pod` says OOMKilled; memory.oom.group",
    ),
    "OOM in Slurm": (
        told(
            suspect(1, by_signal(1, 9), ooms=(killed(1, 401, rss=GIB),)),
            host=Host(slurm_job="4711"),
            more={"memory": MemoryState(limit_bytes=4 * GIB, limit_from="memory.max of /sys/fs/cgroup")},
        ),
        "`sacct -j 4711 -o JobID,State,ReqMem,MaxRSS`",
    ),
    "killed in Slurm": (told(crashed(9), host=Host(slurm_job="4711")), "`sacct -j 4711 -o JobID,State,ExitCode`"),
    "killed in Kubernetes": (told(crashed(9), host=Host(container="kubernetes")), "`kubectl describe pod`, `kubectl get events`"),
    "exit 137 in Kubernetes": (told(exited(137), host=Host(container="kubernetes")), "`kubectl describe pod` says OOMKilled if"),
    "CUDA out of memory": (
        told(raised("torch.OutOfMemoryError", OOM)), "2.0 GiB more were asked for with 1.2 GiB free of 79.2 GiB on GPU 0",
    ),
    "fragments": (
        told(raised("torch.OutOfMemoryError", OOM)), "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: 6.5 GiB are reserved",
    ),
    "fragments, old": (
        told(raised("RuntimeError", OLD_OOM)), "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: 102 MiB are reserved",
    ),
    "others hold the GPU": (
        told(raised("torch.OutOfMemoryError", OOM), more={"gpus": gpus((9123, 61 * GIB, "python3", None), (401, GIB, "x", 1))}),
        "end who else holds GPU memory, by the driver's numbers: pid 9123 (python3) 61.0 GiB of GPU 3",
    ),
    "two ranks on a GPU": (
        told(raised("torch.OutOfMemoryError", OOM), more={"gpus": gpus((400, 40 * GIB, "x", 0), (401, 39 * GIB, "x", 1))}),
        "ranks 0, 1 hold memory of GPU 3",
    ),
    "ordinal": (
        told(raised("RuntimeError", "CUDA error: invalid device ordinal"), host=Host(gpus=2)),
        "4 ranks, 2 GPUs for this job (`-n gpu`)",
    ),
    "duplicate GPU": (
        told(raised("torch.distributed.DistBackendError", "ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0")),
        "let each rank use its own GPU",
    ),
    "NCCL and a small shm": (
        told(raised("RuntimeError", "NCCL error: unhandled system error (run with NCCL_DEBUG=INFO)"), host=Host(shm=SHM)),
        "give /dev/shm more room: it has 64.0 MiB, and NCCL keeps buffers there",
    ),
    "NCCL": (told(raised("RuntimeError", "NCCL error: unhandled cuda error")), "run again with NCCL_DEBUG=INFO"),
    "NCCL's interface": (
        told(raised("RuntimeError", "Bootstrap : no socket interface found")), "NCCL_SOCKET_IFNAME",
    ),
    "illegal access": (
        told(raised("torch.AcceleratorError", "CUDA error: an illegal memory access was encountered")),
        "CUDA_LAUNCH_BLOCKING=1",
    ),
    "Xid 31": (
        told(raised("torch.AcceleratorError", "CUDA error: unknown failure"), more={"notes": (xid(31, 1, 401),)}),
        "Xid 31 says GPU memory page fault",
    ),
    "Xid 79": (
        told(raised("RuntimeError", "CUDA error: unspecified launch failure"), more={"notes": (xid(79, 1, 401),)}),
        "run it on another machine; here: drain the machine",
    ),
    "ECC": (
        told(raised("RuntimeError", "CUDA error: uncorrectable ECC error encountered"), more={"gpus": gpus(ecc=2)}),
        "GPU 3 (00000000:3B:00.0) has had 2 uncorrected ECC errors",
    ),
    "in a library": (
        told(
            crashed(11),
            more={"notes": (KernelNoted(START + 9.9, 1, KernelNote("segfault", "x", 401, "p", "libfoo.so")),)},
        ),
        "update or rebuild what `libfoo.so` belongs to",
    ),
    "stdin": (told(raised("EOFError", "EOF when reading a line")), "--stdin 1"),
    "breakpoint": (told(raised("bdb.BdbQuit")), "--debug 1"),
    "Python had shut down": (told(crashed(6, *SHUT_DOWN, "Extension modules: torch._C (total: 1)")), "pytorch issue 190489"),
    "Python had shut down, and faulthandler crashed": (
        told(crashed(11, "torch/x.py:4: UserWarning: y", *SHUT_DOWN, "Thread 0xFatal Python error: Segmentation fault")),
        "call `destroy_process_group()` at the end, with `import torch.distributed.nn` before `init_process_group`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("verdict_", "hint"), HINTS.values(), ids=HINTS)
def test_hint(verdict_, hint) -> None:
    assert hint in "\n".join(verdict_.hints)


QUIET = {
    "a plain exception": told(raised("ValueError", "bad shape"), host=Host(shm=SHM, gpus=0)),
    "a port that somebody says": told(raised("ValueError", "port 5000 is odd"), ports=(PortUse(5000, "listening", 1),)),
    "a module of the program's own attributes": told(
        raised("AttributeError", "module 'mine' has no attribute 'x'"), modules=(Module("mine", "/home/me/mine.py"),)
    ),
    "a socket with nothing to read": told(
        raised("BlockingIOError", "[Errno 11] Resource temporarily unavailable", traceback="    s.recv(1)"),
        host=Host(processes_limit=500),
    ),
    "an absolute path": told(raised("FileNotFoundError", "[Errno 2] No such file or directory: '/a/b'")),
    "a timeout that names a device": told(raised("TimeoutError", "no answer from device /dev/sda"), host=Host()),
    "a message about a rank's argument": told(raised("ValueError", "local_rank is missing")),
}


@pytest.mark.parametrize("verdict_", QUIET.values(), ids=QUIET)
def test_no_hint(verdict_) -> None:
    assert verdict_.hints == ()


NOT_SHOWN = {
    "Kubernetes where the machine ran out": (
        told(
            suspect(1, by_signal(1, 9), ooms=(killed(1, 401, rss=GIB, whole=True),)), host=Host(container="kubernetes")
        ),
        "kubectl",
    ),
    "fragments that would not do": (
        told(raised("torch.OutOfMemoryError", OOM.replace("6.50 GiB", "0.50 GiB"))),
        "expandable",
    ),
    "a desktop on the GPU": (
        told(raised("torch.OutOfMemoryError", OOM), more={"gpus": gpus((9, 5 << 20, "Xorg", None))}),
        "end who",
    ),
    "a library of the system": (
        told(
            crashed(11),
            more={"notes": (KernelNoted(START + 9.9, 1, KernelNote("segfault", "x", 401, "p", "libc.so.6")),)},
        ),
        "rebuild",
    ),
    "a thread that was not joined, without torch": (told(crashed(6, *SHUT_DOWN)), "190489"),
    "an abort of torch in other words": (
        told(crashed(6, "torch", "terminate called after throwing an instance of 'x'")),
        "190489",
    ),
    "another CPU for a SIGSEGV": (told(crashed(11), host=Host(cpu_lacks=("avx2",))), "avx2"),
    "shm for a SIGSEGV": (told(crashed(11), host=Host(shm=SHM)), "shm"),
    "NCCL with enough shm": (
        told(raised("RuntimeError", "NCCL error: unhandled system error"), host=Host(shm=BIG_SHM)),
        "shm",
    ),
}


@pytest.mark.parametrize(("verdict_", "hint"), NOT_SHOWN.values(), ids=NOT_SHOWN)
def test_hint_is_not_shown(verdict_, hint) -> None:
    assert hint not in "\n".join(verdict_.hints)


def test_every_row_is_shown_by_some_test_and_can_be_told_in_one_line() -> None:
    shown = [hint for verdict_, _ in HINTS.values() for hint in verdict_.hints]
    assert [hint for hint in shown if "\n" in hint or len(hint) > 240] == []
    assert len({row.name for row in rows()}) >= 40


# ── Whose matter it is, whether to try again ─────────────────────────────────────────────────────────────────────────


def test_owner_and_retry_are_complete() -> None:
    assert set(FAMILIES) == set(RETRY)
    assert set(Family) == set(OWNERS)
    assert {advice for advice, _because in RETRY.values()} <= {"yes", "no", "elsewhere", "unknown"}


RETRIES = {
    "no module": (told(raised("ModuleNotFoundError", "No module named 'x'"), host=Host()), "program", "no"),
    "open files": (told(raised("OSError", "[Errno 24] Too many open files")), "limits", "no"),
    "Xid 79": (
        told(raised("RuntimeError", "CUDA error: unknown"), more={"notes": (xid(79, 1, 401),)}),
        "machine",
        "elsewhere",
    ),
    "Xid 31": (
        told(raised("RuntimeError", "CUDA error: illegal"), more={"notes": (xid(31, 1, 401),)}),
        "program",
        "unknown",
    ),
    "an exception": (told(raised("ValueError", "x")), "program", "unknown"),
}


@pytest.mark.parametrize(("verdict_", "owner", "advice"), RETRIES.values(), ids=RETRIES)
def test_owner_and_retry(verdict_, owner, advice) -> None:
    assert (owner, advice) == (verdict_.owner, verdict_.retry.advice)


# ── GPUs as causes ───────────────────────────────────────────────────────────────────────────────────────────────────

GPU_CASES = {
    "its process is named": ((xid(79, 1, 401),), "RuntimeError", "CUDA error: x", "gpu-error", "proven"),
    "its process is named, whatever it says": ((xid(94, 1, 401),), "ValueError", "x", "gpu-error", "proven"),
    "no process is named": ((xid(79),), "RuntimeError", "CUDA error: x", "gpu-error", "likely"),
    "no process is named, and it speaks of no GPU": ((xid(79),), "ValueError", "x", "exception", "proven"),
    "another rank's": ((xid(79, 0, 400),), "RuntimeError", "CUDA error: x", "exception", "proven"),
    "somebody else's": ((xid(79, None, 9),), "RuntimeError", "CUDA error: x", "exception", "proven"),
    "the program's own": ((xid(13, 1, 401),), "RuntimeError", "CUDA error: x", "exception", "proven"),
    "a clean-up": ((xid(45, 1, 401),), "RuntimeError", "CUDA error: x", "exception", "proven"),
    "a number that nobody knows": ((xid(999, 1, 401),), "RuntimeError", "CUDA error: x", "exception", "proven"),
}


@pytest.mark.parametrize(("notes", "type_name", "message", "kind", "confidence"), GPU_CASES.values(), ids=GPU_CASES)
def test_gpu_errors(notes, type_name, message, kind, confidence) -> None:
    cause = told(raised(type_name, message), more={"notes": notes}).culprit.cause

    assert (kind, confidence) == (cause.kind, cause.confidence.value)
    named = any(each.note.number for each in notes if each.rank == 1) or kind == "gpu-error"
    assert named == any(each.source == "kernel log" for each in cause.evidence)


def test_a_lost_gpu_counts_for_a_rank_that_speaks_of_it() -> None:
    speaks = told(raised("RuntimeError", "CUDA error: unknown"), more={"gpus": gpus(lost=True)}).culprit.cause
    silent = told(raised("ValueError", "x"), more={"gpus": gpus(lost=True)}).culprit.cause

    assert (speaks.kind, speaks.confidence.value) == ("gpu-error", "likely")
    assert speaks.evidence[0].statement == "GPU 3 (00000000:3B:00.0) is lost"
    assert silent.kind == "exception"


# ── What is looked at ────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_looked_at_without_a_reason() -> None:
    assert Wants() == wants(raised("ValueError", "x"))
    assert Wants() == wants(exited(3, "done"))


@pytest.mark.parametrize(
    ("rank", "port"),
    [
        (raised("RuntimeError", TCP_STORE), 29500),
        (raised("OSError", "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"), 8000),
        (raised("zmq.ZMQError", "Address already in use (addr='tcp://127.0.0.1:5555')"), 5555),
        (raised("OSError", "Failed to bind to address 0.0.0.0:50051: Address already in use"), 50051),
        (raised("OSError", "[Errno 98] Address already in use", traceback='    s.bind(("127.0.0.1", 29777))'), 29777),
        (raised("OSError", "[Errno 98] Address already in use", traceback="    s.bind((host, port))"), None),
        (raised("OSError", "[Errno 98] Address already in use", traceback="  TCPStore(host, port)"), 29999),
    ],
)  # fmt: skip
def test_the_port_that_is_in_use(rank, port) -> None:
    assert (() if port is None else (port,)) == wants(rank, 29999).ports


def test_a_core_is_looked_for_where_one_was_written() -> None:
    assert wants(crashed(11, core=True)).cores == (401,)
    assert wants(crashed(11)).cores == ()
    assert Ending("signal", number=11) != crashed(11).exited.ending
