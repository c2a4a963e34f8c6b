"""What becomes of the terminal: sizes, modes, keys, whoever is killed with a rank in the hand."""

import json
import os
import re
import signal
from pathlib import Path

from tests.debug.desk import Desk, Session, below, wait_gone, wait_until

RAW = """
import tty
gate = sys.argv[1] if len(sys.argv) > 1 else None
if RANK == int(os.environ["HAND"]):
    tty.setraw(0)
    sys.stdout.write(f"raw {os.getpid()}.\\n" + "half a line")
    sys.stdout.flush()
signal.pause()
"""


def hand(rank: int) -> dict[str, str]:
    return {**os.environ, "HAND": str(rank)}


def assert_report_is_readable(term: Session) -> None:
    """Each line of the report begins in the first column, also the first one after `half a line`."""
    said = term.output
    report = said[said.index(b"half a line") :]
    assert b"\n" not in report.replace(b"\r\n", b"")
    import pyte

    screen = pyte.Screen(80, 60)
    pyte.ByteStream(screen).feed(report)
    lines = [line.rstrip() for line in screen.display]
    assert lines[0] == "half a line", lines
    assert lines[1].startswith(("error: ", "interrupted: ")), lines


def test_a_resize_reaches_the_rank(desk: Desk) -> None:
    text = """
def resized(*_):
    size = os.get_terminal_size()
    print("size", size.columns, size.lines, flush=True)
    if size.columns == 101: sys.exit()
signal.signal(28, resized)
print("up", os.get_terminal_size().columns, flush=True)
while True: time.sleep(0.02)  # a signal that comes just before a pause() would be waited for in vain
"""
    with desk.session(2, "if RANK:" + text.replace("\n", "\n  "), "--debug", "1") as term:
        term.expect("up 80")
        term.resize(30, 100)
        term.expect("size 100 30")
        term.resize(31, 101)
        term.expect("size 101 31")

        assert term.wait() == 0


def test_kill_9_of_a_rank_in_raw_mode(desk: Desk) -> None:
    with desk.session(2, RAW, "--debug", "1", env=hand(1)) as term:
        pid = term.told_pid("raw")
        term.expect("half a line")
        assert not term.usable()
        os.kill(pid, signal.SIGKILL)

        assert term.wait() == 137
        assert term.usable()
        assert_report_is_readable(term)


def test_stty_of_a_shell_says_so_too(desk: Desk, monkeypatch) -> None:
    monkeypatch.setenv("HAND", "0")
    with desk.shell(1, RAW, "--debug", "0", then="stty -a; echo over") as term:
        pid = term.told_pid("raw")
        os.kill(pid, signal.SIGKILL)
        term.expect("rankguard: exit 137")
        stty = term.expect(re.compile(rb"(?s)speed.*over"))[0]
        assert not re.search(rb"-(echo|icanon|isig|opost|icrnl)\b", stty), stty
        term.wait()


def test_the_modes_come_back_while_other_ranks_go_on(desk: Desk) -> None:
    """A rank that ends with 0 and leaves raw mode: Ctrl-C has to work again, for the job."""
    text = RAW.replace("signal.pause()", "if RANK == 0: sys.exit()\nsignal.pause()")
    with desk.session(2, text, "--debug", "0", env=hand(0)) as term:
        pid = term.told_pid("raw")
        wait_gone(pid)
        wait_until(term.usable)  # the supervisor has the news at the same time as we
        term.send(b"\x03")

        assert term.wait() == 130


def test_the_supervisor_is_killed(desk: Desk) -> None:
    with desk.session(2, RAW, "--debug", "1", env=hand(1)) as term:
        pid = term.told_pid("raw")
        term.expect("half a line")
        [warden] = below(term.pid)
        [supervisor] = below(warden)
        os.kill(supervisor, signal.SIGKILL)

        assert term.wait() == 125
        assert term.usable()
        assert_report_is_readable(term)
        for gone in (pid, warden):
            wait_gone(gone)


def test_the_front_is_killed(desk: Desk, monkeypatch) -> None:
    """In a shell that does not look after modes: the supervisor puts them back before it goes."""
    monkeypatch.setenv("HAND", "1")
    gate = desk.fifo()
    with desk.shell(2, RAW, "--debug", "1", then=f"cat {gate}; stty -a; echo over") as term:
        pid = term.told_pid("raw")
        [front] = below(term.pid)
        [warden] = below(front)
        [supervisor] = below(warden)
        os.kill(front, signal.SIGKILL)
        for gone in (pid, supervisor, warden):
            wait_gone(gone)
        Path(gate).write_text("")
        stty = term.expect(re.compile(rb"(?s)speed.*over"))[0]

        assert not re.search(rb"-(echo|icanon|isig|opost|icrnl)\b", stty), stty
        term.wait()


