"""Ranks that misbehave: towards their parent, their notify socket, their own end."""

import json
import os
import sys
from pathlib import Path

import pytest
from tests.faults.nest import Nest
from tests.marks import slowly

START = """
import array, os, signal, socket, sys, time
R = int(os.environ["RANK"])
S = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
S.connect(os.environ["NOTIFY_SOCKET"])
def N(text, *fds):
    S.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
"""


MANY = 50_000


def ranks(code, n=2):
    return ("-n", str(n), "--grace", "1", "--no-python", sys.executable, "-I", "-S", "-c", START + code)


def shell(script, n=2):
    return ("-n", str(n), "--grace", "1", "--no-python", "sh", "-c", script)


@pytest.mark.parametrize(
    "number", ["QUIT", "USR1", "CHLD", "ABRT", *slowly("HUP", "INT", "ALRM", "TERM", "TSTP", "SEGV", "RTMIN")]
)
def test_a_signal_to_the_parent_is_a_fact_about_the_rank(number):
    expected = 1 if number in ("HUP", "INT", "QUIT", "TERM", "ABRT") else 0  # that would have ended the parent
    with Nest() as nest:
        nest.run(*shell(f"kill -{number} $PPID; sleep 0.1; exit 0", 3))
        assert nest.ended()[0] == expected
    with Nest() as nest:  # it ends at once: the signal may be read before the news that it executes
        nest.run(*shell(f"kill -{number} $PPID", 3))
        assert nest.ended()[0] == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("N(b'EXTEND_TIMEOUT_USEC=' + b'9' * 400)", 0),
        ("N(b'EXTEND_TIMEOUT_USEC=' + b'9' * 5000)", 0),
        ("N(b'ERRNO=99999999999999'); time.sleep(30)", 1),
        ("N(b'ERRNO=-5'); time.sleep(30)", 1),
        ("N(b'X_RANKGUARD_PROGRESS=nan/inf x')", 0),
        ("N(b'X_RANKGUARD_FAILED=[1]'); time.sleep(30)", 1),
        ('N(b\'X_RANKGUARD_EXCEPTION={"type": "\\\\ud800", "raised_at": 1e999}\'); time.sleep(30)', 1),
        ("N(b'READY=1\\nX_RANKGUARD_PAYLOAD=' + b'[' * 50000); time.sleep(30)", 1),
        ("N(b'READY=1\\nX_RANKGUARD_PAYLOAD_SIZE=1'); time.sleep(30)", 1),
        (
            "f = os.memfd_create('p'); os.ftruncate(f, 65 << 20); N(b'READY=1\\nX_RANKGUARD_PAYLOAD_SIZE=1', f); time.sleep(30)",
            1,
        ),
        ("N(b'\\xff'); N(b''); N(b'='); N(b'STATUS=\\x1b[2J\\0\\r'); N(b'READY=2'); N(b'READY=1', 0, 1, 2)", 0),
        ("os.closerange(0, 99)", 0),
        ("os.fork() or (N(b'READY=1'), os._exit(0)); os.wait()", 0),
    ],
)
def test_odd_messages(code, expected):
    with Nest() as nest:
        nest.run(
            "--report",
            "json",
            *ranks(
                f"if R == 1:\n  {code}\nelse: N(b'READY=1')\nif R == 1: N(b'READY=1') if 'close' not in {code!r} else 0"
                if expected == 0
                else f"if R == 1:\n  {code}\ntime.sleep(30)"
            ),
        )
        out, err = nest.front.communicate(timeout=25)
        assert b"Traceback" not in err
        verdict = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        if "close" not in code:
            assert verdict["exit_code"] == expected, verdict["statement"]
        assert nest.alive() == {}


