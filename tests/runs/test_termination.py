"""The container's last word of real jobs: at the end, by whoever is left to write it, and ahead of a kill that takes all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.linux._evidence_helpers import MIB
from tests.run.command import Ranks
from tests.run.test_memory import HOLD, inside
from tests.runs.jobs import TELL, Jobs, until
from tests.runs.test_killed_together import (  # noqa: F401  # a fixture
    GROW,
    LIMIT,
    group,
    kill_all,
    litter,
    members,
    tidy,
)  # fmt: skip

from rankguard.launchers.limits import fds_for

UNREADY = (
    GROW
    + """
import rankguard
me = rankguard.this_rank()
if RANK != 2: me.ready()
os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')
if RANK == 1: grow(128)
signal.pause()
"""
)
RISES_AND_FALLS = (
    HOLD
    + """
os.write(os.open(sys.argv[1], os.O_WRONLY), b'x')
while RANK == 1 and 4 * len(kept) < 165:
    hold(4)
    time.sleep(0.02)
if RANK == 1:
    os.read(os.open(sys.argv[2], os.O_RDONLY), 1)
    kept.clear()
signal.pause()
"""
)


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(tmp_path)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """As the kubelet makes it: an empty file that everybody may write."""
    path = tmp_path / "termination-log"
    path.write_bytes(b"")
    path.chmod(0o666)
    return path


@pytest.fixture
def begin(jobs: Jobs, group: str, place: Path):  # noqa: F811
    """Starts three ranks, and all of rankguard, in the group; returns when the ranks are there: the process, the folder."""
    started: list[subprocess.Popen[str]] = []

    def start(
        text: str, *args: str, options: tuple[str, ...] = (), watch: tuple[str, ...] = ()
    ) -> tuple[subprocess.Popen[str], Path]:
        fifo = jobs.folder / "there"
        os.mkfifo(fifo)
        words = [*options, "--termination-log", str(place), jobs.ranks.program(text), str(fifo), *args]
        asked = jobs.ranks.command("-n", "3", *words)
        if watch:
            asked = [sys.executable, "-m", "rankguard", "watch", *watch, *words[:2], "--", sys.executable, *words[2:]]
        job = subprocess.Popen(
            asked, stderr=subprocess.PIPE, text=True, env=jobs.env,
            preexec_fn=inside(group),  # noqa: PLW1509  # no threads here
        )  # fmt: skip
        started.append(job)
        fd = os.open(fifo, os.O_RDWR)
        said = b""
        while len(said) < 3:
            said += os.read(fd, 3)
        os.close(fd)
        (name,) = os.listdir(jobs.home)
        return job, jobs.home / name

    yield start
    for job in started:
        if job.poll() is None:
            job.kill()  # its warden ends the rest
            job.communicate()


def told(place: Path) -> dict:
    """The JSON of what is there, checked for its shape."""
    text = place.read_bytes()
    assert len(text) <= 4096
    line, selection, *_ = text.decode().splitlines()
    assert line.startswith("rankguard: ")
    return json.loads(selection) | {"line": line}


def line(place: Path) -> str:
    """The first line of what is there, or nothing."""
    return place.read_text().partition("\n")[0]


def share(place: Path) -> float:
    """How much of the limit is in use, as the last word has it."""
    found = re.match(r"rankguard: memory (\d+\.\d) of ", line(place))
    return float(found[1]) / LIMIT if found else 0.0


def options(place: Path) -> tuple[str, str]:
    return ("--termination-log", str(place))


# ── At the end ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_failure(ranks: Ranks, place: Path) -> None:
    ended = ranks.run(2, "if RANK == 1: os.kill(os.getpid(), 9)\nsignal.pause()", *options(place))

    last = told(place)
    assert last["line"] == ended.last_line
    assert (last["outcome"], last["exit_code"], last["kind"], last["rank"]) == ("failed", 137, "killed", 1)
    assert last["fingerprint"] == ended.verdict["fingerprint"]
    assert f"error: {ended.verdict['statement']}" in place.read_text()


def test_success_and_a_program_that_left_a_word_of_its_own(ranks: Ranks, place: Path) -> None:
    ended = ranks.run(
        2, "if RANK == 1: open(sys.argv[1], 'w').write('model saved\\n')", *options(place), args=(str(place),)
    )

    assert ended.status == 0
    assert told(place)["line"] == ended.last_line
    assert place.read_text().splitlines()[2:] == ["the program's own word:", "  | model saved"]


def test_what_never_began(ranks: Ranks, place: Path) -> None:
    """Our own processes cannot be started: the front is left to say so."""
    few = ["prlimit", "--nofile=20", *ranks.command("-n", "4", *options(place), "true")]
    ended = subprocess.run(few, capture_output=True, text=True, check=False)

    assert ended.returncode == 125, ended.stderr
    assert told(place)["line"] == ended.stderr.splitlines()[-1]
    assert told(place)["kind"] == "cannot-start"


def test_off_and_nowhere(ranks: Ranks, place: Path) -> None:
    ended = ranks.run(1, "pass", "--termination-log", "none")
    assert (ended.status, place.read_bytes()) == (0, b"")
    ended = ranks.run(1, "pass", "--termination-log", "/proc/nowhere")
    assert ended.status == 0
    assert "warning: no last word is left for the container: unable to write `/proc/nowhere`: " in ended.stderr


def test_a_full_disk_costs_the_last_word_alone(ranks: Ranks, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root for a mount")
    full = tmp_path / "full"
    full.mkdir()
    fill = (
        f"mount -t tmpfs -o size=8k none {full} && : >{full}/log && {{ cat /dev/zero >{full}/fill || :; }} 2>/dev/null"
    )
    words = ranks.command(
        "-n", "1", "--report", "json", "--run-dir", str(tmp_path / "run"), *options(full / "log"), "false"
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{fill}; exec "$@"', "sh", *words], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 1, ended.stderr
    said = f"unable to write the termination log `{full}/log`: No space left on device"
    assert json.loads(ended.stdout)["warnings"] == [said]


def test_the_default_is_the_containers_own(tmp_path: Path) -> None:
    """In a mount namespace of its own, /dev/termination-log is there; outside it is not, and nothing is written."""
    if os.getuid() != 0 or os.path.exists("/dev/termination-log"):
        pytest.skip("needs root for a mount namespace, and no container's file")
    made = tmp_path / "made"
    made.write_bytes(b"")
    dev = tmp_path / "dev"
    dev.mkdir()
    script = (
        f"mount --rbind /dev {dev} && mount -t tmpfs none /dev && for d in null zero full random urandom tty shm pts ptmx;"
        f" do if [ -d {dev}/$d ]; then mkdir /dev/$d; else : >/dev/$d; fi; mount --bind {dev}/$d /dev/$d; done;"
        f" : >/dev/termination-log; mount --bind {made} /dev/termination-log;"
        f' {sys.executable} -m rankguard run -n 1 sh -c "exit 3"'
    )
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    ended = subprocess.run([*namespaces, "sh", "-c", script], capture_output=True, text=True, check=False)

    assert ended.returncode == 3, ended.stderr
    assert told(made)["line"] == ended.stderr.splitlines()[-1]


# ── When one of ours is killed ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("which", [0, 2])
def test_whoever_is_left_writes_it(jobs: Jobs, place: Path, which: int) -> None:
    """Without the supervisor the front does; without the front the supervisor."""
    live = jobs.start(2, f"{TELL}\nsignal.pause()", *options(place))
    os.kill(live.ours()[which], signal.SIGKILL)
    live.process.communicate()
    until(lambda: place.read_bytes().count(b"\n") > 2 and told(place)["outcome"] == "failed")

    assert (told(place)["kind"], told(place)["exit_code"]) == ("supervisor-lost", 125)


# ── Ahead ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_asked_to_end(jobs: Jobs, place: Path) -> None:
    """Ranks that take their time, until somebody kills everything: as when a pod's grace period is over."""
    live = jobs.start(1, f"signal.signal(15, signal.SIG_IGN)\n{TELL}\nwhile True: signal.pause()", *options(place))
    live.process.terminate()
    until(lambda: b"asked to end" in place.read_bytes())
    live.cut_off()

    assert re.fullmatch(
        rf"rankguard: asked to end by SIGTERM from pid {os.getpid()}, [\w.]+, uid \d+ run={live.id}",
        told(place)["line"],
    )
    assert told(place)["outcome"] == "stopping"


