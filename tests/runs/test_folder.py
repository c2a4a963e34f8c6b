"""A run's folder holds one run, whatever is in it, whatever happens to it, and it is never a reason not to start."""

import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from tests.runs.jobs import TELL, Jobs, remove

from rankguard.linux.lock import hold, is_held
from rankguard.report.files import RunFiles
from rankguard.runs.folder import known_runs, make_run_dir

WAITS = f"r, w = os.pipe()\n{TELL}; os.read(r, 1)"
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: a file system of its own, or another user")


def run_id(folder: Path) -> str:
    return json.loads((folder / "verdict.json").read_text())["run_id"]


def test_the_next_run_in_a_folder_puts_the_one_before_aside(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    big, small = jobs.ranks.program("print('big')", "big.py"), jobs.ranks.program("print('small')", "small.py")
    jobs.ask("run", "-n", "3", "--run-dir", str(out), big)
    (out / "mine.txt").write_text("the user's own")
    first = run_id(out)

    told = jobs.ask("run", "-n", "1", "--run-dir", str(out), small)

    aside = out / "earlier" / first
    assert told.returncode == 0
    assert run_id(aside) == first != run_id(out)
    assert sorted(path.name for path in out.iterdir() if path.name != "memory.jsonl") == [  # of a run of a second
        "earlier",
        "events.jsonl",
        "mine.txt",
        "rank-0",
        "verdict.json",
    ]
    assert sorted(path.name for path in aside.iterdir() if path.name != "memory.jsonl") == [
        "events.jsonl",
        "rank-0",
        "rank-1",
        "rank-2",
        "verdict.json",
    ]
    assert jobs.ask("report", str(aside)).stdout.endswith(f"run={first}\n")
    assert first in jobs.ask("runs", "--in", str(out / "earlier")).stdout


def test_a_folder_that_a_live_run_uses_is_left_alone(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    live = jobs.start(1, WAITS, "--run-dir", str(out))
    before = (out / "events.jsonl").read_text()

    told = jobs.ask("run", "-n", "1", "--run-dir", str(out), jobs.ranks.program("pass", "other.py"))

    (own,) = [path for path in out.iterdir() if (path / "verdict.json").exists()]
    assert told.returncode == 0
    assert f"`{out}` is in use by a live run: the files of this run are in `{own}`" in told.stderr
    after = (out / "events.jsonl").read_text()
    assert after.startswith(before)  # the live one may have gone on with it
    assert '"spec"' not in after[len(before) :]
    live.process.terminate()
    live.process.communicate()
    assert json.loads((out / "verdict.json").read_text())["outcome"] == "interrupted"


def test_two_that_start_at_once_do_not_mix(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = jobs.ranks.command("-n", "1", "--run-dir", str(out), jobs.ranks.program("print('x')", "both.py"))
    both = [subprocess.Popen(words, env=jobs.env, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    ended = [(job.communicate(), job.returncode) for job in both]

    assert [status for _said, status in ended] == [0] * 4
    for journal in out.rglob("events.jsonl"):
        kinds = [json.loads(line).get("fact") for line in journal.read_text().splitlines()]
        assert kinds.count("JobStarted") == 1
        assert kinds.count("TreeEmpty") == 1


def test_the_supervisor_has_the_last_word_on_a_folder(tmp_path: Path) -> None:
    """Two fronts may choose the same folder in one instant; the lock decides."""
    first = RunFiles(str(tmp_path), hold)
    first.append("{}\n")

    second = RunFiles(str(tmp_path), hold)
    second.append("mixed")

    assert (second.folder, first.error) == (None, None)
    assert second.error == f"no files are kept of this run: `{tmp_path}` holds another one"
    assert (tmp_path / "events.jsonl").read_text() == "{}\n"


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    told, tell = os.pipe()
    go, gone = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"y" if hold(os.open(path, os.O_WRONLY)) else b"n")
        os.read(go, 1)
        os._exit(0)
    assert os.read(told, 1) == b"y"
    while_held = is_held(str(path))
    os.write(gone, b"x")
    os.waitpid(pid, 0)
    for fd in (told, tell, go, gone):
        os.close(fd)

    assert (while_held, is_held(str(path)), is_held(str(tmp_path / "none"))) == (True, False, None)


def test_a_folder_that_anybody_can_write_gets_one_of_our_own(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "shared"
    out.mkdir()
    out.chmod(0o1777)
    target = tmp_path / "precious"
    target.write_text("precious")
    (out / "events.jsonl").symlink_to(target)
    (out / "verdict.json").symlink_to(target)

    told = jobs.ask("run", "-n", "1", "--run-dir", str(out), jobs.ranks.program("pass"))

    (own,) = [path for path in out.iterdir() if path.is_dir()]
    assert (told.returncode, target.read_text(), stat.S_IMODE(own.stat().st_mode)) == (0, "precious", 0o700)
    assert f"`{out}` can be written by others: the files of this run are in `{own}`" in told.stderr


def test_a_link_in_place_of_a_file_is_not_followed(jobs: Jobs, tmp_path: Path) -> None:
    out, target = tmp_path / "out", tmp_path / "precious"
    out.mkdir(mode=0o700)
    target.write_text("precious")
    for name in ("verdict.json.new", "state.json.new", "stacks-1.txt"):
        (out / name).symlink_to(target)

    live = jobs.start(1, WAITS, "--run-dir", str(out))
    jobs.ask("stacks", str(out))
    live.process.terminate()
    live.process.communicate()

    assert target.read_text() == "precious"
    assert json.loads((out / "verdict.json").read_text())["outcome"] == "interrupted"


@ROOT
def test_a_folder_of_another_user_is_not_used_by_one_who_is_not_root() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        os.chmod(top, 0o755)
        theirs = Path(top, "theirs")
        theirs.mkdir()
        os.chown(theirs, 12345, 65534)
        theirs.chmod(0o775)  # our group may write
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(tell, json.dumps(make_run_dir("abcd", str(theirs))).encode())
            os._exit(0)
        os.close(tell)
        os.waitpid(pid, 0)
        said = json.loads(os.read(told, 4096))
        os.close(told)

    assert said == [
        f"{theirs}/abcd",
        f"`{theirs}` belongs to another user: the files of this run are in `{theirs}/abcd`",
    ]


def test_a_folder_that_goes_while_the_job_runs_costs_the_files_only(jobs: Jobs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    live = jobs.start(2, WAITS, "--run-dir", str(out))
    remove(out)

    told = jobs.ask("stacks", "--rank", "0", _run_id_of(live.ours()[2]))
    live.process.terminate()
    _out, err = live.process.communicate()

    assert (told.returncode, live.process.returncode) == (0, 143)
    assert err.splitlines()[-1].startswith("rankguard: exit 143 interrupted")
    assert "rankguard report" not in err  # nothing is kept that it could show
    assert not out.exists()


@ROOT
def test_a_full_disk_costs_the_files_only(jobs: Jobs, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "none", str(small)], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (small / "fill").write_bytes(b"x" * 16384)
    except OSError:
        pass
    try:
        told = jobs.ask("run", "-n", "2", "--run-dir", str(small), jobs.ranks.program("print('x' * 1000); sys.exit(3)"))
        listed = jobs.ask("runs", "--in", str(tmp_path))
        explained = jobs.ask("explain", str(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert told.returncode == 3
    assert "No space left on device" in told.stderr
    assert (listed.returncode, explained.returncode) == (0, 0)


def test_a_folder_that_cannot_be_made_is_told_and_the_job_runs(jobs: Jobs) -> None:
    told = jobs.ask("run", "-n", "1", "--run-dir", "/proc/none/x", jobs.ranks.program("print('ran')"))

    assert (told.returncode, told.stdout) == (0, "ran\n")
    assert "no files are kept of this run" in told.stderr


def _run_id_of(supervisor: int) -> str:
    pid = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0]
    environ = Path(f"/proc/{pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in environ.split("\0") if "=" in entry)["RANKGUARD_RUN_ID"]


# ── Several machines: the agent of node 0 has a folder in it ─────────────────────────────────────────────────────


@pytest.fixture
def of_nodes(tmp_path: Path) -> Path:
    """What a coordinator's run has left, as far as its names go."""
    run = tmp_path / "runs" / "a1b2c3d4"
    for folder in (run, run / "node-0"):
        (folder / "rank-0" / "attempt-0").mkdir(parents=True)
        (folder / "rank-0" / "attempt-0" / "stdout.log").write_text("said\n")
        (folder / "events.jsonl").write_text('{"spec": {"run_id": "a1b2c3d4"}}\n')
        (folder / "verdict.json").write_text(
            '{"schema": "rankguard.verdict/1", "outcome": "failed", "run_id": "a1b2c3d4"}'
        )
    return run


def test_the_next_run_there_finds_no_agents_files(of_nodes: Path) -> None:
    folder, warning = make_run_dir("e5f60718", str(of_nodes))

    assert (folder, warning) == (str(of_nodes), None)
    assert [path.name for path in of_nodes.iterdir()] == ["earlier"]
    assert (of_nodes / "earlier" / "a1b2c3d4" / "node-0" / "events.jsonl").exists()


def test_they_are_removed_with_it(of_nodes: Path, jobs: Jobs) -> None:
    told = jobs.ask("runs", "--in", str(of_nodes.parent), "--prune", "--keep", "0")

    assert told.returncode == 0, told.stderr
    assert not of_nodes.exists()


@pytest.mark.parametrize("strange", ["open to all", "of another user", "a link"])
def test_a_home_among_others_that_somebody_has_made_beforehand_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: str
) -> None:
    """`/tmp/rankguard-UID`: its owner could take our files away, and have us read his."""
    for name, place in (("RANKGUARD_HOME", "/proc/none"), ("XDG_STATE_HOME", "/proc"), ("TMPDIR", str(tmp_path))):
        monkeypatch.setenv(name, place)
    shared = tmp_path / f"rankguard-{os.getuid()}"
    made, _warning = make_run_dir("aaaaaaaa")
    assert (made, stat.S_IMODE(shared.stat().st_mode)) == (str(shared / "aaaaaaaa"), 0o700)
    assert known_runs() == []
    (shared / "aaaaaaaa" / "verdict.json").write_text("{}")
    assert [run.id for run in known_runs()] == ["aaaaaaaa"]

    if strange == "open to all":
        shared.chmod(0o777)
    elif strange == "of another user":
        if os.getuid() != 0:
            pytest.skip("needs root: a folder of another user")
        os.chown(shared, 65534, 65534)
    else:
        shared.rename(tmp_path / "elsewhere")
        shared.symlink_to(tmp_path / "elsewhere")

    made, warning = make_run_dir("bbbbbbbb")
    assert made is None
    assert warning.startswith("no files are kept of this run: ")
    assert known_runs() == []
