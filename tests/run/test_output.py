"""What ranks print: whole lines, nothing lost to a slow reader, nothing held up by one that is gone."""

import os
import pty
import re
import subprocess

from tests.run.command import Ranks


def test_lines_of_several_ranks_are_never_torn(ranks: Ranks) -> None:
    text = "for i in range(2000): sys.stdout.write(f'{RANK} {i} é' + 'x' * 200 + '\\n'); i % 7 or sys.stdout.flush()"

    ended = ranks.run(4, text, env=os.environ | {"PYTHONIOENCODING": "utf-8"})

    lines = ended.stdout.splitlines()
    assert len(lines) == 8000
    assert all(line == f"[{line[1]}] {line[4]} {line.split()[2]} é" + "x" * 200 for line in lines)


def test_a_slow_reader_gets_everything(ranks: Ranks) -> None:
    """5 MB through a pipe of 64 KiB whose reader begins when the job has filled it."""
    program = ranks.program(
        "sys.stdout.write(('x' * 99 + '\\n') * 50_000); sys.stdout.flush(); print('end', file=sys.stderr)"
    )
    job = subprocess.Popen(
        ranks.command("--run-dir", str(ranks.next_dir()), program),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    assert job.stdout is not None
    fd, wanted = job.stdout.fileno(), 0
    while data := os.read(fd, 512):
        wanted += len(data)
    job.communicate()

    assert (job.returncode, wanted) == (0, 5_000_000)


def test_a_reader_that_is_gone_ends_nothing(ranks: Ranks) -> None:
    program = ranks.program("for _ in range(100_000): print('x' * 60)\nopen(sys.argv[1], 'w').write('done')")
    done = ranks.folder / "done"
    command = ranks.command("--run-dir", str(ranks.next_dir()), program, str(done))

    head = subprocess.run(f"{' '.join(command)} | head -1", shell=True, capture_output=True, text=True, check=False)

    assert head.stdout == "x" * 60 + "\n"
    assert done.read_text() == "done"
    assert re.search(r"\d{5} lines of output \(\d{7} bytes\) were not shown on stdout: the reader is gone", head.stderr)


def test_a_prompt_is_shown_before_its_line_ends(ranks: Ranks) -> None:
    """On a terminal, rank 0 reads our stdin: the answer can only come once the question is seen."""
    ours, theirs = pty.openpty()
    program = ranks.program("print('you said', input('name? '))")
    job = subprocess.Popen(
        ranks.command("--run-dir", str(ranks.next_dir()), program), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    while b"name? " not in seen:
        seen += os.read(ours, 1024)
    os.write(ours, b"ada\n")
    while b"you said ada" not in seen:
        seen += os.read(ours, 1024)
    while True:
        try:
            if not os.read(ours, 1024):
                break
        except OSError:
            break
    os.close(ours)

    assert job.wait(30) == 0


def test_a_progress_bar_leaves_its_last_state(ranks: Ranks) -> None:
    ended = ranks.run(1, "sys.stdout.write('1/3\\r2/3\\r3/3\\ndone\\n')")

    assert ended.stdout == "3/3\ndone\n"


def test_the_prefix_template(ranks: Ranks) -> None:
    ended = ranks.run(2, "print('x')", "--log-line-prefix-template", "<${role_name}${rank}> ", "--role", "t")

    assert sorted(ended.stdout.splitlines()) == ["<t0> x", "<t1> x"]
