"""Ctrl-Z with a rank in the hand, in a shell with job control: `fg` goes on where it was, `bg` does not go on."""

import json
import re
from collections.abc import Iterator

import pytest
from tests.debug.desk import PDB, Desk, Session, wait_reaped
from tests.terminal import CTRL_Z


@pytest.fixture
def shell(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("PS1", "$ ")
    with Session(desk.next_dir(), "bash", "--norc", "-i") as term:
        term.expect("$ ")
        yield term


def start(desk: Desk, shell: Session, n: int, text: str, *options: str) -> None:
    words = desk.command("-n", str(n), "--run-dir", str(shell.run), *options, desk.program(text))
    shell.send(" ".join(words) + "\r")


def test_at_the_prompt_and_back(desk: Desk, shell: Session) -> None:
    start(desk, shell, 2, "x = 41\nif RANK: breakpoint()\nprint('x is', x)", "--debug", "1")
    shell.expect(PDB)
    shell.send("p x + 1\r")
    shell.expect("42\r\n(Pdb) ")
    shell.send(CTRL_Z)
    shell.expect(re.compile(rb"\[1\]\+ +Stopped"))
    shell.expect("$ ")
    shell.send("stty -a; echo over\r")
    stty = shell.expect(re.compile(rb"(?s)speed.*over\r\n"))[0]
    assert not re.search(rb"-(echo|icanon|isig|opost|icrnl)\b", stty), stty
    shell.send("fg\r")
    shell.expect("--debug 1")
    shell.send("p x + 1\r")
    shell.expect("42\r\n(Pdb) ")
    shell.send("\x1b[A\r")  # arrow up: it is line editing again
    shell.expect("p x + 1\r\n42\r\n(Pdb) ")
    shell.send("c\r")
    shell.expect("x is 41")
    shell.expect("rankguard: exit 0")


def test_in_the_background_it_stands_still_and_takes_no_word_from_the_shell(desk: Desk, shell: Session) -> None:
    start(desk, shell, 2, "if RANK: breakpoint()\npass", "--debug", "1")
    shell.expect(PDB)
    shell.send(CTRL_Z)
    shell.expect(re.compile(rb"\[1\]\+ +Stopped"))
    shell.expect("$ ")
    shell.send("bg\r")
    shell.expect("&\r\n")
    shell.send("echo one $((6 * 7))\r")
    shell.expect("\none 42\r\n")
    shell.send("echo two $((6 * 7))\r")
    shell.expect("\ntwo 42\r\n")
    shell.send("fg\r")
    shell.expect("--debug 1")
    shell.send("p RANK\r")
    shell.expect("\n1\r\n(Pdb) ")
    shell.send("c\r")
    shell.expect("rankguard: exit 0")


def test_what_is_suspended_can_be_ended(desk: Desk, shell: Session) -> None:
    start(desk, shell, 2, "if RANK: breakpoint()\npass", "--debug", "1")
    shell.expect(PDB)
    shell.send(CTRL_Z)
    shell.expect(re.compile(rb"\[1\]\+ +Stopped"))
    shell.send("kill %1\r")
    shell.expect("rankguard: exit 143")

    assert json.loads((shell.run / "verdict.json").read_text())["stopped_by"]["signal"] == "SIGTERM"


def test_in_the_background_when_the_rank_has_ended_the_others_go_on(desk: Desk, shell: Session) -> None:
    gate = desk.fifo()
    text = f"if RANK: print('bye', os.getpid(), end='.\\n', flush=True)\nelse: open({gate!r}).read()"
    start(desk, shell, 2, text, "--debug", "1")
    wait_reaped(shell.told_pid("bye"))
    shell.send(CTRL_Z)
    shell.expect(re.compile(rb"\[1\]\+ +Stopped"))
    shell.send(f"bg; echo > {gate}\r")
    shell.expect("rankguard: exit 0")


def test_ctrl_c_at_the_prompt_after_it_came_back(desk: Desk, shell: Session) -> None:
    start(desk, shell, 1, "breakpoint()\npass", "--debug", "0")
    shell.expect(PDB)
    shell.send(CTRL_Z)
    shell.expect(re.compile(rb"\[1\]\+ +Stopped"))
    shell.expect("$ ")
    shell.send("fg\r")
    shell.expect("--debug 0")
    shell.send("p 6 * 7\r")
    shell.expect("42\r\n(Pdb) ")
    shell.interrupt(0)
    shell.expect("--KeyboardInterrupt--")
    shell.expect(PDB)
    shell.send("c\r")
    shell.expect("rankguard: exit 0")
