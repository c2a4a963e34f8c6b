"""`read_run`: runs that ended, that live, that were cut off, that somebody has edited; and verdicts kept elsewhere."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.page.made import run_of, spec_of, trained
from tests.runs.jobs import TELL, Jobs, until

import rankguard
from rankguard.cli.report import report

SAYS = """print('first', RANK, flush=True)
if RANK == 1:
    while not os.path.exists(os.environ["RANKGUARD_RUN_DIR"] + "/rank-0/attempt-0/stdout.log"):
        time.sleep(0.01)  # who is slower would be ended before it has said anything
    sys.stderr.write('no such shard\\n')
    sys.exit(3)
sys.stdin.read()"""
WAITS = f"import rankguard\nrankguard.this_rank().status('loading', 1, 2)\n{TELL}; os.read(os.pipe()[0], 1)"


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    jobs = Jobs(tmp_path_factory.mktemp("read"))
    return jobs.home / jobs.run(2, SAYS)


@pytest.fixture
def home(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RANKGUARD_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, jobs.env[name])
    return jobs.home


def test_a_run_by_every_name(ended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKGUARD_HOME", str(ended.parent))
    monkeypatch.chdir(ended)

    names = (
        None,
        ended,
        str(ended),
        ended / "verdict.json",
        ended.name,
        ended.name[:5],
        "verdict.json",
        "events.jsonl",
        ".",
    )
    runs = [rankguard.read_run(name) for name in names]

    assert {(run.folder.resolve(), run.state, run.verdict.culprit.rank) for run in runs} == {(ended, "ended", 1)}
    assert runs[0].verdict.to_dict() == json.loads((ended / "verdict.json").read_text())


def test_what_is_no_run_is_said_with_a_hint(home: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[1]")
    told = {}
    for asked in (None, "zzz", tmp_path, tmp_path / "other.json"):
        with pytest.raises(rankguard.UsageError) as error:
            rankguard.read_run(asked)
        told[asked] = (error.value.statement, error.value.hint)

    assert told == {
        None: ("there is no run yet", "rankguard run -n 2 train.py"),
        "zzz": ("no run begins with `zzz`", "rankguard runs"),
        tmp_path: (f"there is no run in `{tmp_path}`", f"rankguard runs --in {tmp_path}"),
        tmp_path / "other.json": (
            f"`{tmp_path / 'other.json'}`: expected a verdict",
            "a run's folder, its `verdict.json`, or what `rankguard runs` lists",
        ),
    }


def test_its_journal_line_by_line(ended: Path) -> None:
    run = rankguard.read_run(ended)
    lines = [json.loads(line) for line in (ended / "events.jsonl").read_text().splitlines()]

    assert list(run.events()) == lines
    assert {event["rank"]: event["ending"].get("code") for event in run.events("Exited")}[1] == 3
    assert [event["order"] for event in run.events("Finish")] == ["Finish"]


def test_an_iterator_that_nobody_uses_holds_no_file(ended: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    iterators = [rankguard.read_run(ended).events() for _each in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert next(iterators[0])["schema"] == "rankguard.events/1"
    iterators.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_line_that_was_cut_off_is_passed_over(ended: Path, tmp_path: Path) -> None:
    whole = (ended / "events.jsonl").read_bytes()
    (tmp_path / "verdict.json").write_bytes((ended / "verdict.json").read_bytes())
    (tmp_path / "events.jsonl").write_bytes(whole[:-3])
    run = rankguard.read_run(tmp_path)
    few = list(run.events())
    (tmp_path / "events.jsonl").write_bytes(
        whole.replace(b"\n", b'\n{"fact": "Ex\n[3]\n' + b"[" * 100_000 + b"\n\xff\n", 1)
    )

    assert few == list(rankguard.read_run(ended).events())[:-1]
    assert list(run.events()) == list(rankguard.read_run(ended).events())


def test_a_journal_of_another_version_is_refused_at_once(ended: Path, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_bytes((ended / "verdict.json").read_bytes())
    run = rankguard.read_run(tmp_path)
    assert list(run.events()) == []

    for content in (b"", b"[]\n", b'{"schema": "rankguard.events/2"}\n'):
        (tmp_path / "events.jsonl").write_bytes(content)
        with pytest.raises(rankguard.UsageError, match=r"expected a journal of rankguard.events/1"):
            run.events()

    (tmp_path / "events.jsonl").unlink()
    os.mkfifo(tmp_path / "events.jsonl")  # is not waited for
    with pytest.raises(rankguard.UsageError, match="no regular file"):
        run.events()


def test_what_ranks_printed(ended: Path) -> None:
    run = rankguard.read_run(ended)

    assert run.log(1) == "no such shard\n"
    assert run.log(0, "stdout") == "first 0\n"
    assert run.log_path(0, "stdout") == ended / "rank-0" / "attempt-0" / "stdout.log"
    assert (run.log(0), run.log_path(0), run.log(0, "stdout", attempt=4), run.log(99)) == ("", None, "", "")
    with pytest.raises(rankguard.UsageError, match="stderr or stdout"):
        run.log(0, "../../verdict.json")


def test_no_link_is_followed_to_a_log(ended: Path, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_bytes((ended / "verdict.json").read_bytes())
    (tmp_path / "rank-0").symlink_to(ended / "rank-0")
    (tmp_path / "rank-1" / "attempt-0").mkdir(parents=True)
    (tmp_path / "rank-1" / "attempt-0" / "stderr.log").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "rank-1" / "attempt-0" / "stdout.log")
    run = rankguard.read_run(tmp_path)

    assert [run.log(rank, stream) for rank in (0, 1) for stream in ("stdout", "stderr")] == [""] * 4
    assert run.log_path(1) is None


def test_logs_are_of_the_last_attempt(jobs: Jobs) -> None:
    text = "print('attempt', os.environ['TORCHELASTIC_RESTART_COUNT'], flush=True); sys.exit(RANK)"
    run = rankguard.read_run(jobs.home / jobs.run(2, text, "--max-restarts", "1", "--restart-delay", "0"))

    assert (run.log(1, "stdout"), run.log(1, "stdout", 0)) == ("attempt 1\n", "attempt 0\n")


def test_the_course_of_memory(ended: Path, tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_bytes((ended / "verdict.json").read_bytes())
    lines = [
        '{"at": 7.5, "kib": {"0": 10, "1": 20}, "used": 40000, "limit": 90000, "from": "memory.max"}',
        '{"at": "x"}',
        '{"at"',
    ]
    (tmp_path / "memory.jsonl").write_text("\n".join(lines))

    assert rankguard.read_run(tmp_path).memory() == [
        {
            "at": 7.5,
            "ranks": {0: 10240, 1: 20480},
            "used_bytes": 40000,
            "limit_bytes": 90000,
            "limit_from": "memory.max",
        }
    ]
    for look in rankguard.read_run(ended).memory():
        assert set(look["ranks"]) <= {0, 1}


def test_its_page(ended: Path, tmp_path: Path) -> None:
    run = rankguard.read_run(ended)

    assert run.html(tmp_path / "page.html") == tmp_path / "page.html"
    assert "no such shard" in (tmp_path / "page.html").read_text()
    with pytest.raises(OSError, match="No such file") as refused:
        run.html(tmp_path / "none" / "page.html")
    assert refused.value.filename == str(tmp_path / "none" / "page.html")
    with pytest.raises(rankguard.UsageError, match="a page needs the files of a run"):
        run.replace(folder=None).html(tmp_path / "x.html")


def test_a_verdict_that_was_kept_elsewhere(ended: Path, tmp_path: Path) -> None:
    kept = tmp_path / "artifact-17.json"
    kept.write_bytes((ended / "verdict.json").read_bytes())

    run = rankguard.read_run(kept)

    assert (run.id, run.folder, run.state, run.verdict.culprit.rank) == (ended.name, None, "ended", 1)
    assert (list(run.events()), run.log(1), run.log_path(1)) == ([], "", None)


def test_a_live_run_and_what_is_left_of_it(jobs: Jobs, home: Path) -> None:
    live = jobs.start(2, WAITS)
    until((live.folder / "state.json").exists)

    now = rankguard.read_run()
    assert (now.id, now.state, now.verdict.outcome) == (live.id, "live", "running")
    assert "Spawned" in {event.get("fact") for event in now.events()}
    until(lambda: {event["rank"] for event in now.events("StatusTold")} == {0, 1})
    live.cut_off()
    then = rankguard.read_run()

    assert (then.id, then.state, then.verdict.outcome) == (live.id, "cut off", "failed")
    assert (then.verdict.culprit.cause.kind, then.verdict.exit_code) == ("supervisor-lost", 125)
    assert repr(then).startswith(f"<rankguard.Run {live.id} failed, supervisor-lost ")
    assert repr(then).endswith(" (cut off)>")
    assert "(cut off)" in then._repr_html_()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[1]", b"{" * 5000, b'{"schema": "rankguard.verdict/1", "outcome": "failed"}', b'{"schema": "rankguard.verdict/2"}'],
)  # fmt: skip
def test_an_edited_verdict_is_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "verdict.json").write_bytes(content)

    with pytest.raises(rankguard.UsageError, match="expected a verdict"):
        rankguard.read_run(tmp_path)


@pytest.mark.parametrize(
    ("was", "is_"),
    [
        ('"rank_env": []', '"rank_env": "x"'),
        ('"names": []', '"names": [[]]'),
        ('"fact": "StatusTold", "at": ', '"fact": "StatusTold", "at": [], "was": '),
    ],
)
def test_an_edited_journal_is_an_error_of_ours(tmp_path: Path, was: str, is_: str) -> None:
    """Of a run that was cut off: there is no verdict, and what the journal tells cannot be."""
    run = tmp_path / "run"
    run_of(run, spec_of(2, run), list(trained(2, 12))[:-6], ended=False)
    journal = run / "events.jsonl"
    assert rankguard.read_run(run).state == "cut off"
    assert was in journal.read_text()
    journal.write_text(journal.read_text().replace(was, is_))

    with pytest.raises(rankguard.UsageError, match="its journal tells nothing"):
        rankguard.read_run(run)
    for words in ([], ["--json"], ["--html", str(tmp_path / "page.html")]):
        assert report([str(run), *words]) == 1


@pytest.mark.parametrize(("name", "value"), [("statement", None), ("culprit", {"cause": None})])
def test_an_edited_verdict_that_cannot_be_printed(ended: Path, tmp_path: Path, name: str, value: Any) -> None:
    verdict = json.loads((ended / "verdict.json").read_text())
    changed = verdict[name] | value if isinstance(value, dict) else value
    (tmp_path / "verdict.json").write_text(json.dumps(verdict | {name: changed}))

    with pytest.raises(rankguard.UsageError, match="expected a verdict"):
        rankguard.read_run(tmp_path)


def test_a_number_that_is_none_in_an_edited_verdict(
    ended: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = json.loads((ended / "verdict.json").read_text())
    verdict["culprit"]["elapsed_s"] = float("inf")
    (tmp_path / "verdict.json").write_text(json.dumps(verdict))

    assert report([str(tmp_path)]) == 1
    assert f"`{tmp_path}/verdict.json`: expected a verdict (" in capsys.readouterr().err
