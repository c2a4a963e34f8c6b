"""`-v`: decisions are told as they happen, with their reasons; `-q` says none."""

import re

from tests.run.command import Ranks


def told(stderr: str) -> list[str]:
    """Our own lines, without what differs from run to run."""
    lines = [line.removeprefix("rankguard: ") for line in stderr.splitlines() if line.startswith("rankguard: ")]
    return [re.sub(r"^\d+\.\d+ s: |, the last at .*", "", line) for line in lines]


FAILS = "import rankguard\nif RANK == 1: sys.exit(3)\ntime.sleep(600)"


def test_the_story_of_a_failure(ranks: Ranks) -> None:
    ended = ranks.run(2, FAILS, "-v", "--master-port", "29511")
    lines = told(ended.stderr)

    assert ended.status == 3
    assert lines[0].endswith(f"2 ranks of Python, each a new interpreter: `{ranks.folder}/program.py`")
    assert lines[1] == f"files in `{ended.folder}`"
    assert "note: MASTER_PORT is 29511, given" in lines
    assert sum("memory group for each rank" in line for line in lines) == 1  # made, or why not
    failed = lines.index("rank 1 ended with exit code 3")
    assert lines[failed + 1 : failed + 3] == ["  → SIGTERM to all ranks", lines[failed + 2]]
    assert re.fullmatch(r"  → the clock `grace` runs until \d+\.\d{3}", lines[failed + 2])
    assert "judged: rank 1 failed first (exit-code; only suspect)" in lines
    assert ended.last_line.startswith("rankguard: exit 3 exit-code proven rank=1 ")


def test_a_free_port_is_told(ranks: Ranks) -> None:
    ended = ranks.run(2, "print(os.environ['MASTER_PORT'])", "-v")
    port = ended.stdout.split()[-1]
    assert f"rankguard: note: MASTER_PORT is {port}, a free one\n" in ended.stderr


def test_it_is_told_as_it_happens(ranks: Ranks) -> None:
    """That all have started is said while they run: each waits for a file that is made when the line has been read."""
    import os
    import subprocess

    wall = ranks.folder / "go"
    program = ranks.program(f"while not os.path.exists({str(wall)!r}): time.sleep(0.01)")
    process = subprocess.Popen(
        ranks.command("-v", "-n", "2", "--run-dir", str(ranks.next_dir()), program),
        stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "all 2 ranks started" in line:
            wall.touch()
            break
    rest = process.stderr.read()
    assert process.wait(30) == 0
    assert rest.count("ended with exit code 0") in (1, 2), seen
    process.stderr.close()


def test_without_it_or_with_q_nothing_is_told(ranks: Ranks) -> None:
    for options in ((), ("-q",), ("-q", "-v")):
        ended = ranks.run(2, "pass", *options)
        assert ended.status == 0
        assert [line for line in told(ended.stderr) if not line.startswith("exit 0 succeeded")] == []


def test_it_needs_no_files(ranks: Ranks) -> None:
    (ranks.folder / "in the way").write_text("")
    ended = ranks.run(2, FAILS, "-v", "--run-dir", str(ranks.folder / "in the way" / "run"))
    lines = told(ended.stderr)
    assert (ended.status, lines[1]) == (3, "no files are kept")
    assert "rank 1 ended with exit code 3" in lines
