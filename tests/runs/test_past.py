"""`runs`, `report` and `explain`: of runs that are over, that live, that were cut off, and that somebody has edited."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runs.jobs import TELL, Jobs, Live, until
from tests.terminal import Terminal

from rankguard import private
from rankguard.cli import main

WAITS = f"r, w = os.pipe()\n{TELL}; os.read(r, 1)"
LOADS = f"""
import rankguard
me = rankguard.this_rank()
me.status("loading shards", 41, 100)
if RANK == 0: me.ready()
print("the last line of", RANK, flush=True)
{TELL}
os.read(os.pipe()[0], 1)
"""


def have_told(live: Live) -> None:
    """Until all that the ranks of `LOADS` report is known."""
    until(lambda: sorted(fact["rank"] for fact in live.facts if fact["fact"] == "StatusTold") == [0, 1, 2])
    until(lambda: any(fact["fact"] == "Ready" for fact in live.facts))


@pytest.fixture
def cut_off(jobs: Jobs) -> Live:
    """A run whose front, supervisor and warden were killed in one instant."""
    live = jobs.start(3, LOADS)
    have_told(live)
    until(lambda: all((live.folder / f"rank-{r}/attempt-0/stdout.log").exists() for r in range(3)))
    until(lambda: looked_at(live) == {0, 1, 2})
    live.cut_off()
    return live


def looked_at(live: Live) -> set[int]:
    """The ranks that the last look at the memory saw: the first one may come before they are started."""
    path = live.folder / "samples.json"
    return {rank for rank, _held in json.loads(path.read_text())["ranks"]} if path.exists() else set()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is over, for `copied`: what is done to a run on disk needs none of its own."""
    jobs = Jobs(tmp_path_factory.mktemp("once"))
    return jobs.home / jobs.run(1, "print('x' * 10_000)")


def copied(jobs: Jobs, once: Path) -> str:
    """Such a run with an id of its own."""
    run = f"{len(os.listdir(jobs.home)) if jobs.home.exists() else 0:08x}"
    shutil.copytree(once, jobs.home / run)
    for name in ("verdict.json", "events.jsonl"):
        path = jobs.home / run / name
        path.write_text(path.read_text().replace(once.name, run))
    return run


def verdict_of(jobs: Jobs, run: str) -> Path:
    return jobs.home / run / "verdict.json"


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_list_tells_what_became_of_each_and_fits(jobs: Jobs) -> None:
    failed = jobs.run(2, "if RANK: sys.exit(3)\nsys.stdin.read()")
    jobs.run(1, "pass", "--label", "a-rather-long-label=with-a-long-value")
    live = jobs.start(4, WAITS)

    told = jobs.ask("runs")

    head, *lines = told.stdout.splitlines()
    assert head.split() == ["RUN", "STARTED", "TOOK", "RANKS", "OUTCOME", "COMMAND"]
    assert lines[0].startswith(live.id)
    assert " 4  running" in lines[0]
    assert " 1  succeeded" in lines[1]
    assert lines[2].startswith(failed)
    assert " 2  exit-code rank 1 (3)" in lines[2]
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_the_list_as_json(jobs: Jobs) -> None:
    run = jobs.run(2, "os.kill(os.getpid(), 9) if RANK == 1 else sys.stdin.read()")

    (row,) = json.loads(jobs.ask("runs", "--json").stdout)

    picked = {key: row[key] for key in ("run", "world_size", "outcome", "exit_code", "cause", "rank", "live")}
    assert picked == {
        "run": run, "world_size": 2, "outcome": "failed", "exit_code": 137, "cause": "killed", "rank": 1, "live": False,
    }  # fmt: skip


def test_a_run_that_was_cut_off_is_shown_as_such(jobs: Jobs, cut_off: Live) -> None:
    line = jobs.ask("runs").stdout.splitlines()[1]

    assert line.startswith(cut_off.id)
    assert " 3  no verdict" in line


