"""Whoever starts us may have ignored, blocked, closed, filled or forbidden anything."""

import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.nest import Nest

EXIT_3 = ("-n", "2", "--no-python", "sh", "-c", "echo out; echo err >&2; [ $RANK = 0 ] || exit 3; exec sleep 30")
STAY = ("-n", "2", "--no-python", "sh", "-c", "echo err >&2; echo up >>up; exec sleep 30")
READY = (
    "-n", "2", "--ready-timeout", "30", "--no-python", sys.executable, "-I", "-S", "-c",
    ("import os, socket, time; s = socket.socket(1, 2); s.connect(os.environ['NOTIFY_SOCKET']); s.send(b'READY=1');"
    "open('up', 'a').write('up\\n'); time.sleep(30)"),
)  # fmt: skip
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root for namespaces")


def full_pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        fcntl.fcntl(writer, fcntl.F_SETFL, 0)
    return reader, writer


def signals_spoiled():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_ignored_and_blocked_signals_change_nothing():
    with Nest() as nest:
        nest.run(*EXIT_3, preexec_fn=signals_spoiled)
        assert nest.ended()[0] == 3
    with Nest() as nest:
        nest.run("-n", "1", "--no-python", "sh", "-c", "kill -TERM $$; sleep 30", preexec_fn=signals_spoiled)
        assert nest.ended()[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_standard_streams(closed):
    def close():
        for fd in closed:
            os.close(fd)

    for words, expected in ((EXIT_3, 3), (STAY, 143)):
        with Nest() as nest:
            front = nest.run(*words, preexec_fn=close, stdin=None)
            if words is STAY:
                nest.until("up", 2)
                front.terminate()
            assert nest.ended()[0] == expected


def test_a_full_stderr_that_nobody_reads_does_not_make_the_front_deaf():
    reader, writer = full_pipe()
    with Nest() as nest:
        front = nest.run(*READY, stderr=writer)
        nest.until("up", 2)
        front.terminate()
        assert nest.ended()[0] == 143
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("words", [EXIT_3, ("--report", "json", *EXIT_3)])
def test_full_and_broken_outputs_do_not_change_the_exit_status(words):
    reader, writer = full_pipe()
    with Nest() as nest:
        nest.run(*words, stdout=writer)
        assert nest.ended()[0] == 3
    os.close(reader)
    with Nest() as nest:
        nest.run(*words, stdout=writer, stderr=writer)
        assert nest.ended()[0] == 3
    os.close(writer)
    with Nest() as nest, open("/dev/full", "wb") as full:
        nest.run(*words, stdout=full, stderr=full)
        assert nest.ended()[0] == 3


@needs_root
@pytest.mark.parametrize(
    "spoil",
    [
        "mount --bind /dev/null /dev/kmsg",
        "mount --bind /dev/zero /dev/kmsg",
        "umount -l /sys/fs/cgroup/* /sys/fs/cgroup",
        "for m in $(awk '$3 ~ /cgroup/ {print $2}' /proc/mounts); do mount -o remount,ro,bind $m; done",
        "mount -t tmpfs -o mode=0 none /dev/shm",
        "mount -t tmpfs -o size=16k none $RANKGUARD_HOME; cat /dev/zero >$RANKGUARD_HOME/full",
        "mount -t tmpfs -o ro none $RANKGUARD_HOME; mount -t tmpfs -o ro none $TMPDIR; HOME=/nonexistent",
    ],
)
def test_spoiled_mounts(spoil):
    with Nest() as nest:
        nest.run(*EXIT_3, wrap=("unshare", "-m", "sh", "-c", f'{{ {spoil}; }} 2>/dev/null; exec "$@"', "sh"))
        code, said = nest.ended()
        assert code == 3, said


def test_few_descriptors():
    with Nest() as nest:
        nest.run("-n", "6", *EXIT_3[2:], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
        assert nest.ended()[0] == 3
    with Nest() as nest:
        nest.run("-n", "6", *EXIT_3[2:], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)))
        code, said = nest.ended()
        assert code == 125
        assert "open files" in said
        assert "Traceback" not in said


@needs_root
@pytest.mark.parametrize("limit", [1, 2, 4])
def test_few_processes_for_a_plain_user(limit):
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no Python that another user may execute")
    with Nest() as nest:
        os.chmod(nest.top, 0o755)
        for folder in (nest.folder, nest.home, nest.tmp):
            os.chmod(folder, 0o777)
        shutil.copytree(nest.env()["PYTHONPATH"], f"{nest.top}/src", ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["chmod", "-R", "a+rX", f"{nest.top}/src"], check=True)
        user = str(60000 + os.getpid() % 5000 + limit * 100)
        plain = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "prlimit", f"--nproc={limit}"]
        nest.start(
            [*plain, python, "-m", "rankguard", "run", "-n", "8", "--no-python", "sleep", "30"],
            env=nest.env(PYTHONPATH=f"{nest.top}/src"),
        )
        code, said = nest.ended()
        assert code == 125
        assert "unavailable" in said
        assert "Traceback" not in said
        assert "still alive" not in said


