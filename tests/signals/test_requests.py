"""Requests from outside: the signal that came is forwarded as it is, then the ranks' own time; and what stops nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.signals.jobs import Job, until_state
from tests.signals.rows import row

SAVE = """
def save():
    say("saving")
    time.sleep(0.7)
    open(f"saved.{RANK}", "w").write("saved")
    sys.exit(0)
"""
"""What a rank does that has something to lose."""
NEVER = 'on(15, lambda: say("heard")); on(2, lambda: say("interrupt")); say("up"); forever()'
COUNTS = """
heard = []
for number in (1, 2, 10, 12, 15, 18, 28): on(number, lambda n=number: (heard.append(n), say(f"heard {n}")))
say("up")
"""
"""A rank waits by looking, since a signal that comes just before a `pause()` would be waited for in vain."""


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("saved.*"))


@row("SIGTERM", "a batch system", "running", "forwarded; the ranks save and end within `--shutdown-timeout`", "0")
@pytest.mark.parametrize("options", [(), ("--shutdown-timeout", "0")])
def test_the_ranks_save_and_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Job(tmp_path, 2, SAVE + "on(15, save); say('up'); forever()", *options) as job:
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], saved(tmp_path)) == (0, "interrupted", ["saved.0", "saved.1"])
    assert verdict["statement"].startswith("stopped by SIGTERM from ")
    assert verdict["statement"].endswith(f"(pid {os.getpid()})")


@row("SIGTERM", "a batch system", "running", "forwarded; who has not ended in time is killed, and that is said", "143")
def test_a_rank_takes_longer_than_it_was_given(tmp_path: Path) -> None:
    with Job(tmp_path, 2, "RANK and on(15, lambda: sys.exit(0)); " + NEVER, "--shutdown-timeout", "1") as job:
        job.kill(signal.SIGTERM)
        status, verdict, err = job.ended()

    assert (status, verdict["outcome"], verdict["culprit"]) == (143, "interrupted", None)
    assert verdict["statement"].endswith("2 of 2 ranks had not ended 1 s later and were killed")
    assert verdict["teardown"]["took_s"] > 0.9
    assert "had not ended 1 s later" in err


@row("SIGTERM", "a batch system", "starting", "forwarded; ranks that die of it are no failure", "143")
def test_while_the_ranks_start(tmp_path: Path) -> None:
    with Job(tmp_path, 2, "say('up'); forever()", "--ready-timeout", "600") as job:
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], verdict["culprit"]) == (143, "interrupted", None)
    assert {rank["ending"]["signal"] for rank in verdict["ranks"]} == {"SIGTERM"}


@row(
    "SIGTERM twice",
    "a batch system",
    "running, stopping",
    "each is forwarded; the clock is that of the first",
    "0 or 143",
)
def test_twice(tmp_path: Path) -> None:
    text = COUNTS + "while heard != [15, 15]: time.sleep(0.02)\nsys.exit(0)"
    with Job(tmp_path, 1, text) as job:
        job.kill(signal.SIGTERM)
        job.until("heard")
        job.kill(signal.SIGTERM)
        assert job.ended()[0] == 0


@row("SIGTERM, then SIGINT", "anybody", "running, stopping", "both are forwarded; a second SIGINT kills", "0 or 143")
@pytest.mark.parametrize("impatient", [False, True])
def test_sigterm_then_sigint(tmp_path: Path, impatient: bool) -> None:
    until = 3 if impatient else 2
    with Job(tmp_path, 1, COUNTS + f"while len(heard) < {until}: time.sleep(0.02)\nsys.exit(0)") as job:
        job.kill(signal.SIGTERM)
        job.until("heard")
        job.kill(signal.SIGINT)
        if impatient:
            job.until("heard")
            job.kill(signal.SIGINT)
        status, verdict, _err = job.ended()

    assert (status, verdict["stopped_by"]["signal"]) == (143 if impatient else 0, "SIGTERM")
    assert verdict["statement"].endswith("killed at once, as asked") == impatient


@row("SIGINT", "anybody", "running", "forwarded; ranks that die of it are no failure", "130")
@row("SIGHUP", "anybody", "running", "forwarded; ranks that die of it are no failure", "129")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_ranks_that_die_of_it(tmp_path: Path, number: int, expected: int) -> None:
    with Job(tmp_path, 2, "signal.signal(2, signal.SIG_DFL); say('up'); forever()") as job:
        job.kill(number)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], verdict["culprit"]) == (expected, "interrupted", None)
    assert verdict["stopped_by"]["pid"] == os.getpid()


@row("SIGINT twice", "anybody", "running, stopping", "the second ends all at once", "130")
def test_sigint_twice(tmp_path: Path) -> None:
    with Job(tmp_path, 2, NEVER) as job:
        job.kill(signal.SIGINT)
        job.until("interrupt", 2)
        job.kill(signal.SIGINT)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (130, "interrupted")
    assert verdict["statement"].endswith("2 of 2 ranks were killed at once, as asked")


@row("SIGINT", "`pkill`, a batch system that signals every process", "running",
     "front, supervisor and warden have it at once: one request, forwarded once", "0 or 130")  # fmt: skip
def test_all_of_ours_at_once(tmp_path: Path) -> None:
    text = COUNTS + "while 10 not in heard: time.sleep(0.01)\nsys.exit(0 if heard == [2, 10] else 3)"
    with Job(tmp_path, 2, text) as job:
        for pid in job.ours().values():
            os.kill(pid, signal.SIGINT)
        job.until_fact("StopRequested", 2)
        job.kill(signal.SIGUSR1)  # comes after whatever else is forwarded
        status, _verdict, _err = job.ended()

    assert status == 0
    assert sorted(fact.get("to", "front") for fact in job.facts("StopRequested")) == ["front", "supervisor"]


def test_who_is_still_to_be_told_of_as_started_hears_it_once(tmp_path: Path) -> None:
    """Rank 0 stops the supervisor while that starts the others, so that none is known to run when the request comes."""
    started, folder = tmp_path / "started", tmp_path / "run"
    text = (
        f'[ $RANK = 0 ] && kill -STOP $PPID; echo $PPID >>{started}; trap "exit 0" TERM; while :; do sleep 0.01; done'
    )
    words = ["run", "-n", "16", "--run-dir", str(folder), "--", "sh", "-c", text]
    with subprocess.Popen([sys.executable, "-m", "rankguard", *words], stderr=subprocess.PIPE) as job:
        while not started.exists() or not (told := started.read_text()).endswith("\n"):
            time.sleep(0.01)
        supervisor = int(told.split()[0])
        until_state(supervisor, "T")
        job.terminate()
        os.kill(supervisor, signal.SIGCONT)
        job.communicate()

    journal = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    signals = {each["rank"]: each["signals"] for each in journal if each.get("fact") == "Spawned"}
    assert signals[0] == [signal.SIGTERM]
    again = [each["rank"] for each in journal if each.get("order") == "SignalRank"]
    assert not {rank for rank in again if signals[rank]}


@row("SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH", "anybody", "running", "forwarded; they stop nothing", "of the ranks")
def test_what_is_forwarded_and_stops_nothing(tmp_path: Path) -> None:
    with Job(tmp_path, 2, COUNTS + "while heard != [10, 12, 18, 28]: time.sleep(0.02)\nsys.exit(0)") as job:
        for number in (10, 12, 18, 28):
            job.kill(number)
            # Several in one instant overflow the stack for signal handlers that `faulthandler.enable` makes in a rank
            # (12 KiB, of which each takes 3): the kernel then ends it by SIGSEGV, on some processors from the fourth on.
            job.until("heard", 2)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0, "succeeded"), _err


@row("SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH", "anybody", "stopping", "forwarded; no clock changes", "of the request")
def test_what_is_forwarded_while_stopping(tmp_path: Path) -> None:
    with Job(tmp_path, 1, COUNTS + "while heard != [15, 10]: time.sleep(0.02)\nsys.exit(0)") as job:
        job.kill(signal.SIGTERM)
        job.until("heard")
        job.kill(signal.SIGUSR1)
        assert job.ended()[0] == 0


@row("SIGALRM, SIGPIPE, real-time signals …", "anybody", "running",
     "no effect, and not forwarded: a rank that does not expect one would die; said once", "of the ranks")  # fmt: skip
def test_what_has_no_effect(tmp_path: Path) -> None:
    text = "import threading; on(15, lambda: sys.exit(0)); say('up'); forever()"
    with Job(tmp_path, 2, text) as job:
        for number in (signal.SIGALRM, signal.SIGPIPE, signal.SIGRTMIN, signal.SIGRTMIN, signal.SIGRTMIN + 3):
            job.kill(number)
        job.kill(signal.SIGTERM)
        status, _verdict, err = job.ended()

    assert status == 0
    said = [line.split()[2] for line in err.splitlines() if "has no effect" in line]
    assert sorted(said) == ["SIGALRM", "SIGRTMIN", "SIGRTMIN+3"]


@row("one that `--signals-to-handle` names", "anybody", "running", "ends the job as SIGTERM does: forwarded as it is",
     "0, or 128 + its number")  # fmt: skip
@pytest.mark.parametrize(("number", "clean"), [(signal.SIGUSR1, True), (signal.SIGQUIT, True), (signal.SIGUSR2, False)])
def test_signals_to_handle(tmp_path: Path, number: int, clean: bool) -> None:
    text = SAVE + (f"on({number}, save); " if clean else "") + "say('up'); forever()"
    names = "SIGTERM,SIGUSR1,SIGUSR2,SIGQUIT"
    with Job(tmp_path, 2, text, "--signals-to-handle", names) as job:
        job.kill(number)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"]) == (0 if clean else 128 + number, "interrupted")
    assert verdict["stopped_by"]["signal"] == signal.Signals(number).name


@row(
    "SIGHUP",
    "anybody",
    "running, under `nohup`",
    "ignored, as it was when we started; so it is in the ranks",
    "of the ranks",
)
def test_nohup(tmp_path: Path) -> None:
    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with Job(tmp_path, 1, "on(15, lambda: sys.exit(0)); say('up'); forever()", preexec_fn=nohup) as job:
        job.kill(signal.SIGHUP)
        os.kill(job.ours()["supervisor"], signal.SIGHUP)
        os.kill(job.pids()[0], signal.SIGHUP)
        job.kill(signal.SIGTERM)
        status, _verdict, _err = job.ended()

    assert status == 0
    assert [fact["signal"] for fact in job.facts("StopRequested")] == [15]


@row(
    "SIGINT, SIGQUIT",
    "anybody",
    "running, started with `&` by a script",
    "ignored, as that shell has asked",
    "of the ranks",
)
def test_what_a_script_ignores_for_a_background_command(tmp_path: Path) -> None:
    def background() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)

    with Job(tmp_path, 1, "on(15, lambda: sys.exit(0)); say('up'); forever()", preexec_fn=background) as job:
        job.kill(signal.SIGINT)
        job.kill(signal.SIGQUIT)
        job.kill(signal.SIGTERM)
        status, _verdict, err = job.ended()

    assert status == 0
    assert [fact["signal"] for fact in job.facts("StopRequested")] == [15]
    assert "stack" not in err


@row(
    "SIGTERM, SIGINT, SIGHUP",
    "a stranger, to the supervisor",
    "running",
    "as if it had come to the front",
    "143, 130, 129",
)
@pytest.mark.parametrize("number", [15, 2, 1])
def test_a_stranger_asks_the_supervisor(tmp_path: Path, number: int) -> None:
    with Job(tmp_path, 2, "signal.signal(2, signal.SIG_DFL); say('up'); forever()") as job:
        os.kill(job.ours()["supervisor"], number)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], verdict["stopped_by"]["pid"]) == (128 + number, "interrupted", os.getpid())


@row("any other", "a stranger, to the supervisor", "running", "no effect", "of the ranks")
@row("any", "a stranger, to the warden", "running", "no effect", "of the ranks")
@pytest.mark.parametrize("who", ["supervisor", "warden"])
def test_a_stranger_signals_what_it_should_not(tmp_path: Path, who: str) -> None:
    with Job(tmp_path, 2, "on(15, lambda: sys.exit(0)); say('up'); forever()") as job:
        for number in (3, 6, 10, 12, 13, 14, 18, 20, 21, 22, 28, 34, 64, *((1, 2, 15) if who == "warden" else ())):
            os.kill(job.ours()[who], number)
        job.kill(signal.SIGTERM)
        status, _verdict, _err = job.ended()

    assert status == 0
    assert [fact["signal"] for fact in job.facts("StopRequested")] == [15]


# ── Two clocks ───────────────────────────────────────────────────────────────────────────────────────────────────────


@row(
    "SIGTERM",
    "anybody",
    "stopping on request, and a rank fails",
    "the request goes on: the others keep their time",
    "143",
)
def test_a_failure_during_a_requested_stop(tmp_path: Path) -> None:
    text = SAVE + "on(15, save if RANK else lambda: os.kill(os.getpid(), 11)); say('up'); forever()"
    with Job(tmp_path, 2, text, "--grace", "0.1") as job:
        job.kill(signal.SIGTERM)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], verdict["culprit"], saved(tmp_path)) == (143, "interrupted", None, ["saved.1"])


@row("SIGTERM, SIGHUP", "anybody", "stopping because a rank failed", "no effect: SIGTERM has been sent, `--grace` runs",
     "the culprit's")  # fmt: skip
def test_a_request_during_the_grace(tmp_path: Path) -> None:
    with Job(
        tmp_path, 2, SAVE + "on(15, save)\nsay('up')\nRANK and (wait_for_go(), os._exit(3))\nforever()", "--grace", "20"
    ) as job:
        job.go()
        job.until("saving")
        job.kill(signal.SIGTERM)
        job.kill(signal.SIGHUP)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], saved(tmp_path)) == (3, "failed", ["saved.0"])


@row("SIGINT", "anybody", "stopping because a rank failed", "all end at once", "the culprit's")
def test_an_interrupt_during_the_grace(tmp_path: Path) -> None:
    text = "on(15, lambda: say('heard'))\nsay('up')\nRANK and (wait_for_go(), os._exit(3))\nforever()"
    with Job(tmp_path, 2, text, "--grace", "600") as job:
        job.go()
        job.until("heard")
        job.kill(signal.SIGINT)
        status, verdict, _err = job.ended()

    assert (status, verdict["outcome"], len(verdict["teardown"]["killed"])) == (3, "failed", 1)
