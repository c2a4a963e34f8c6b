"""Who reads our stdin: rank 0 on a terminal, nobody elsewhere, the rank that is named, and nobody in the background."""

import subprocess

import pytest
from tests.debug.desk import Desk, Session
from tests.terminal import CTRL_D

ASK = "print('got', repr(input('name? ')), flush=True)"
WHO = "print(RANK, sys.stdin.isatty(), repr(sys.stdin.read()), flush=True)"


def test_rank_0_reads_the_terminal_and_its_prompt_is_seen(desk: Desk) -> None:
    """A prompt has no end of line: it is shown all the same, with the rank's prefix, before anybody answers."""
    with desk.session(2, f"if RANK == 0: {ASK}\nelse: print('none', repr(sys.stdin.read()))") as term:
        term.expect("[0] name? ")
        term.send("Ada\r")
        term.expect("got 'Ada'")

        assert term.wait() == 0
    assert "[1] none ''" in term.output.decode()


def test_while_it_runs_line_by_line_and_the_end(desk: Desk) -> None:
    text = (
        "if RANK == 0:\n for line in sys.stdin: print('line', line.strip(), flush=True)\n print('the end', flush=True)"
    )
    with desk.session(1, text) as term:
        for word in ("one", "two"):
            term.send(f"{word}\r")
            term.expect(f"line {word}")
        term.send(CTRL_D)
        term.expect("the end")

        assert term.wait() == 0


def test_a_debugger_in_rank_0_needs_no_option(desk: Desk) -> None:
    with desk.session(2, "if RANK == 0: breakpoint()\nprint('on', RANK)") as term:
        term.expect("[0] (Pdb) ")
        term.send("p RANK + 41\r")
        term.expect("41")
        term.expect("(Pdb) ")
        term.send("c\r")

        assert term.wait() == 0


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ((), {0: "", 1: "", 2: ""}),
        (("--stdin", "2"), {0: "", 1: "", 2: "a\nb"}),
        (("--stdin", "none"), {0: "", 1: "", 2: ""}),
        (("--debug", "1"), {0: "", 1: "a\nb", 2: ""}),
    ],
)
def test_from_a_file(desk: Desk, options: tuple[str, ...], read: dict[int, str]) -> None:
    given = desk.folder / "given"
    given.write_text("a\nb")
    run = desk.next_dir()
    words = desk.command("-n", "3", "--run-dir", str(run), *options, desk.program(WHO))

    with given.open() as stdin:
        ended = subprocess.run(words, stdin=stdin, capture_output=True, text=True, timeout=60)

    assert ended.returncode == 0
    said = [line.removeprefix(f"[{line[1:2]}] ") for line in ended.stdout.splitlines()]
    if "--debug" in options:
        assert said == [f"1 False {read[1]!r}"]
        assert "`--debug 1`: stdin is no terminal; rank 1 reads what there is" in ended.stderr
    else:
        assert sorted(said) == [f"{rank} False {text!r}" for rank, text in read.items()]


def test_a_closed_stdin(desk: Desk) -> None:
    words = desk.command("-n", "2", "--stdin", "1", "--run-dir", str(desk.next_dir()), desk.program(WHO))
    shell = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *words], capture_output=True, text=True, timeout=60
    )  # fmt: skip

    assert (shell.returncode, sorted(shell.stdout.splitlines())) == (0, ["[0] 0 False ''", "[1] 1 False ''"])


@pytest.mark.parametrize("options", [(), ("--stdin", "0"), ("--debug", "0")], ids=" ".join)
def test_in_the_background_nobody_takes_what_is_typed_for_the_shell(desk: Desk, monkeypatch, options) -> None:
    monkeypatch.setenv("PS1", "$ ")
    run = desk.next_dir()
    text = "try: input()\nexcept EOFError: print('no input', flush=True)\nopen(sys.argv[1]).read()"
    gate = desk.fifo()
    with Session(run, "bash", "--norc", "-i") as term:
        term.expect("$ ")
        term.send(" ".join(desk.command("--run-dir", str(run), *options, desk.program(text), gate)) + " &\r")
        term.expect("no input")
        term.send("echo $((6 * 7))\r")
        term.expect("\n42\r\n")
        term.send(f"echo > {gate}; wait; echo over $?\r")
        term.expect("rankguard: exit 0")
        term.expect("over 0")
        if options:
            option = " ".join(options)
            assert f"`{option}`: rank 0 reads nothing, because the job runs in the background" in term.output.decode()


def test_a_debugger_without_a_terminal_says_how_to_get_one(desk: Desk) -> None:
    ended = desk.run(4, "if RANK == 3: breakpoint()\npass")

    assert ended.cause["exception"]["type"] == "bdb.BdbQuit"
    assert "try:   run again with `--debug 3`: `breakpoint()` found nothing to read from, and quit" in ended.stderr


def test_input_without_stdin_says_how_to_give_it_one(desk: Desk) -> None:
    ended = desk.run(2, "if RANK == 1: input('name? ')\npass")

    assert "try:   run again with `--stdin 1`, which gives it our stdin: it had none to read from" in ended.stderr


def test_two_hands_on_one_terminal_are_refused(desk: Desk) -> None:
    ended = desk.run(2, "", "--debug", "1", "--stdin", "0")
    beyond = desk.run(2, "", "--debug", "2")

    said = "error: `--stdin 0`: expected no other rank than that of `--debug 1`, which has the terminal\n"
    assert (ended.status, ended.stderr.startswith(said)) == (2, True)
    assert (beyond.status, beyond.stderr.splitlines()[0]) == (
        2,
        "error: `--debug 2`: expected a rank of this job, 0 to 1",
    )
