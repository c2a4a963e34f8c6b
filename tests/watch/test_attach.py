"""`rankguard watch --pid`, `--match`: an engine that the test has started itself. It is ended after a failure, and never
because of us: whoever of ours is stopped or killed, it goes on.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.linux._evidence_helpers import limited_group
from tests.others import AS_STRANGER, why_no_stranger
from tests.run.test_memory import HOLD
from tests.watch.engines import CORE, HEAD, Watched
from tests.watch.test_watch import alive

from rankguard.cli.verbs import parse
from rankguard.cli.watch import plan
from rankguard.errors import UsageError
from rankguard.linux.find import find


class Engine:
    """An engine of somebody else's, and sidecars for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script, self.fifo = folder / "some_engine.py", folder / "fifo"
        self.process: subprocess.Popen[str] | None = None
        self.pids: dict[str, Any] = {}
        self._count = 0

    def start(self, text: str = CORE) -> "Engine":
        self.script.write_text(textwrap.dedent(text))
        os.mkfifo(self.fifo)
        self.process = subprocess.Popen(self.command, text=True, stdin=subprocess.DEVNULL)
        self.pids = dict(json.loads(self.fifo.read_text()))
        return self

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(self.script), str(self.fifo)]

    @property
    def root(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def everybody(self) -> list[int]:
        return [self.root, *filter(None, [self.pids.get("core")]), *self.pids["workers"]]

    def watch(self, *options: str, before: tuple[str, ...] = (), **more: Any) -> Watched:
        self._count += 1
        here = self.folder / f"run-{self._count}"
        words = [*before, sys.executable, "-m", "rankguard", "watch", "--run-dir", str(here), *options]
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return Watched(subprocess.Popen(words, text=True, **(settings | more)), here, self.fifo)

    def attached(self, *options: str, **more: Any) -> Watched:
        """A sidecar that knows everybody."""
        watched = self.watch("--pid", str(self.root), *options, **more)
        watched.joined(self.pids["workers"])
        return watched

    def end(self) -> None:
        for pid in self.everybody if self.pids else ():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.end()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that other users may write to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        Path(made).chmod(0o777)
        yield Path(made)


def below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_worker_dies_and_the_engine_hangs(engine: Engine, wait_for_exit: Callable[..., None]) -> None:
    watched = engine.start().attached("--settle", "0.1")
    os.kill(engine.pids["workers"][1], signal.SIGKILL)
    ended = watched.end()

    culprit = ended.verdict["culprit"]
    assert (ended.status, culprit["cause"]["kind"], culprit["name"]) == (137, "killed", "VLLM::Worker_TP1"), (
        ended.stderr
    )
    assert culprit["log_path"] is None
    for pid in engine.everybody:
        if pid != engine.root:
            wait_for_exit(pid)
    assert engine.process is not None
    assert engine.process.wait(10) == -signal.SIGTERM


def test_one_that_does_not_end_is_killed_with_all_that_is_left_of_it(engine: Engine) -> None:
    deaf = CORE.replace("core = subprocess", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ncore = subprocess")
    watched = engine.start(deaf).attached("--settle", "0", "--grace", "0.3")
    os.kill(engine.pids["workers"][0], signal.SIGKILL)
    ended = watched.end()

    assert ended.status == 137
    assert set(ended.verdict["teardown"]["killed"]) >= {engine.root, engine.pids["core"]}
    assert [pid for pid in engine.everybody if alive(pid)] == []


def test_what_is_only_reported_leaves_it_alone(engine: Engine) -> None:
    watched = engine.start().watch("--pid", str(engine.root), "--on-failure", "report")
    watched.wait_for("Spawned")
    os.kill(engine.pids["workers"][0], signal.SIGKILL)
    watched.wait_for("Perished")
    watched.process.terminate()
    ended = watched.end()

    assert (ended.status, ended.verdict["outcome"]) == (143, "interrupted")
    assert alive(engine.root)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_when_we_are_stopped_nobody_is_signalled(engine: Engine, number: int) -> None:
    """It writes down each signal that it gets."""
    listens = "for number in (1, 2, 10, 15, 18):\n    signal.signal(number, lambda n, _: open('/proc/self/cwd/got', 'a').write(f'{n} '))\n"
    engine.start(CORE.replace("if sys.argv[2:]", f"os.chdir({str(engine.folder)!r})\n{listens}\nif sys.argv[2:]", 1))
    watched = engine.attached()
    watched.process.send_signal(signal.SIGUSR1)
    watched.process.send_signal(number)
    ended = watched.end()

    assert (ended.status, ended.verdict["outcome"]) == (128 + number, "interrupted")
    assert ended.verdict["statement"].endswith("the engine goes on")
    assert [pid for pid in engine.everybody if not alive(pid)] == []
    assert not (engine.folder / "got").exists()


@pytest.mark.parametrize("who", ["front", "warden", "supervisor", "all"])
def test_when_we_are_killed_it_goes_on(engine: Engine, who: str, wait_for_exit: Callable[..., None]) -> None:
    watched = engine.start().attached()
    front = watched.process.pid
    (warden,) = below(front)
    (supervisor,) = below(warden)
    ours = {"front": front, "warden": warden, "supervisor": supervisor}
    for number in (signal.SIGSTOP, signal.SIGKILL):  # held first: none goes with another before its turn
        for pid in ours.values() if who == "all" else (ours[who],):
            os.kill(pid, number)
    watched.process.communicate(timeout=30)
    for pid in (warden, supervisor):
        wait_for_exit(pid)

    assert [pid for pid in engine.everybody if not alive(pid)] == []
    if who in ("warden", "supervisor"):
        assert watched.process.returncode == 125


@pytest.mark.parametrize(("code", "status", "outcome"), [(0, 0, "succeeded"), (3, 3, "failed")])
def test_it_ends_by_itself(engine: Engine, code: int, status: int, outcome: str) -> None:
    """What it leaves behind is not ours to end."""
    engine.start(
        HEAD
        + f"""
titled("VLLM::Worker_TP0", start_new_session=True).stdin.close
os.close(0); os.open("/dev/null", 0)
child = subprocess.Popen([shutil.which("sleep"), "1000"])
told(workers=[], left=child.pid)
open(sys.argv[1]).close()
os._exit({code})
"""
    )
    watched = engine.watch("--pid", str(engine.root))
    watched.wait_for("Spawned")
    engine.fifo.write_text("")
    ended = watched.end()
    left = engine.pids["left"]
    lives = alive(left)
    os.kill(left, signal.SIGKILL)

    assert (ended.status, ended.verdict["outcome"], lives) == (status, outcome, True), ended.stderr


def test_it_is_waited_for_by_its_title(engine: Engine) -> None:
    """The sidecar is there first; a shell whose words match is above it; the topmost that matches is the engine.

    By its whole path: everybody on this machine is looked at, other runs of this test too.
    """
    script = str(engine.script)
    shell = ("sh", "-c", '"$@"; exit $?', script)
    watched = engine.watch("--settle", "0", "--match", re.escape(script), before=shell)
    watched.wait_for("JobStarted")
    engine.start()
    (spawned,) = watched.wait_for("Spawned")
    watched.joined(engine.pids["workers"])
    found = spawned["pid"]
    os.kill(engine.pids["workers"][2], signal.SIGKILL)
    ended = watched.end()

    assert (found, ended.status, ended.verdict["culprit"]["name"]) == (engine.root, 137, "VLLM::Worker_TP2")


def test_nobody_matches_in_time(engine: Engine) -> None:
    ended = engine.watch("--match", "no [s]uch engine", "--ready-timeout", "0.5").end()

    assert (ended.status, ended.cause["kind"]) == (124, "ready-timeout")
    assert "no process matches `no [s]uch engine`" in ended.stderr


def test_asked_to_end_while_nobody_matches(engine: Engine) -> None:
    watched = engine.watch("--match", "no [s]uch engine")
    watched.wait_for("JobStarted")
    watched.process.terminate()

    assert watched.end().status == 143


def test_found_is_the_topmost_and_never_we(engine: Engine) -> None:
    engine.start()
    pattern = re.compile(re.escape(str(engine.script)))
    found = find(pattern)

    assert found is not None
    assert (found.pid, found.others) == (engine.root, 0)  # the core has the same words in its command line
    assert find(pattern, frozenset([engine.root, engine.pids["core"]])) is None
    own = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert (other := find(re.compile(re.escape(own)))) is None or other.pid != os.getpid()


def test_a_number_that_has_come_to_mean_another_process(engine: Engine) -> None:
    """It is known by its start, too: the supervisor gets what the command line has found, an instant later."""
    engine.start()
    later = """
import sys
from rankguard.cli.front.main import Front
from rankguard.cli.verbs import parse
from rankguard.cli.watch import plan
asked = parse("watch", sys.argv[1:])
spec = plan(asked)
sys.exit(Front(asked, spec.replace(watch=spec.watch.replace(attached_started=spec.watch.attached_started - 1))).run())
"""
    words = [
        sys.executable,
        "-c",
        later,
        "--pid",
        str(engine.root),
        "--grace",
        "0.1",
        "--run-dir",
        str(engine.folder / "run"),
    ]
    ended = subprocess.run(words, text=True, capture_output=True, timeout=60, check=False)

    assert (ended.returncode, f"no process {engine.root} is there any more" in ended.stderr) == (126, True), (
        ended.stderr
    )
    assert [pid for pid in engine.everybody if not alive(pid)] == []


def test_a_thread_is_no_process(engine: Engine) -> None:
    threaded = "import threading\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    engine.start(HEAD + threaded + "told(workers=[])\ntime.sleep(1000)")
    (thread,) = [int(each) for each in os.listdir(f"/proc/{engine.root}/task") if int(each) != engine.root]
    with pytest.raises(UsageError, match=f"that is a thread of process {engine.root}"):
        plan(parse("watch", ["--pid", str(thread)]) or pytest.fail("no arguments"))


def test_another_users_engine_that_we_may_not_end(open_folder: Path, request: pytest.FixtureRequest) -> None:
    engine = Engine(open_folder)
    request.addfinalizer(engine.end)
    if os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    seeing = (
        "unshare",
        "--mount",
        "sh",
        "-c",
        'mount -t proc -o hidepid=0 proc /proc && exec "$@"',
        "sh",
        *AS_STRANGER,
    )
    env = {**os.environ, "RANKGUARD_HOME": str(engine.folder / "home")}
    if why_no_stranger() is not None:
        pytest.skip(str(why_no_stranger()))
    watched = engine.start().attached("--settle", "0", before=seeing, env=env)
    os.kill(engine.pids["workers"][1], signal.SIGKILL)
    ended = watched.end()

    # Nobody has reaped it, and of another user's zombie the kernel tells us nothing: unknown, and no success.
    assert (ended.status, ended.cause["kind"], ended.verdict["culprit"]["name"]) == (1, "unknown", "VLLM::Worker_TP1")
    assert "unable to send SIGTERM to " in ended.stderr
    assert "it is another user's" in ended.stderr
    assert alive(engine.root)


def test_its_readiness_by_a_file(engine: Engine) -> None:
    """One that is there already counts: the engine may have been ready for long."""
    engine.start()
    (engine.folder / "ready").touch()
    watched = engine.attached("--ready-file", str(engine.folder / "ready"), "--ready-timeout", "60")
    watched.wait_for("Ready")
    watched.process.terminate()

    assert "the engine is ready" in watched.end().stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pid", "4194303"], "there is no such process"),
        (["--pid", "PPID"], "rankguard itself, or above it"),
        (["--pid", "1", "--match", "x"], "expected one of COMMAND, --pid and --match"),
        (["--match", "x", "--ready-log", "y"], "needs the engine's output"),
        (["--match", "x", "--stall-timeout", "5"], "needs the engine's output"),
        (["--match", "x", "--clean-shm", "all"], "whose memory this is is not known"),
        (["--match", "x", "--on-lost", "end"], "is never ended because of us"),
        (["--match", "("], "a regular expression"),
    ],
)
def test_what_cannot_be_asked_for(words: list[str], said: str) -> None:
    words = [str(os.getppid()) if word == "PPID" else word for word in words]
    with pytest.raises(UsageError) as raised:
        plan(parse("watch", words) or pytest.fail("no arguments"))

    assert said in raised.value.statement