def test_the_first_failure_while_others_are_made_to_end(jobs: Jobs, place: Path) -> None:
    text = (
        f"signal.signal(15, signal.SIG_IGN)\n{TELL}\nif RANK: time.sleep(0.3); sys.exit(3)\nwhile True: signal.pause()"
    )
    live = jobs.start(2, text, "--grace", "60", *options(place))
    until(lambda: b"exit-code" in place.read_bytes())
    live.cut_off()

    assert (
        told(place)["line"]
        == f"rankguard: exit 3 exit-code proven rank=1 node={os.uname().nodename} phase=running run={live.id}"
    )
    assert "the other ranks are being ended. If this is what the container left" in place.read_text()


def test_an_attempt_that_goes_on_has_no_last_word(jobs: Jobs, place: Path) -> None:
    """What the attempt before it left is taken back, also where no memory is looked at."""
    place.write_text("the program's own\n")
    text = f"""
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0": sys.exit(3)
said = open({str(place)!r}).read()
open({str(place)!r} + "-seen", "w").write(said)
{TELL}
signal.pause()
"""
    live = jobs.start(1, text, "--max-restarts", "1", "--sample", "0", *options(place))
    assert Path(f"{place}-seen").read_text() == "the program's own\n"
    live.process.terminate()
    live.process.communicate()
    assert told(place)["outcome"] == "interrupted"