def test_many_runs_and_a_reader_that_goes(jobs: Jobs) -> None:
    """The list reads the files of those that it shows; its first lines do not wait for the last."""
    run = jobs.run(1, "pass")
    texts = {name: (jobs.home / run / name).read_bytes() for name in ("verdict.json", "events.jsonl")}
    for n in range(1_200):
        (jobs.home / f"{n:08x}").mkdir()
        for name, text in texts.items():
            (jobs.home / f"{n:08x}" / name).write_bytes(text)
    trace = "import sys, builtins, os; real = os.open; n = [0]\n"
    trace += (
        "def count(path, *more, **kw):\n    n[0] += 'verdict.json' in os.fspath(path); return real(path, *more, **kw)\n"
    )
    trace += "os.open = count\nfrom rankguard.cli import main\nmain(['runs', '-n', '20'])\nprint(n[0], file=sys.stderr)"

    told = subprocess.run([sys.executable, "-c", trace], env=jobs.env, capture_output=True, text=True)
    piped = subprocess.run(
        f"{sys.executable} -m rankguard runs -n 0 | head -2; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", env=jobs.env, capture_output=True, text=True,
    )  # fmt: skip

    note, count = told.stderr.splitlines()
    assert (len(told.stdout.splitlines()), note) == (21, "note:  1181 more; `rankguard runs -n 0` lists all")
    assert int(count) == 20
    assert (piped.returncode, len(piped.stdout.splitlines()), piped.stderr) == (141, 2, "")


HOSTILE = [
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b'"text"',
    b"{" * 5000,
    b"[" * 200_000,
    b'{"schema": "rankguard.verdict/1", "outcome": "failed"}',
    b'{"schema": "rankguard.verdict/1", "outcome": ["x"], "culprit": 3}',
    b'{"schema": "other/9", "outcome": "failed", "culprit": {"cause": []}, "started_at": 1e999, "command": "x"}',
    json.dumps({
        "schema": "rankguard.verdict/1", "outcome": "failed", "statement": "\x1b]0;owned\x07\x1b[2J", "world_size": 10**400,
        "started_at": "9999-99-99", "exit_code": "\x1b[31m", "culprit": {"rank": "\u202e", "cause": {"kind": "\x1b[5m\r"}},
        "command": ["\x1b[2J", {"a": 1}, None], "run_id": "../../etc",
    }).encode(),
]  # fmt: skip


@pytest.fixture
def told(jobs: Jobs, monkeypatch, capsys):
    """One `rankguard …` in this process, since there are many; fails when it does not end in good order."""
    for name in ("RANKGUARD_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, jobs.env[name])

    def tell(*words: str) -> str:
        status = main(words)
        said = capsys.readouterr()
        assert status in (0, 1, 2), (words, said.err)
        assert "\x1b" not in said.out + said.err
        return said.out

    return tell


@pytest.mark.parametrize("content", HOSTILE)
def test_an_edited_verdict_harms_nobody(jobs: Jobs, once: Path, told, content: bytes) -> None:
    run = copied(jobs, once)
    verdict_of(jobs, run).write_bytes(content)

    (jobs.home / run / "samples.json").write_bytes(content)
    for words in (["runs"], ["report"], ["report", "--json"], ["explain"], ["stacks"]):
        told(*words)
    json.loads(told("runs", "--json"))
    told("runs", "--prune", "--keep", "0", "--dry-run")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\n\xfe\n",
        b"[1]\n{}\n3\n",
        b'{"schema": "rankguard.events/1", "spec": []}\n{"fact": "Exited"}\n',
        b'{"fact": "JobStarted", "at": "x"}\n{"fact": ["a"], "at": 1}\n{"order": {"x": 1}}\n{"note": "\x1b[2J"}\n',
        (
            b'{"fact": "JobStarted", "at": 1}\n{"fact": "Exited", "at": 2, "rank": 0, "ending": 7}\n{"order": "Spawn"}\n'
            b'{"fact": "TreeEmpty", "at": 3, "killed": 4, "left": [1, "x"], "survivors": {}}\n{"order": "SignalAll", "spare": 1}\n'
            b'{"fact": "Looked", "at": 3, "dying": 1}\n{"fact": "\\u001b[2J", "at": NaN}\n{"order": "WakeAt", "name": "grace", "when": "x"}'
        ),
    ],
)
def test_an_edited_journal_harms_nobody(jobs: Jobs, once: Path, told, content: bytes) -> None:
    run = copied(jobs, once)
    (jobs.home / run / "events.jsonl").write_bytes(content)
    (jobs.home / run / "samples.json").write_text(
        '{"at": 1, "ranks": [[0, "x"], 3, [1, 1e400]], "memory": {"limit_bytes": -1}}'
    )
    verdict_of(jobs, run).unlink()

    for words in (["explain"], ["explain", "--all"], ["explain", "--json"], ["report"], ["report", "--json"], ["runs"]):
        told(*words)


