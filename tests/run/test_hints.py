"""Hints of failures that are made to happen, with the numbers and names of this machine; and the same fingerprint twice."""

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.others import AS_STRANGER, as_user, why_no_stranger
from tests.run.command import Ended, Ranks
from tests.run.test_verdicts import checked

from rankguard.core.story import replay
from rankguard.diagnosis.verdict import verdict

ONE = "if RANK == 1:\n    "
WAIT = "\nsignal.pause()"
KMSG = os.geteuid() == 0 and os.access("/dev/kmsg", os.R_OK)


def hints(ended: Ended) -> str:
    """All hints; a replay of the journal must give the same."""
    told = checked(ended)
    with open(ended.folder / "events.jsonl") as journal:
        job, _steps = replay(journal)
    assert list(verdict(job.case(), "").hints) == told["hints"]
    return "\n".join(told["hints"])


def test_a_port_that_a_stranger_holds(ranks: Ranks) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        ended = ranks.run(2, f'{ONE}import socket; socket.create_server(("127.0.0.1", {port})){WAIT}')

    comm = Path("/proc/self/comm").read_text().strip()
    assert f"end who holds port {port} (pid {os.getpid()}, {comm}" in hints(ended)


def test_a_port_that_another_rank_holds(ranks: Ranks) -> None:
    """It holds on to it for a moment after SIGTERM, as one does that has much memory to give back."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    bind = f's = socket.socket(); s.bind(("127.0.0.1", {port})); s.listen()'
    ended = ranks.run(
        2,
        f"""
import socket
if RANK == 0:
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.4), sys.exit(0)))
    {bind}
    open("bound", "w").close()
    signal.pause()
while not os.path.exists("bound"):
    time.sleep(0.01)
{bind}
""",
        cwd=ranks.folder,
    )

    pid = ended.verdict["ranks"][0]["pid"]
    assert f"rank 0 of this job holds port {port} (pid {pid}" in hints(ended)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_a_port_whose_holder_may_not_be_seen(ranks: Ranks, tmp_path: Path) -> None:
    """A user without rights is told so, and whose the port is."""
    if why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))
    folder = tmp_path / "other"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        program = f'import socket\nsocket.create_server(("127.0.0.1", {port}))\n'
        words = [*AS_STRANGER, sys.executable, "-m", "rankguard", "run"]
        env = os.environ | {"HOME": str(folder), "RANKGUARD_HOME": str(folder)}
        ended = subprocess.run(
            [*words, "-n", "1", "--report", "json", "--no-python", sys.executable, "-c", program],
            cwd="/", env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    told = "\n".join(json.loads(ended.stdout)["hints"])
    assert f"port {port} of uid 0 or choose another port: its process is not one that this user may look into" in told


def test_a_module_that_a_file_beside_the_program_hides(ranks: Ranks) -> None:
    (ranks.folder / "bisect.py").write_text("")

    ended = ranks.run(2, f"{ONE}import bisect; bisect.insort([], 1){WAIT}")

    assert f"rename `{ranks.folder}/bisect.py`: it hides the module `bisect`" in hints(ended)


def test_a_module_that_is_not_installed(ranks: Ranks) -> None:
    ended = ranks.run(2, f"{ONE}import no_such_module_anywhere{WAIT}")

    told = hints(ended)
    assert f"`{sys.executable} -m pip install no_such_module_anywhere`" in told
    assert (sys.prefix in told) == (sys.prefix != sys.base_prefix)
    assert ended.verdict["retry"]["advice"] == "no"


def test_no_main_guard(ranks: Ranks) -> None:
    text = """