def test_hardly_any_descriptors_are_enough(ranks: Ranks, place: Path) -> None:
    """The file is held open, so that it can be written when there are none left."""
    needed, _wanted = fds_for(8)
    few = [
        "prlimit",
        f"--nofile={needed}",
        *ranks.command("-n", "8", *options(place), "--no-python", "sh", "-c", "exit 3"),
    ]
    ended = subprocess.run(few, capture_output=True, text=True, check=False)

    assert ended.returncode == 3, ended.stderr
    assert told(place)["exit_code"] == 3


def test_what_is_short_and_then_is_not(begin, place: Path, tmp_path: Path) -> None:
    """Written while memory is near its limit, and taken back when it falls."""
    place.write_text("the program's own\n")
    back = tmp_path / "back"
    os.mkfifo(back)
    process, run = begin(RISES_AND_FALLS, str(back))
    until(lambda: place.read_bytes().startswith(b"rankguard: memory "))
    assert told(place)["outcome"] == "running"
    with back.open("w") as file:
        file.write("x")
    until(lambda: place.read_bytes() == b"the program's own\n")
    until(lambda: any(fact["fact"] == "MemoryEased" for fact in facts(run)))
    eased = [fact["statement"] for fact in facts(run) if fact["fact"] == "MemoryEased"]
    assert [bool(re.match(r"the memory limit is far again: \d+(\.\d)? MiB of 220 MiB", said)) for said in eased] == [
        True
    ]
    process.terminate()
    process.communicate()


def test_everything_is_killed_when_memory_runs_out(begin, group: str, place: Path) -> None:  # noqa: F811
    """Rankguard is in the group that runs out of memory, and every member of it is killed, as `memory.oom.group` has it:
    by the test, while rank 1 grows. The next test has the kernel do that, on cgroup2.
    """
    process, run = begin(UNREADY, options=("--ready-timeout", "60"))
    left = litter(run)
    kill_all(group, when=lambda: "rank 1 growing, rank 2 not ready" in line(place) and share(place) > 0.8)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    until(lambda: not members(group))

    the_last_word_tells(place, run)
    assert not (run / "verdict.json").exists()
    tidy(left)


ENGINE = (
    GROW
    + """
import subprocess, sys, time
if sys.argv[2:3] == ["worker"]:
    os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")
    if sys.argv[3] == "1": grow(128)
    signal.pause()
workers = [subprocess.Popen([sys.executable, __file__, sys.argv[1], "worker", str(n)]) for n in range(2)]
os.write(os.open(sys.argv[1], os.O_WRONLY), b"x")
workers[0].wait()
"""
)


@pytest.mark.slow
def test_a_watched_engine_is_killed_as_a_whole(begin, group: str, place: Path) -> None:  # noqa: F811
    """Its processes are told by their names; that it was not ready, by that."""
    watch = ("--rank-pattern", r" worker (?P<index>\d+)$", "--ready-log", "never", "--ready-timeout", "60")
    process, run = begin(ENGINE, watch=watch)
    left = litter(run)
    kill_all(group, when=lambda: "rank 1 (python program.py) growing, the engine not ready" in line(place))
    process.communicate()
    until(lambda: not members(group))

    last = told(place)
    assert re.fullmatch(
        rf"rankguard: memory \d+\.\d of 220\.0 MiB, \+\d+\.\d [KM]iB/s, rank 1 \(python program\.py\) growing"
        rf", the engine not ready run={run.name}",
        last["line"],
    ), last["line"]
    assert last["not_ready"] == "the engine"
    assert last["largest"][0][0] == "rank 1 (python program.py)"
    tidy(left)


def test_the_kernel_kills_everything_when_memory_runs_out(begin, group: str, place: Path) -> None:  # noqa: F811
    switch = Path(group, "memory.oom.group")
    if not switch.exists():
        pytest.skip("memory.oom.group is cgroup2's")
    switch.write_text("1")
    process, run = begin(UNREADY, options=("--ready-timeout", "60"))
    left = litter(run)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    until(lambda: not members(group))

    the_last_word_tells(place, run)
    tidy(left)


def the_last_word_tells(place: Path, run: Path) -> None:
    """As `kubectl describe pod` shows it: how full, how fast, who grew, who was not ready."""
    last = told(place)
    found = re.fullmatch(
        rf"rankguard: memory (\d+\.\d) of 220\.0 MiB, \+\d+\.\d [KM]iB/s, rank 1 growing, rank 2 not ready run={run.name}",
        last["line"],
    )
    assert found, last["line"]
    assert float(found[1]) > 0.8 * LIMIT
    assert (last["outcome"], last["not_ready"], last["growing"][0][0]) == ("running", "2", 1)
    assert last["memory"]["limit_bytes"] == LIMIT * MIB
    assert "likely by the kernel's OOM killer" in place.read_text()


def facts(run: Path) -> list[dict]:
    with contextlib.suppress(FileNotFoundError):
        whole = (run / "events.jsonl").read_text().rpartition("\n")[0]  # the last line may be there in part
        return [entry for entry in map(json.loads, whole.splitlines()) if "fact" in entry]
    return []