def test_nohup():
    with Nest() as nest:
        words = "trap 'echo hup >>hup' HUP; echo up >>up; kill -HUP $$; until [ -e go ]; do sleep 0.02; done; exit 3"
        front = nest.run("-n", "1", "--no-python", "sh", "-c", words, wrap=("nohup",))
        nest.until("up")
        front.send_signal(signal.SIGHUP)
        Path(nest.folder, "go").touch()
        assert nest.ended()[0] == 3
        assert not os.path.exists(f"{nest.folder}/hup")


# ── As PID 1 ─────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@needs_root
@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 0", 0), ("exit 1", 1), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exec nosuch", 127)],
)
def test_exit_status_as_pid_1(script, expected):
    with Nest() as nest:
        nest.run("-n", "2", "--no-python", "sh", "-c", script, wrap=NAMESPACE)
        assert nest.ended()[0] == expected


@needs_root
def test_strays_are_reaped_as_pid_1():
    script = 'for i in 1 2 3; do sleep 0 & done; (setsid sleep 0.1 &); exec "$@"'
    look = "while ps -eo comm= | grep ^sleep; do :; done"  # alive, or dead and not reaped
    with Nest() as nest:
        nest.run("-n", "1", "--no-python", "sh", "-c", look, wrap=(*NAMESPACE, "sh", "-c", script, "sh"))
        assert nest.ended()[0] == 0


@needs_root
@pytest.mark.parametrize(
    ("who", "number", "expected"),
    [("front", 15, 143), ("front", 2, 130), ("supervisor", 15, 143), ("supervisor", 9, 125), ("warden", 9, 125)],
)
def test_signals_as_pid_1(who, number, expected):
    with Nest() as nest:
        nest.run(*STAY, wrap=NAMESPACE)
        nest.until("up", 2)
        os.kill(nest.ours()[who], number)
        assert nest.ended()[0] == expected


SHADOWS = ("signal", "json", "socket", "select", "selectors", "subprocess", "typing", "resource")


def test_a_users_file_is_not_taken_for_the_standard_librarys():
    with Nest() as nest:
        for name in SHADOWS:
            Path(nest.folder, f"{name}.py").write_text("raise SystemExit('the wrong one')")
        nest.run(*EXIT_3)
        code, said = nest.ended()
        assert code == 3, said
    with Nest() as nest:  # beside the package: what else is installed there
        site = Path(nest.top, "site")
        shutil.copytree(nest.env()["PYTHONPATH"], site, ignore=shutil.ignore_patterns("__pycache__"))
        for name in SHADOWS:
            Path(site, f"{name}.py").write_text("raise SystemExit('the wrong one')")
        start = f"import sys; sys.path.append({str(site)!r}); from rankguard.cli import main; sys.exit(main())"
        nest.start([sys.executable, "-I", "-c", start, "run", *EXIT_3])
        code, said = nest.ended()
        assert code == 3, said


def test_what_we_start_ourselves_has_an_exit_status_though_sigchld_is_ignored():
    with Nest() as nest:
        nest.run("--on-verdict", "cat >/dev/null; exit 5", *EXIT_3, preexec_fn=signals_spoiled)
        code, said = nest.ended()
        assert code == 3, said
        assert "ended with exit code 5" in said
    with Nest() as nest:
        nest.start([sys.executable, "-m", "rankguard", "drill", "kill"], preexec_fn=signals_spoiled)
        code, said = nest.ended()
        assert code == 0, said


@pytest.mark.parametrize("limit", [*range(7, 16), 20])  # with fewer, Python itself does not come so far
def test_too_few_descriptors_are_told_without_a_traceback(limit):
    with Nest() as nest:
        nest.run(*EXIT_3, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        code, said = nest.ended()
        assert code == 125, said
        assert "ulimit -n" in said
        assert "Traceback" not in said


@needs_root
def test_no_dev_null_is_told_without_a_traceback():
    with Nest() as nest:
        nest.run(*EXIT_3, wrap=("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev; exec "$@"', "sh"))
        code, said = nest.ended()
        assert code == 125
        assert "/dev/null: No such file" in said
        assert "Traceback" not in said


def test_a_run_folder_that_is_removed_meanwhile_is_told():
    with Nest() as nest:
        gone = 'until rm -r "$RANKGUARD_RUN_DIR" 2>/dev/null; do :; done; exit 3'  # a file may come while it works
        nest.run("-n", "1", "--no-python", "sh", "-c", gone)
        code, said = nest.ended()
        assert code == 3
        # Which file was the next to be written is told: the last one, if no other came before.
        assert re.search(r"the run's files are not complete: `(state|samples|verdict)\.json`", said), said