SIDECAR = """
import os, subprocess, sys
group, watch, engine = sys.argv[1], *map(eval, sys.argv[2:4])
def inside():
    open(f"{group}/cgroup.procs", "w").write("0")
children = [subprocess.Popen(watch), subprocess.Popen(engine, preexec_fn=inside, stdin=subprocess.DEVNULL)]
status = children[0].wait()
children[1].kill()
sys.exit(status)
"""
"""PID 1 of a pod with one PID namespace, as the pause container is, and the runtime that puts the engine into its group."""


@pytest.mark.cgroup
@pytest.mark.parametrize("who", ["worker", "root"])
def test_a_sidecar_survives_the_engines_oom_kill(engine: Engine, who: str) -> None:
    if os.getuid() != 0:
        pytest.skip("a PID namespace needs root")
    engine.script.write_text(
        HEAD
        + HOLD
        + """
if sys.argv[2:] == ["worker"]:
    sys.stdin.readline()
    while True:
        hold(2)
workers = [subprocess.Popen(["VLLM::Worker_TP0", __file__, "-", "worker"], executable=sys.executable, stdin=subprocess.PIPE)]
told(workers=[each.pid for each in workers])
open(sys.argv[1]).close()
while GROWS == "root":
    hold(2)
workers[0].stdin.write(b"\\n")
workers[0].stdin.flush()
time.sleep(1000)
""".replace("GROWS", repr(who))
    )
    os.mkfifo(engine.fifo)
    run = engine.folder / "run-1"
    options = ["--settle", "0.2", "--rank-pattern", " worker$", "--match", r"some_[e]ngine"]
    watch = [sys.executable, "-m", "rankguard", "watch", "--run-dir", str(run), *options]
    with limited_group(100) as group:
        pod = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", SIDECAR, group, repr(watch), repr(engine.command)],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        watched = Watched(pod, run, engine.fifo)
        watched.pids()
        watched.wait_for("Joined")
        engine.fifo.write_text("")
        ended = watched.end()

    culprit = ended.verdict["culprit"]
    assert (ended.status, culprit["cause"]["kind"], culprit["cause"]["confidence"]) == (137, "oom-kill", "likely"), (
        ended.stderr
    )
    assert culprit["name"].startswith("VLLM::Worker_TP0" if who == "worker" else "the engine")
    assert any(os.path.basename(group) in each["statement"] for each in culprit["cause"]["evidence"])
    assert ended.verdict["memory"]["limit_bytes"] == 100 << 20  # the engine's, not ours