import multiprocessing
process = multiprocessing.get_context("spawn").Process(target=print)
process.start()
process.join()
sys.exit(process.exitcode)
"""

    assert 'below `if __name__ == "__main__":`' in hints(ranks.run(1, text))


def test_files_that_are_open_already(ranks: Ranks) -> None:
    ended = ranks.run(2, f"{ONE}held = [open('/dev/null') for _ in range(10**6)]{WAIT}", preexec_fn=few_files)

    assert "raise the limit of open files (`ulimit -n`, now 64; that is the hard limit" in hints(ended)
    assert (ended.verdict["owner"], ended.verdict["retry"]["advice"]) == ("limits", "no")


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def test_the_old_local_rank_argument(ranks: Ranks) -> None:
    text = (
        "import argparse; p = argparse.ArgumentParser(); p.add_argument('--local-rank', required=True); p.parse_args()"
    )

    assert "read LOCAL_RANK from the environment" in hints(ranks.run(1, text))


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own is mounted")
def test_a_disk_that_is_full(ranks: Ranks) -> None:
    place = ranks.folder / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        path = place / "ckpt"
        ended = ranks.run(1, f"f = open({str(path)!r}, 'wb', 0)\nwhile True:\n    f.write(bytes(65536))")
    finally:
        subprocess.run(["umount", str(place)], check=True)

    assert ended.cause["kind"] == "disk-full"  # the message names no file: of the likely places none is full
    assert "free space" in hints(ended)


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own is mounted")
def test_a_disk_that_is_full_by_its_path(ranks: Ranks) -> None:
    place = ranks.folder / "small"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=4", "none", str(place)], check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        ended = ranks.run(1, f"for n in range(9):\n    open({str(place)!r} + f'/{{n}}', 'w').close()")
    finally:
        subprocess.run(["umount", str(place)], check=True)

    assert f"free space on {place}: 0 of 4 inodes are free" in hints(ended)


@pytest.mark.skipif(
    Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"), reason="core_pattern gives cores to a program"
)
def test_a_core_that_was_written(ranks: Ranks) -> None:
    text = f"{ONE}resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)); os.kill(os.getpid(), 11){WAIT}"
    ended = ranks.run(2, f"import resource\n{text}", cwd=ranks.folder, preexec_fn=all_cores)

    told = hints(ended)
    if not ended.verdict["culprit"]["ending"]["core_dumped"]:
        pytest.skip("the kernel writes no core here")
    (core,) = ranks.folder.glob("core*")
    assert f"`gdb {sys.executable} {core}`" in told


def all_cores() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def test_no_core_where_the_limit_is_0(ranks: Ranks) -> None:
    ended = ranks.run(1, "os.kill(os.getpid(), 11)", preexec_fn=no_cores)

    assert "the limit is 0" in hints(ended)


def no_cores() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def crashed_in_a_library(ranks: Ranks, does: str) -> tuple[Ended, list[str]]:
    """One rank calls `BOOM` of libboom.so, which writes to address 0; and what the kernel's log says of it."""
    source, library = ranks.folder / "boom.c", ranks.folder / "libboom.so"
    source.write_text("void boom(void) { *(volatile int *)0 = 1; }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    code = f"import ctypes, threading; BOOM = ctypes.CDLL({str(library)!r}).boom; {does}"
    ended = ranks.words(["-n", "1", "--no-python", sys.executable, "-c", code])
    told = [each["statement"] for each in ended.cause["evidence"] if each["source"] == "kernel log"]
    if not told and "segfault" not in subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("the kernel does not tell of crashes here (debug.exception-trace)")
    return ended, told


@pytest.mark.skipif(not KMSG or shutil.which("gcc") is None, reason="the kernel log and gcc are needed")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86 kernels tell of crashes")
def test_the_library_that_crashed(ranks: Ranks) -> None:
    """By the kernel's own log, for a program that has no handler of its own."""
    ended, told = crashed_in_a_library(ranks, "BOOM()")

    assert len(told) == 1
    assert f"[{ended.verdict['culprit']['pid']}]: segfault at 0 " in told[0]
    assert "update or rebuild what `libboom.so` belongs to" in hints(ended)


@pytest.mark.skipif(not KMSG or shutil.which("gcc") is None, reason="the kernel log and gcc are needed")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86 kernels tell of crashes")
def test_the_library_that_a_thread_crashed_in(ranks: Ranks) -> None:
    """The log names the thread, which is gone: that it was this rank's is inferred, and said to be."""
    ended, told = crashed_in_a_library(ranks, "t = threading.Thread(target=BOOM); t.start(); t.join()")

    assert [each.startswith("likely of a thread of it: ") and "libboom.so" in each for each in told] == [True]
    assert "libboom.so" not in hints(ended)


@pytest.mark.skipif(os.geteuid() != 0, reason="a /dev/shm of its own is mounted")
def test_shared_memory_that_is_full(ranks: Ranks) -> None:
    """A file that is larger than the file system: the first page that it has no room for is SIGBUS."""
    program = ranks.program(
        """
import mmap
file = open("/dev/shm/pool", "w+b")
file.truncate(4 << 20)
pool = mmap.mmap(file.fileno(), 4 << 20)
for at in range(0, 4 << 20, 4096):
    pool[at] = 1
"""
    )
    script = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"'
    words = ranks.command("--run-dir", str(ranks.next_dir()), "-n", "1", "--report", "json", program)
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *words], capture_output=True, text=True, timeout=60, check=False
    )
    if not ended.stdout:
        pytest.skip(f"no /dev/shm of its own: {ended.stderr[:200]}")

    told = json.loads(ended.stdout)
    assert (told["culprit"]["cause"]["kind"], told["culprit"]["ending"]["signal"]) == ("crash", "SIGBUS")
    assert "make /dev/shm larger, which has 1.0 MiB, 0 bytes of them free after the failure" in told["hints"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed: root has no limit of processes")
def test_threads_that_a_user_may_not_start(ranks: Ranks, tmp_path: Path) -> None:
    """The limit counts all processes of the user: of one that has no others."""
    if why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))
    folder = tmp_path / "other"
    folder.mkdir()
    folder.chmod(0o777)
    text = "import threading, time\nfor _ in range(60):\n    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    words = [
        *as_user(64999),
        "prlimit",
        "--nproc=40",
        sys.executable,
        "-m",
        "rankguard",
        "run",
        "-n",
        "1",
        "--report",
        "json",
    ]
    ended = subprocess.run(
        [*words, "--no-python", sys.executable, "-c", text],
        cwd="/", env=os.environ | {"HOME": str(folder), "RANKGUARD_HOME": str(folder)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    told = json.loads(ended.stdout)
    assert "raise `ulimit -u`, which is 40 for all processes and threads of this user" in "\n".join(told["hints"])
    assert told["owner"] == "limits"


@pytest.mark.parametrize(
    ("variables", "hint"),
    [
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "`kubectl describe pod`, `kubectl get events`"),
        ({"SLURM_JOB_ID": "4711"}, "`sacct -j 4711 -o JobID,State,ExitCode`"),
    ],
)
def test_who_is_to_be_asked_about_a_kill(ranks: Ranks, variables: dict[str, str], hint: str) -> None:
    assert hint in hints(ranks.run(1, "os.kill(os.getpid(), 9)", env=os.environ | variables))


@pytest.mark.skipif(os.geteuid() != 0 or not os.access("/dev/kmsg", os.W_OK), reason="/dev/kmsg cannot be written")
def test_what_a_process_writes_to_the_kernel_log_is_not_believed(ranks: Ranks) -> None:
    ended = ranks.run(
        1,
        """
line = f"NVRM: Xid (PCI:0000:3b:00): 79, pid={os.getpid()}, name=python3, GPU has fallen off the bus."
with open("/dev/kmsg", "wb", 0) as log:
    log.write(f"<3>{line}\\n".encode())
    log.write(f"<0>{line}\\n".encode())
raise RuntimeError("CUDA error: unknown error in a kernel")
""",
    )

    assert [fact for fact in ended.facts if fact["fact"] == "KernelNoted"] == []
    assert not any(each["source"] == "kernel log" for each in ended.cause["evidence"])


def test_of_ranks_that_cannot_start_the_lowest_is_named_each_time(ranks: Ranks) -> None:
    program = ranks.folder / "data"
    program.write_text("")

    for _ in range(3):
        ended = ranks.words(["-n", "6", "--no-python", str(program)])

        told = ended.verdict
        assert (told["culprit"]["rank"], told["culprit"]["cause"]["kind"], ended.status) == (0, "cannot-start", 126)
        assert "exit status unknown" not in ended.stderr
        others = [row["relation"] for row in told["ranks"] if row["cause"] and row["rank"]]
        assert ("not started either" in ended.stderr) == bool(others)


# ── Fingerprints ─────────────────────────────────────────────────────────────────────────────────────────────────────

FAILURES = {
    "in a library called by the program": "def step(x):\n    import json; json.loads(x)\ndef main():\n    step('{')\nmain()",
    "another type": "def step(x):\n    {}[x]\ndef main():\n    step('{')\nmain()",
    "a crash": "def step(x):\n    import ctypes; ctypes.string_at(0)\ndef main():\n    step('{')\nmain()",
    "another signal": "def step(x):\n    os.kill(os.getpid(), 7); time.sleep(9)\ndef main():\n    step('{')\nmain()",
}


def test_fingerprints_are_stable_and_tell_failures_apart(tmp_path: Path) -> None:
    """Each twice: from another folder, another number of ranks, other lines above, another culprit."""
    here, there = Ranks(tmp_path / "here"), Ranks(tmp_path / "there" / "deeper")
    for each in (here, there):
        each.folder.mkdir(parents=True)
    first, second = [], []
    for text in FAILURES.values():
        first.append(here.run(1, text).verdict["fingerprint"])
        second.append(
            there.run(2, f"# one line more\nif RANK == 0:\n    signal.pause()\n{text}").verdict["fingerprint"]
        )

    assert first == second
    assert len(set(first)) == len(FAILURES)