def test_what_is_no_file_is_not_waited_for(jobs: Jobs, once: Path) -> None:
    run = copied(jobs, once)
    for name in ("verdict.json", "events.jsonl"):
        (jobs.home / run / name).unlink()
        os.mkfifo(jobs.home / run / name)

    assert {jobs.ask(*words).returncode for words in (["runs"], ["report"], ["explain"], ["stacks"])} <= {0, 1, 2}


# ── prune ────────────────────────────────────────────────────────────────────────────────────────────────────────


def aged(jobs: Jobs, once: Path, days: float) -> str:
    """A run that ended so long ago."""
    run = copied(jobs, once)
    for path in [*(jobs.home / run).rglob("*"), jobs.home / run]:
        os.utime(path, (time.time() - days * 86400,) * 2)
    return run


def test_prune_removes_what_is_old_and_nothing_else(jobs: Jobs, once: Path) -> None:
    old, older, young = aged(jobs, once, 8), aged(jobs, once, 30), aged(jobs, once, 1)
    (jobs.home / "notes").mkdir()
    (jobs.home / "notes" / "verdict.json").write_text('{"mine": true}')
    os.utime(jobs.home / "notes" / "verdict.json", (0, 0))
    (jobs.home / old / "checkpoint.pt").write_text("the user's own")
    (jobs.home / old / "rank-0" / "profile.json").write_text("the user's own")

    dry = jobs.ask("runs", "--prune", "--older-than", "7d", "--dry-run")
    everything = sorted(jobs.home.rglob("*"))
    told = jobs.ask("runs", "--prune", "--older-than", "7d")

    assert "2 runs, " in dry.stderr
    assert "would be freed; 2 stay" in dry.stderr
    assert len(everything) > len(list(jobs.home.rglob("*")))
    assert sorted(path.name for path in jobs.home.iterdir()) == sorted(["notes", old, young])
    left = sorted(str(path.relative_to(jobs.home / old)) for path in (jobs.home / old).rglob("*"))
    assert left == ["checkpoint.pt", "rank-0", "rank-0/profile.json"]
    assert f"{old}  " in told.stdout
    assert "kept: checkpoint.pt, rank-0/profile.json" in told.stdout
    assert older not in os.listdir(jobs.home)


def test_prune_keeps_the_newest_and_whatever_lives(jobs: Jobs, once: Path) -> None:
    runs = [aged(jobs, once, days) for days in (5, 4, 3)]
    live = jobs.start(1, WAITS)
    os.utime(live.folder / "events.jsonl", (0, 0))  # the oldest of all

    told = jobs.ask("runs", "--prune", "--keep", "1")

    assert sorted(os.listdir(jobs.home)) == sorted([runs[2], live.id])
    assert "1 of them live" in told.stderr
    assert live.process.poll() is None


def test_prune_follows_no_link(jobs: Jobs, once: Path, tmp_path: Path) -> None:
    run = aged(jobs, once, 9)
    away = tmp_path / "away"
    (jobs.home / run / "rank-0").rename(away)
    (jobs.home / run / "rank-0").symlink_to(away)
    (jobs.home / "linked").symlink_to(jobs.home / run)

    jobs.ask("runs", "--prune", "--keep", "0")

    assert (away / "attempt-0" / "stdout.log").exists()
    assert os.listdir(jobs.home) == ["linked"]


def test_a_run_that_was_cut_off_can_be_removed(jobs: Jobs, cut_off: Live) -> None:
    jobs.ask("runs", "--prune", "--keep", "0", "--json")

    assert os.listdir(jobs.home) == []


