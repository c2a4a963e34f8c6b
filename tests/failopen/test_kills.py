"""SIGKILL for any of our own processes under `watch`: the engine lives on, and what can be told is told (`--on-lost keep`)."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.failopen.kept import Engine

ALL = ("front", "warden", "supervisor")
SLOW = pytest.mark.slow
WITH_FRONT = [("supervisor",), pytest.param(("warden",), marks=SLOW), ("warden", "supervisor")]
WITHOUT_FRONT = [("front",), pytest.param(("front", "warden"), marks=SLOW), ("front", "supervisor")]


@pytest.mark.parametrize("victims", WITH_FRONT, ids="+".join)
def test_the_front_answers_for_the_engine(victims):
    with Engine() as engine:
        engine.watch().up()
        engine.kill(*victims)
        engine.let_end()

        status, out, err = engine.result()

        told = engine.verdict()
        assert (status, engine.whole(out), told["outcome"], told["exit_code"]) == (7, True, "failed", 7), err
        assert told["culprit"]["cause"]["kind"] == "exit-code"
        assert told["degraded"] == 1
        assert [warning for warning in told["warnings"] if "rankguard degraded" in warning] == told["warnings"]
        assert sum("is kept" in line for line in err.splitlines() if line.startswith("rankguard: warning")) == 1, err
        assert engine.traces() == []


@pytest.mark.parametrize("victims", WITHOUT_FRONT, ids="+".join)
def test_the_engine_lives_on_without_a_front(victims):
    with Engine() as engine:
        engine.watch().up()
        engine.kill(*victims)
        engine.let_end()

        status, out, _err = engine.result()

        assert (status, engine.whole(out), Path(engine.folder, "ended").read_text()) == (-signal.SIGKILL, True, "7")
        assert engine.traces() == []
        if "supervisor" not in victims:  # it has written the verdict, though nobody waits for it
            told = engine.verdict()
            assert (told["outcome"], told["exit_code"], told["degraded"]) == ("failed", 7, len(victims))


def test_the_engine_lives_on_when_all_are_gone():
    """What it prints is lost from then on (docs/fail-open.md); this one does not mind."""
    with Engine() as engine:
        engine.watch().up()
        engine.kill(*ALL)
        engine.let_end()

        engine.until_there("ended")

        assert Path(engine.folder, "ended").read_text() == "7"


@pytest.mark.slow
@pytest.mark.parametrize("others", ["warden", "front"])
def test_one_after_another(others):
    with Engine() as engine:
        engine.watch().up()
        root = engine.root
        engine.kill("supervisor")
        engine.kill(others)
        engine.let_end()

        status, out, err = engine.result()

        expected = 7 if others == "warden" else -signal.SIGKILL
        assert (status, engine.whole(out), Path(engine.folder, "ended").exists()) == (expected, True, True), (
            root,
            err,
        )


def test_a_request_to_end_reaches_the_engine_that_is_kept():
    with Engine() as engine:
        engine.watch().up()
        engine.kill("supervisor")
        engine.front.terminate()

        status, out, err = engine.result()

        told = engine.verdict()
        assert (status, out.splitlines()[-1]) == (143, "told to end"), err
        assert (told["outcome"], told["exit_code"], told["stopped_by"]["signal"]) == ("interrupted", 143, "SIGTERM")


@pytest.mark.slow
def test_its_clock_runs_there_too():
    with Engine() as engine:
        engine.watch("--shutdown-timeout", "0.3", more=("deaf",)).up()
        engine.kill("supervisor")
        engine.front.terminate()

        status, _out, err = engine.result()

        assert status == 143, err
        assert not Path(engine.folder, "ended").exists()


@pytest.mark.slow
def test_the_second_interrupt_ends_it_at_once():
    with Engine() as engine:
        engine.watch(more=("deaf",)).up()
        engine.kill("supervisor")
        engine.front.send_signal(signal.SIGINT)
        engine.until_there("interrupted")
        engine.front.send_signal(signal.SIGINT)

        status, _out, err = engine.result()

        assert status == 130, err


@pytest.mark.slow
def test_other_signals_are_passed_on():
    with Engine() as engine:
        engine.watch().up()
        engine.kill("supervisor")
        engine.front.send_signal(signal.SIGUSR1)
        engine.until_there("told")
        engine.let_end()

        assert engine.result()[0] == 7


def test_never_0_after_a_failure_that_was_known():
    """A rank-like process was killed, the engine has its time to settle, and would end with 0."""
    with Engine() as engine:
        engine.watch("--rank-pattern", "^worker-", "--settle", "60", code=0).up()
        engine.until_journal('"name": "worker-0')
        worker = next(pid for pid, line in engine.alive().items() if "worker-0" in line and "rankguard" not in line)
        os.kill(worker, signal.SIGKILL)
        engine.until_journal("to handle it")
        engine.kill("supervisor")
        engine.let_end()

        status, out, err = engine.result()

        told = engine.verdict()
        assert (engine.whole(out), told["outcome"], told["culprit"]["name"]) == (True, "failed", "worker-0 60"), err
        assert status == told["exit_code"] == 137


def test_on_lost_end_ends_all():
    with Engine() as engine:
        engine.watch("--on-lost", "end").up()
        engine.kill("supervisor")

        status, _out, err = engine.result()

        assert (status, Path(engine.folder, "ended").exists()) == (125, False), err
        assert engine.verdict()["culprit"]["cause"]["kind"] == "supervisor-lost"


@pytest.mark.slow
def test_a_supervisor_that_was_stopped_goes_on():
    with Engine() as engine:
        engine.watch().up()
        supervisor = engine.ours()["supervisor"]
        os.kill(supervisor, signal.SIGSTOP)
        time.sleep(3)  # by its nature
        os.kill(supervisor, signal.SIGCONT)
        engine.let_end()

        status, out, _err = engine.result()

        assert (status, engine.whole(out), engine.verdict()["degraded"]) == (7, True, 0)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["warden", "supervisor"])
def test_at_any_instant_of_the_start(victim):
    """Also before there is an engine: then it is started without being watched."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for turn in range(25):
        with Engine() as engine:
            engine.watch()
            until = time.monotonic() + chance.uniform(0.0, 0.25)
            while time.monotonic() < until or victim not in engine.ours():
                assert engine.front.poll() is None
            engine.kill(victim)
            engine.up().let_end()

            status, out, err = engine.result()

            assert (status, engine.whole(out)) == (7, True), f"seed {seed}, turn {turn}: {err}"
            assert engine.traces() == [], f"seed {seed}, turn {turn}"


