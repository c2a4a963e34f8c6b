"""Each check's other answer, on a machine where it is really so: mounts, limits, namespaces, forbidden system calls."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.doctor.machine import X86_64, examine, forbid

from rankguard.linux.gpu_program import parse_smi

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root for namespaces")
LIMITED, MISSING = "limited", "missing"


@needs_root
def test_spoiled_mounts(tmp_path: Path) -> None:
    """Many at once: the checks do not depend on one another."""
    fake = tmp_path / "fake"
    fake.mkdir()
    for name, text in (
        ("core_pattern", "|/usr/lib/handler %p\n"),
        ("overcommit_memory", "2\n"),
        ("meminfo", "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nSwapTotal: 4000000 kB\nSwapFree: 3000000 kB\n"),
        ("ip_local_port_range", "1024 65535\n"),
    ):
        (fake / name).write_text(text)
    spoil = f"""
        for m in $(awk '$3 ~ /cgroup/ {{print $2}}' /proc/mounts); do mount -o remount,ro,bind $m; done
        mount --bind /dev/null /dev/kmsg
        mount -t tmpfs -o size=1m none /dev/shm
        mount -t tmpfs -o noexec none $TMPDIR
        mount -t tmpfs -o size=1m none $RANKGUARD_HOME
        mount --bind {fake}/core_pattern /proc/sys/kernel/core_pattern
        mount --bind {fake}/overcommit_memory /proc/sys/vm/overcommit_memory
        mount --bind {fake}/meminfo /proc/meminfo
        mount --bind {fake}/ip_local_port_range /proc/sys/net/ipv4/ip_local_port_range
    """
    found = examine(tmp_path, spoil=spoil)

    ids = (
        "rank-groups", "kernel-log", "dev-shm", "tmp", "run-home", "cores", "overcommit", "swap", "master-port",
    )  # fmt: skip
    assert found.states(*ids) == dict.fromkeys(ids, LIMITED)
    assert "noexec" in found.checks["tmp"]["found"]
    assert "`/usr/lib/handler`" in found.checks["cores"]["found"]
    assert found.status == 0  # nothing of it is essential


@needs_root
def test_nothing_can_be_written_and_nothing_is_mounted(tmp_path: Path) -> None:
    spoil = """
        umount -l /sys/fs/cgroup/* /sys/fs/cgroup 2>/dev/null || true
        mount -t tmpfs -o ro none /dev/shm
        mount -t tmpfs -o ro none $TMPDIR
        mount -t tmpfs -o ro none $RANKGUARD_HOME
        mount -t tmpfs -o ro none /tmp 2>/dev/null || true
    """
    env = {"HOME": "/nonexistent", "XDG_STATE_HOME": "/proc", "XDG_RUNTIME_DIR": "/proc"}
    found = examine(tmp_path, spoil=spoil, env=env)

    states = {"cgroups": LIMITED, "rank-groups": LIMITED, "dev-shm": MISSING, "tmp": LIMITED, "run-home": LIMITED,
              "socket-folder": LIMITED, "oom-counter": "ok"}  # fmt: skip
    assert found.states(*states) == states  # /proc/vmstat still counts OOM kills
    assert found.status == 0


@needs_root
def test_a_cgroup2_that_kills_as_a_whole_and_has_a_quota(tmp_path: Path) -> None:
    own = next((line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line), None)
    if own is None:
        pytest.skip("no cgroup2 is mounted")
    # This kernel's own cgroup2 has no memory controller: files of the same names lie where it is looked for.
    spoil = f"mount -t tmpfs none {own}; echo 1 >{own}/memory.oom.group; echo 50000 100000 >{own}/cpu.max"
    found = examine(tmp_path, "-n", "1", spoil=spoil)

    assert found.states("oom-group", "cpus") == {"oom-group": LIMITED, "cpus": LIMITED}
    assert "for 0.5 of them in time" in found.checks["cpus"]["found"]


@needs_root
def test_other_namespaces(tmp_path: Path) -> None:
    found = examine(tmp_path, spoil="hostname no-such-name", unshare="-n -u --pid --fork --kill-child --mount-proc")

    ids = ("loopback", "hostname", "pid-namespace")
    assert found.states(*ids) == dict.fromkeys(ids, LIMITED)
    assert found.checks["surroundings"]["details"]["pid_1"].startswith("python")
    assert found.status == 0


@needs_root
def test_hidden_processes(tmp_path: Path) -> None:
    plain = system_python()
    spoil = "mount -o remount,hidepid=2 /proc"
    with open_folder() as top:
        words = [*plain_user(), "env", f"PYTHONPATH={top}/src", "PYTHONDONTWRITEBYTECODE=1", plain]
        code = "from rankguard.cli import main; main(['doctor', '--json'])"
        ended = subprocess.run(
            ["unshare", "-m", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", f'{spoil}\n"$@"', "sh",
             *words, "-c", code],
            env={"PATH": os.environ["PATH"]}, cwd="/", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert '"id": "proc", "group": "processes", "state": "limited"' in ended.stdout, ended.stderr


@needs_root
@pytest.mark.slow
def test_as_a_plain_user(tmp_path: Path) -> None:
    python = system_python()
    with open_folder() as top:
        words = [
            *plain_user(),
            "prlimit",
            "--nproc=9",
            "env",
            "-i",
            f"PYTHONPATH={top}/src",
            "PYTHONDONTWRITEBYTECODE=1",
        ]
        ended = subprocess.run(
            [*words, python, "-m", "rankguard", "doctor", "-n", "64"], cwd="/", capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
    problems = {
        line.split()[1]: line.split()[0]
        for line in ended.stdout.splitlines()
        if line.startswith(("limited", "missing"))
    }
    assert problems["rank-groups"] == problems["kernel-log"] == LIMITED, ended.stdout + ended.stderr
    assert problems["process-count"] == MISSING
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("limit", "value", "check"),
    [
        (resource.RLIMIT_AS, 8 << 30, "address-space"),
        (resource.RLIMIT_FSIZE, 1 << 30, "file-size"),
        (resource.RLIMIT_CORE, resource.RLIM_INFINITY, "cores"),
    ],
)
def test_limits(tmp_path: Path, limit: int, value: int, check: str) -> None:
    hard = resource.getrlimit(limit)[1]
    if hard != resource.RLIM_INFINITY and value > hard:
        pytest.skip("the limit cannot be raised here")
    found = examine(tmp_path, first=lambda: resource.setrlimit(limit, (value, hard)))

    assert found.states(check) == {check: LIMITED}
    assert found.status == 0


def test_few_open_files(tmp_path: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    enough, scarce, too_few = (examine(tmp_path, "-n", n, first=few) for n in ("2", "6", "64"))

    assert [each.checks["open-files"]["state"] for each in (enough, scarce, too_few)] == ["ok", LIMITED, MISSING]
    assert [each.status for each in (enough, scarce, too_few)] == [0, 0, 1]
    assert [each["id"] for each in too_few.checks.values() if each["state"] == "unknown"] == []


def test_ignored_sigchld_is_told_and_disturbs_no_check(tmp_path: Path) -> None:
    found = examine(tmp_path, first=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None)

    assert found.states("sigchld") == {"sigchld": LIMITED}
    assert [each["id"] for each in found.checks.values() if each["state"] in ("unknown", MISSING)] == []


def test_one_cpu(tmp_path: Path) -> None:
    one = min(os.sched_getaffinity(0))

    found = examine(tmp_path, "-n", "2", first=lambda: os.sched_setaffinity(0, {one}))

    assert found.checks["cpus"]["found"].startswith("1 of ")
    assert found.states("cpus") == {"cpus": LIMITED}


def test_an_oom_score_that_cannot_be_raised(tmp_path: Path) -> None:
    found = examine(tmp_path, first=lambda: Path("/proc/self/oom_score_adj").write_text("1000") and None)

    assert found.states("oom-score") == {"oom-score": LIMITED}


@pytest.mark.skipif(not X86_64, reason="the numbers of system calls are x86_64's")
def test_forbidden_system_calls(tmp_path: Path) -> None:
    ptrace, memfd_create, pidfd_open, signalfd4 = 101, 319, 434, 289

    milder = examine(tmp_path, first=forbid(ptrace, memfd_create))
    harder = examine(tmp_path, first=forbid(pidfd_open, signalfd4))

    assert milder.states("ptrace", "memfd") == {"ptrace": LIMITED, "memfd": MISSING}
    assert (milder.status, milder.told["can_run"]) == (0, True)
    assert harder.states("pidfd") == {"pidfd": MISSING}
    assert harder.checks["signalfd"]["state"] == MISSING
    assert (harder.status, harder.told["can_run"]) == (1, False)


@pytest.mark.slow
@needs_root
def test_a_folder_on_a_dead_server(tmp_path: Path) -> None:
    """A FUSE file system whose server never answers: every access waits for ever."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("no /dev/fuse")
    code = """
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(fd, True)
home = os.environ["RANKGUARD_HOME"].encode()
options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
if ctypes.CDLL(None, use_errno=True).mount(b"dead", home, b"fuse.dead", 0, options):
    sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""
    began = time.monotonic()
    asked = ["unshare", "-m", sys.executable, "-c", code]
    found = examine(tmp_path, user=asked)

    assert found.checks["run-home"]["state"] == "unknown"
    assert "no answer within" in found.checks["run-home"]["found"]
    assert found.status == 0
    assert time.monotonic() - began < 60


def test_segments_without_a_user(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root for a /dev/shm of its own")
    spoil = """
        mount -t tmpfs none /dev/shm
        head -c 4096 /dev/zero >/dev/shm/psm_forgotten
        head -c 4096 /dev/zero >/dev/shm/psm_used
        exec 9</dev/shm/psm_used
    """
    found = examine(tmp_path, spoil=spoil)

    assert found.states("stale-shm") == {"stale-shm": LIMITED}
    segments = [each["path"] for each in found.checks["stale-shm"]["details"]["segments"] if each["kind"] == "shm"]
    assert segments == ["/dev/shm/psm_forgotten"]


def test_a_driver_without_a_gpu(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 9\n")
    tool.chmod(0o755)
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("there is a GPU")
    found = examine(tmp_path, env={"PATH": f"{tool.parent}:{os.environ['PATH']}"})

    assert found.states("gpus", "gpu-memory") == {"gpus": MISSING, "gpu-memory": "ok"}
    assert found.status == 0


def test_rows_of_nvidia_smi() -> None:
    text = "0, GPU-1f, 00000000:3B:00.0, 81559, 1024, 0\n1, GPU-2f, 00000000:5E:00.0, [GPU is lost], 3, [N/A]\nNo devices were found\n"

    well = {"index": 0, "uuid": "GPU-1f", "pci": "00000000:3B:00.0", "total": 81559 << 20, "used": 1 << 30, "ecc": 0}
    lost = {"index": 1, "uuid": "GPU-2f", "pci": "00000000:5E:00.0", "total": None, "used": 3 << 20, "ecc": None}
    assert parse_smi(text) == [well | {"lost": False, "holders": []}, lost | {"lost": True, "holders": []}]


# ── Somebody else ────────────────────────────────────────────────────────────────────────────────────────────────────


def system_python() -> str:
    """A Python that other users may execute."""
    found = shutil.which("python3", path="/usr/bin:/bin")
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    if found is None or subprocess.run([found, "-c", code], check=False).returncode:
        pytest.skip("no Python of the system that is new enough")
    return found


def plain_user() -> list[str]:
    user = str(60000 + os.getpid() % 5000)
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]


class open_folder:  # noqa: N801  # used as a function
    """The package in a folder that everybody may read."""

    def __enter__(self) -> Path:
        self._made = tempfile.TemporaryDirectory()
        top = Path(self._made.name)
        top.chmod(0o755)
        source = Path(__file__).parents[2] / "src"
        shutil.copytree(source, top / "src", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", str(top / "src")], check=True)
        return top

    def __exit__(self, *_error: object) -> None:
        self._made.cleanup()
