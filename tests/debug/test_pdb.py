"""A debugger in one rank: real `breakpoint()` and pdb on a real terminal, while the other ranks go on."""

import json
import os
import sys

from tests.debug.desk import PDB, Desk, Session, wait_reaped
from tests.terminal import CTRL_C, CTRL_D


def test_breakpoint_at_one_rank_of_four(desk: Desk) -> None:
    text = """
print("begin", RANK)
if RANK == 1:
    x = 41
    breakpoint()
    x += 1
    print("x is", x, "on a terminal" if sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty() else "")
"""
    with desk.session(4, text, "--debug", "1") as term:
        term.expect("rank 1 has the terminal, and Ctrl-C is for it\r\nrankguard: the others: ")
        term.expect(PDB)
        term.send("p RANK\r")
        term.expect("p RANK\r\n1\r\n(Pdb) ")
        if sys.version_info >= (3, 13):  # there it stands on the line with breakpoint(), not behind it
            term.send("n\r")
            term.expect("x += 1")
            term.expect(PDB)
        term.send("n\r")
        term.expect("print(")
        term.expect(PDB)
        term.send("p x\r")
        term.expect("p x\r\n42\r\n(Pdb) ")
        term.send("c\r")
        term.expect("x is 42 on a terminal\r\n")
        status = term.wait()

    said = term.output.decode()
    assert status == 0
    assert "[1]" not in said
    assert [f"begin {rank}" in said for rank in range(4)] == [False, True, False, False]
    assert [term.log(rank) for rank in (0, 2, 3)] == ["begin 0\n", "begin 2\n", "begin 3\n"]
    why = "[rankguard: rank 1 had the terminal (--debug 1): what it printed was not kept]\n"
    assert (term.log(1), term.log(1, "stderr")) == (why, why)


def test_line_editing_history_and_a_real_terminal(desk: Desk) -> None:
    with desk.session(1, "breakpoint()\npass", "--debug", "0") as term:
        term.expect(PDB)
        term.send("RANK\x01p \r")  # Ctrl-A: to the beginning of the line
        term.expect("\r\n0\r\n(Pdb) ")
        term.send("p RANK + 7\r")
        term.expect("\r\n7\r\n(Pdb) ")
        term.send("\x1b[A")  # arrow up
        term.expect("p RANK + 7")
        term.send("\x7f\x7f\x7f\x7f+ 70\r")
        term.expect("\r\n70\r\n(Pdb) ")
        term.send("import os; os.get_terminal_size()\r")
        term.expect("os.terminal_size(columns=80, lines=24)")
        term.expect(PDB)
        term.send("c\r")

        assert term.wait() == 0


def test_ctrl_c_while_it_continues_comes_back_to_the_prompt(desk: Desk) -> None:
    text = """
breakpoint()
print("looping", flush=True)
while True: time.sleep(0.01)
"""
    with desk.session(1, text, "--debug", "0") as term:
        term.expect(PDB)
        term.send("c\r")
        term.expect("looping\r\n")
        term.send(CTRL_C)
        term.expect("Program interrupted.")
        term.expect(PDB)
        term.send("p 6 * 7\r")
        term.expect("42\r\n(Pdb) ")
        term.interrupt(0)
        term.expect("KeyboardInterrupt")
        term.expect(PDB)
        term.send("q\r")

        assert term.wait() == 1


def test_ctrl_c_hurts_nobody_else(desk: Desk) -> None:
    """The others would write a word if they were signalled; they end when the interrupted rank says so."""
    text = """
signal.signal(2, lambda *_: print("hurt", flush=True))
gate = sys.argv[1]
if RANK == 1:
    signal.signal(2, signal.default_int_handler)
    try:
        print("looping", flush=True)
        while True: time.sleep(0.02)  # a signal that comes just before a long one would be waited for in vain
    except KeyboardInterrupt:
        print("caught it", flush=True)
    for _ in range(3): open(gate + str(_), "w").close()
else:
    open(gate + str(RANK - (RANK > 1))).read()
"""
    gates = [desk.fifo(f"gate{number}") for number in range(3)]
    with desk.session(4, text, "--debug", "1", args=(gates[0][:-1],)) as term:
        term.expect("looping")
        term.send(CTRL_C)
        term.expect("caught it")

        assert term.wait() == 0
    assert "hurt" not in "".join(term.log(rank) for rank in (0, 2, 3))
    told = [json.loads(line) for line in (term.run / "events.jsonl").read_text().splitlines()]
    orders = [entry for entry in told if entry.get("order", "").startswith("Signal")]
    assert [(entry["order"], entry["rank"], entry["signal"]) for entry in orders] == [("SignalRank", 1, 2)]