# ── report ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_report_is_what_was_printed(jobs: Jobs) -> None:
    program = jobs.ranks.program("if RANK: sys.exit(3)\nsys.stdin.read()")
    printed = jobs.ask("run", "-n", "2", program).stderr

    again = jobs.ask("report")

    assert (again.returncode, again.stdout) == (0, printed)


def test_the_report_on_a_terminal_is_as_wide_as_that(jobs: Jobs) -> None:
    """As it was printed there, `~` for the reader's home included."""
    text = "if RANK: raise ValueError('word ' * 40)\nsys.stdin.read()"
    words = ("run", "-n", "2", "--local-ranks-filter", "0", jobs.ranks.program(text))
    shown = []
    for asked in (words, ("report",)):
        env = jobs.env | {"HOME": str(jobs.folder)}
        with Terminal(sys.executable, "-m", "rankguard", *asked, columns=80, env=env) as term:
            term.read_until_closed()
            lines = term.scrolled()
            assert term.wait() == (1 if asked is words else 0)
        start = next(n for n, line in enumerate(lines) if line.startswith("error: "))
        shown.append("\n".join(lines[start:]))
    assert shown[0] == shown[1]
    assert "\n          ~/home/" in shown[0]


def test_a_run_in_a_folder_of_another_name_is_found_by_its_own_id_too(jobs: Jobs) -> None:
    """As a drill's: the last line on stderr tells the id, and that is what people copy."""
    jobs.run(1, "pass")
    printed = jobs.ask("run", "--run-dir", str(jobs.home / "drill-kill-1"), jobs.ranks.program("sys.exit(3)")).stderr
    run_id = printed.rstrip().rpartition("run=")[2]

    for asked in (run_id, run_id[:6], "drill-kill"):
        again = jobs.ask("report", asked)
        assert (again.returncode, again.stdout) == (0, printed)
    assert jobs.ask("report", "zzz").returncode == 2


def test_the_report_of_a_live_run(jobs: Jobs) -> None:
    live = jobs.start(3, LOADS)
    have_told(live)

    told = jobs.ask("report")

    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert lines[0] == "running: 1 of 3 ranks ready"
    assert "  ranks   0 ready; 1, 2 starting" in lines
    assert any(line.startswith('  rank 1  "loading shards", 41 of 100') for line in lines)
    assert json.loads(jobs.ask("report", "--json").stdout)["outcome"] == "running"
    assert live.process.poll() is None


def test_the_report_of_a_run_that_was_cut_off(jobs: Jobs, cut_off: Live) -> None:
    told = jobs.ask("report")

    assert told.returncode == 0
    lines = told.stdout.splitlines()
    assert lines[0].startswith(f"no verdict: run {cut_off.id} was cut off: everything of it was killed at once")
    assert "  ranks   0 ready; 1, 2 starting" in lines
    assert any(line.startswith('  rank 2  "loading shards", 41 of 100') for line in lines)
    assert "    | the last line of 1" in lines
    assert any(line.startswith("  memory  ranks ") for line in lines)
    as_json = json.loads(jobs.ask("report", "--json").stdout)
    assert (as_json["outcome"], as_json["culprit"]["cause"]["kind"]) == ("failed", "supervisor-lost")


def test_what_the_ranks_held_at_the_last_look_is_told(jobs: Jobs) -> None:
    live = jobs.start(2, "kept = bytearray(64 << 20)\n" + LOADS)
    samples = live.folder / "samples.json"
    until(lambda: samples.exists() and sum(held for _, held in json.loads(samples.read_text())["ranks"]) > 128 << 20)
    alive = jobs.ask("report").stdout
    live.cut_off()
    dead = jobs.ask("report").stdout

    held = re.compile(
        r"^  memory  ranks 1\d\d\.\d MiB in all, the largest rank [01] with \d\d\.\d MiB, \d+ s (ago|before)",
        re.MULTILINE,
    )
    assert [held.search(text)[1] for text in (alive, dead)] == ["ago", "before"]