def test_the_front_is_killed_and_an_interactive_shell_has_taken_over(desk: Desk, monkeypatch) -> None:
    """bash edits its next line in modes of its own: nobody changes them under its hands."""
    monkeypatch.setenv("HAND", "0")
    monkeypatch.setenv("PS1", "$ ")
    run = desk.next_dir()
    with Session(run, "bash", "--norc", "-i") as term:
        term.expect("$ ")
        words = desk.command("-n", "1", "--run-dir", str(run), "--debug", "0", desk.program(RAW))
        term.send(" ".join(words) + "\r")
        pid = term.told_pid("raw")
        [front] = below(term.pid)
        [warden] = below(front)
        [supervisor] = below(warden)
        os.kill(front, signal.SIGKILL)
        term.expect("Killed")
        term.expect("$ ")
        for gone in (pid, supervisor, warden):
            wait_gone(gone)
        assert not term.usable()  # bash's own: it reads key by key
        term.send("echo $((6 * 7))\r")
        term.expect("\n42\r\n")
        term.send("stty -a; echo over\r")
        stty = term.expect(re.compile(rb"(?s)speed.*over"))[0]

        assert not re.search(rb"-(echo|icanon|isig|opost|icrnl)\b", stty), stty


def test_sigterm_ends_the_job_at_the_prompt(desk: Desk) -> None:
    with desk.session(2, "if RANK: breakpoint()\nsignal.pause()", "--debug", "1") as term:
        term.expect("(Pdb) ")
        term.process.terminate()

        assert term.wait() == 143
        assert term.usable()
    assert json.loads((term.run / "verdict.json").read_text())["stopped_by"]["signal"] == "SIGTERM"


def test_the_window_is_closed(desk: Desk) -> None:
    text = "if RANK == 0: print('up', os.getpid(), end='.', flush=True)\nif RANK == 0: breakpoint()\nsignal.pause()"
    with desk.session(2, text, "--debug", "0") as term:
        pid = term.told_pid("up")
        term.expect("(Pdb) ")
        term.hang_up()

        assert term.wait() in (1, 129)  # the debugger reads its end, or the signal comes first
        wait_gone(pid)


def test_kill_int_is_no_ctrl_c(desk: Desk) -> None:
    """From another terminal it ends the job, as without `--debug`."""
    text = "if RANK == 0: signal.signal(2, lambda *_: sys.exit())\nif RANK: breakpoint()\nsignal.pause()"
    with desk.session(2, text, "--debug", "1") as term:
        term.expect("(Pdb) ")
        term.process.send_signal(signal.SIGINT)
        wait_until(lambda: '"fact": "StopRequested"' in (term.run / "events.jsonl").read_text())
        term.process.send_signal(signal.SIGINT)

        assert term.wait() == 130


def test_the_terminal_can_be_opened_again(desk: Desk) -> None:
    """`torch.distributed.breakpoint` does so; a session leader that opens it does not take it away from the shell."""
    gate = desk.fifo()  # the command has the terminal until it ends: not before it was looked at
    text = f"""
if RANK:
    print('read', open('/dev/stdin').readline(), open('/proc/self/stat').read().split()[6], flush=True)
    open({gate!r}).read()
"""
    with desk.session(2, text, "--debug", "1") as term:
        term.send("again\r")
        term.expect(re.compile(rb"read again\r\n 0\r\n"))
        assert term.foreground() == term.pid
        Path(gate).write_text("")

        assert term.wait() == 0


def test_a_full_screen_program_and_a_password(desk: Desk) -> None:
    text = """
import curses, getpass
def screen(window):
    window.addstr(3, 3, "press a key")
    window.refresh()
    return window.getkey()
if RANK:
    print("key", curses.wrapper(screen), flush=True)
    print("word of", len(getpass.getpass("password? ")), flush=True)
"""
    with desk.session(2, text, "--debug", "1") as term:
        term.expect("press a key")
        term.send("k")
        term.expect("key k")
        term.expect("password? ")
        term.send("xyzzy\r")
        term.expect("word of 5")

        assert term.wait() == 0
    assert b"xyzzy" not in term.output