def test_ctrl_c_when_the_rank_has_ended_is_for_the_job(desk: Desk) -> None:
    text = "if RANK: print('bye', os.getpid(), end='.', flush=True)\nelse: signal.pause()"
    with desk.session(2, text, "--debug", "1") as term:
        wait_reaped(term.told_pid("bye"))  # it has been reaped, so its end is known
        term.send(CTRL_C)

        assert term.wait() == 130
    assert "SIGINT" in term.output.decode()


def test_a_plain_program_gets_a_keyboard_interrupt(desk: Desk) -> None:
    with desk.session(2, "if RANK: print('up', flush=True)\nwhile True: time.sleep(0.02)", "--debug", "1") as term:
        term.expect("up")
        term.send(CTRL_C)

        assert term.wait() == 130
    said = term.output.decode()
    assert "KeyboardInterrupt" in said
    assert json.loads((term.run / "verdict.json").read_text())["culprit"]["rank"] == 1


def test_q_is_a_verdict(desk: Desk) -> None:
    with desk.session(2, "if RANK: breakpoint()\npass", "--debug", "1") as term:
        term.expect(PDB)
        term.send("q\r")

        assert term.wait() == 1
    told = json.loads((term.run / "verdict.json").read_text())
    cause = told["culprit"]["cause"]
    assert (told["culprit"]["rank"], cause["kind"], cause["exception"]["type"]) == (1, "exception", "bdb.BdbQuit")
    assert (told["culprit"]["log_tail"], told["hints"]) == ([], [])


def test_ctrl_d_ends_it_like_q(desk: Desk) -> None:
    with desk.session(1, "breakpoint()\npass", "--debug", "0") as term:
        term.expect(PDB)
        term.send(CTRL_D)

        assert term.wait() == 1
    assert "raised BdbQuit" in term.output.decode()


def test_a_script_under_pdb_and_the_post_mortem(desk: Desk) -> None:
    """`-m pdb -c continue train.py`: the debugger comes up where the exception is."""
    run, program = desk.next_dir(), desk.program("weights = [1, 2]\nweights[RANK + 2]\n")
    words = ["-n", "2", "--run-dir", str(run), "--debug", "1", "-m", "pdb", "-c", "continue", program]
    with Session(run, *desk.command(*words)) as term:
        term.expect("IndexError")
        term.expect("Running 'cont' or 'step' will restart the program")
        term.expect(PDB)
        term.send("p weights, RANK\r")
        term.expect("([1, 2], 1)")
        term.send("q\r")
        if sys.version_info < (3, 13):
            term.expect("will be restarted")
            term.expect(PDB)
            term.send("q\r")
        term.wait()
    assert "IndexError" in term.log(0) + term.log(0, "stderr")


def test_pythonbreakpoint_chooses_another_debugger_or_none(desk: Desk) -> None:
    text = "if RANK: breakpoint()\nprint('through', RANK)"
    with desk.session(2, text, "--debug", "1", env=os.environ | {"PYTHONBREAKPOINT": "0"}) as term:
        term.expect("through 1")
        assert term.wait() == 0
    env = os.environ | {"PYTHONBREAKPOINT": "hook.here", "PYTHONPATH": str(desk.folder)}
    desk.program("def here(): print('hooked', input('so? '))", "hook.py")
    with desk.session(2, text, "--debug", "1", env=env) as term:
        term.expect("so? ")
        term.send("yes\r")
        term.expect("hooked yes")
        assert term.wait() == 0


def test_no_deadline_runs(desk: Desk) -> None:
    """Neither rank says that it is ready, and a time that has long passed at the prompt ends nobody."""
    text = "t = sys.modules['__main__']\nif RANK: breakpoint()\nimport rankguard; rankguard.this_rank().ready()"
    with desk.session(2, text, "--debug", "1", "--ready-timeout", "0.001") as term:
        term.expect("`--ready-timeout 0.001`: it does not run with `--debug`")
        term.expect(PDB)
        term.send("c\r")

        assert term.wait() == 0
    assert '"name": "ready"' not in (term.run / "events.jsonl").read_text()


def test_quiet_says_nothing_of_itself(desk: Desk) -> None:
    with desk.session(1, "breakpoint()\npass", "--debug", "0", "-q") as term:
        term.expect(PDB)
        term.send("c\r")
        assert term.wait() == 0
    assert "has the terminal" not in term.output.decode()


def test_an_unguarded_breakpoint_stops_one_rank_only(desk: Desk) -> None:
    text = "breakpoint()\nprint('through', RANK, flush=True)"
    with desk.session(3, text, "--debug", "1", env=os.environ | {"PYTHONBREAKPOINT": "pdb.set_trace"}) as term:
        term.expect(PDB)
        term.send("c\r")
        term.expect("through 1")

        assert term.wait() == 0
    assert [term.log(rank) for rank in (0, 2)] == ["through 0\n", "through 2\n"]