def test_there_is_no_such_run(jobs: Jobs, told, monkeypatch, capsys) -> None:
    """Where nobody has a live run: one in /tmp would be meant, so nobody's private folder is seen there."""
    monkeypatch.setattr(private, "private_parents", lambda: iter([jobs.env["TMPDIR"]]))

    assert main(["report"]) == 2
    assert capsys.readouterr().err == "error: there is no run yet\ntry:   rankguard run -n 2 train.py\n"
    jobs.run(1, "pass")
    assert main(["report", "zzz"]) == 2
    assert capsys.readouterr().err == "error: no run begins with `zzz`\ntry:   rankguard runs\n"


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [["x"], ["--json"], ["--all"]])
def test_the_rules_are_of_no_run(jobs: Jobs, words: list[str]) -> None:
    told = jobs.ask("explain", "--rules", *words)

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("error: `--rules` is of no run, and has one form\n")


def story(text: str) -> list[str]:
    """Without the instants, and without what this machine did not allow."""
    lines = [line[12:] if line[:12].strip() else line.strip() for line in text.splitlines()[2:]]
    return lines[next(n for n, line in enumerate(lines) if line.startswith("the job began")) :]


def test_the_story_of_a_failure(jobs: Jobs) -> None:
    live = jobs.start(8, TELL + "\nos.read(os.pipe()[0], 1)")
    pids = [live.pid(rank) for rank in range(8)]  # the journal has all of them before one dies
    os.kill(pids[3], signal.SIGKILL)
    live.process.communicate()

    told = jobs.ask("explain")

    lines = story(told.stdout)
    assert told.returncode == 0
    assert lines[0].startswith("the job began")
    assert lines[1] == "→ start ranks 0-7"
    started = next(n for n, line in enumerate(lines) if line.startswith("all 8 ranks started"))
    at = lines.index("rank 3 was ended by SIGKILL")
    assert started < at  # behind a note of why they were executed
    assert lines[at + 1] == "→ SIGTERM to all ranks"
    assert lines[at + 2].startswith("→ the clock `grace` runs until ")
    assert "judged: rank 3 failed first (killed; only suspect)" in lines
    assert lines[-1] == "→ write the verdict"
    assert [
        line for line in told.stdout.splitlines() if len(line) > 80 and "/" not in line
    ] == []  # a path is never cut
    assert len(lines) < 20


def test_every_fact_with_all(jobs: Jobs) -> None:
    run = jobs.run(2, "pass")
    facts = [json.loads(line) for line in (jobs.home / run / "events.jsonl").read_text().splitlines()]

    told = jobs.ask("explain", "--all")

    for fact in facts:
        if "fact" in fact:
            assert fact["fact"] in told.stdout
    moments = json.loads(jobs.ask("explain", "--all", "--json").stdout)
    assert len([m for m in moments if m["at_s"] is not None]) == sum("fact" in fact for fact in facts)


def test_samples_that_are_no_samples_harm_nobody(jobs: Jobs, cut_off: Live) -> None:
    for text in (
        "[]",
        "{",
        '{"at": "x"}',
        '{"at": 1e300, "ranks": 3}',
        '{"at": 5, "ranks": [[0, true], [0, -4], [1, 1e9], "x"]}',
    ):
        (cut_off.folder / "samples.json").write_text(text)
        told = jobs.ask("report")
        assert (told.returncode, "memory" in told.stdout) == (0, False)


def test_a_journal_that_was_torn_is_told_as_far_as_it_goes(jobs: Jobs) -> None:
    run = jobs.run(2, "pass")
    journal = jobs.home / run / "events.jsonl"
    journal.write_bytes(journal.read_bytes()[:-30])
    verdict_of(jobs, run).unlink()

    told = jobs.ask("explain")

    assert told.stdout.splitlines()[-1].strip() == "(the journal ends here, without a verdict)"
    assert "(a line of the journal cannot be read" in told.stdout


def test_the_story_of_a_live_run(jobs: Jobs) -> None:
    jobs.start(2, WAITS)

    assert jobs.ask("explain").stdout.splitlines()[-1].strip() == "(the run goes on)"


def test_a_journal_that_is_nested_without_end_is_no_fault_of_ours(jobs: Jobs) -> None:
    run = jobs.run(1, "pass")
    folder = jobs.home / run
    (folder / "verdict.json").unlink()
    (folder / "events.jsonl").write_text("[" * 100_000 + "\n")

    told = jobs.ask("report", str(folder))

    assert told.returncode == 1
    assert "journal tells nothing" in told.stderr