@pytest.mark.parametrize(
    "message",
    ["b'\\xff'", "b'STATUS=%d' % i", *slowly("b'READY=1'", "b'EXTEND_TIMEOUT_USEC=%d' % (i + 1)", "b'STOPPING=1'")],
)
def test_a_flood_of_messages_hides_no_death_and_fills_nothing(message):
    flood = f"N(b'STATUS=1')\nfor i in range(10 ** 6):\n  N({message})\n  if i == {MANY}: open('many', 'a').write('many\\n')\ntime.sleep(30)"
    with Nest() as nest:
        gate = f"{nest.folder}/gate"
        os.mkfifo(gate)
        nest.run(*ranks(f"if R == 1:\n  open('gate').read(); sys.exit(3)\n{flood}"))
        nest.until("many")
        supervisor = nest.ours()["supervisor"]
        with open(f"/proc/{supervisor}/status") as file:
            rss = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        Path(gate).write_text("")  # it floods on
        code, said = nest.ended()
        assert code == 3, said
        assert rss < 60 << 10
        assert len(nest.journal()) < 200_000


@pytest.mark.parametrize("number", [1, 9, 15, 34, *slowly(2, 3, 6, 11, 14, 31, 64)])
def test_every_way_to_die(number):
    with Nest() as nest:
        nest.run(
            *ranks(
                f"signal.signal({number}, 0) if {number} != 9 else 0\nif R == 1: os.kill(os.getpid(), {number})\ntime.sleep(30)"
            )
        )
        assert nest.ended()[0] == 128 + number


@pytest.mark.parametrize("code", [1, 125, 255, *slowly(2, 124, 126, 127, 143)])
def test_every_exit_code(code):
    with Nest() as nest:
        nest.run(*shell(f"[ $RANK = 0 ] && exec sleep 30; exit {code}"))
        assert nest.ended()[0] == code


def test_deaf_ranks_cost_the_grace_once():
    deaf = "signal.signal(15, 1); open('up', 'a').write('up\\n')\nif R == 3:\n  while open('up').read().count('up') < 8: pass\n  sys.exit(3)\ntime.sleep(30)"
    with Nest() as nest:
        nest.run("--report", "json", *ranks(deaf, 8))
        out, _err = nest.front.communicate(timeout=25)
        verdict = json.loads(out)
        journal = [json.loads(line) for line in nest.journal().splitlines()]
    assert verdict["exit_code"] == 3
    assert verdict["teardown"]["took_s"] >= 1.0
    # One clock for all, and one stroke.
    failed = next(line["at"] for line in journal if line.get("fact") == "Exited")
    orders = [line for line in journal if "order" in line]
    assert [line["when"] for line in orders if line.get("name") == "grace"] == [pytest.approx(failed + 1.0)]
    assert [line["kill"] for line in orders if line["order"] == "Sweep"] == [True]
    assert len(verdict["teardown"]["killed"]) == 7


@pytest.mark.parametrize(
    "left",
    [
        "time.sleep(30)",
        "signal.signal(15, 1)\n  time.sleep(30)",
        "while True: os.write(1, bytes(65536) + b'\\n')",
        "os.kill(os.getpid(), 19)",
    ],
)
def test_a_grandchild_that_holds_the_pipe(left):
    with Nest() as nest:
        nest.run(*ranks(f"if os.fork() == 0:\n  os.setsid()\n  {left}\nsys.exit(3 * R)"), stdout=-3)
        assert nest.ended()[0] == 3


def test_a_fork_storm():
    storm = """
if R == 0: time.sleep(30)
for _ in range(64):
    if os.fork() == 0:
        signal.signal(15, 1)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if os.fork(): os._exit(0)
            os.setsid()
        os._exit(0)
sys.exit(3)"""
    with Nest() as nest:
        nest.run(*ranks(storm))
        assert nest.ended()[0] == 3


@pytest.mark.parametrize(
    "write", ["b'x' * 65535 + b'\\n'", "b'x' * 65536", "b'12345678\\r' * 7000", "os.urandom(65536)"]
)
def test_much_output(write):
    with Nest() as nest:
        nest.run(*ranks(f"D = {write}\nfor _ in range(300): os.write(1, D)\nsys.exit(3 * R)"), stdout=-3)
        code, said = nest.ended()
        assert code == 3, said


def test_two_hundred_ranks():
    with Nest() as nest:
        nest.run(*shell("[ $RANK = 150 ] && exit 3; exec sleep 60", 200))
        assert nest.ended()[0] == 3


def test_stopped_ranks_end():
    with Nest() as nest:
        nest.run(*ranks("if R == 0: os.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(0.3)\nsys.exit(3)"))
        assert nest.ended()[0] == 3