@pytest.mark.slow
def test_the_front_at_any_instant_of_the_start():
    """Either there is no engine, or it has run to its own end."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for turn in range(25):
        with Engine() as engine:
            engine.let_end()
            engine.watch()
            time.sleep(chance.uniform(0.0, 0.4))
            engine.front.kill()
            _took, left = engine.until_empty(limit=10)
            assert left == {}, f"seed {seed}, turn {turn}"
            assert engine.traces() == [], f"seed {seed}, turn {turn}"
            assert Path(engine.folder, "up").exists() == Path(engine.folder, "ended").exists()


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_request_to_end_is_not_lost_with_a_supervisor_that_hangs(times):
    """After 10 s the front passes it on itself; who asks twice does not want to wait for the engine either."""
    with Engine() as engine:
        engine.watch(more=("deaf",) if times == 2 else ()).up()
        engine.kill("supervisor", number=signal.SIGSTOP)
        for number in [signal.SIGINT] * 2 if times == 2 else [signal.SIGTERM]:
            engine.front.send_signal(number)
            engine.until_taken(number)  # so that these are two

        status, out, err = engine.result()

        assert status == (143 if times == 1 else 130), err
        assert (out.splitlines()[-1] == "told to end") == (times == 1)
        assert "the supervisor has not answered for 10 s" in err
