"""A coordinator and an agent that has proven that it belongs to the job, and then says what has no meaning: the node is
lost, with the reason, and the job ends. The agent is this test; all else is real.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from rankguard.cli.nodes import token
from rankguard.linux import ports
from rankguard.nodes.link import Dialing, Link

TOKEN = "of the tests"
PROGRAM = "import signal; signal.pause()"
STRANGE = {
    "no such fact": {"is": "facts", "facts": [["Elected", {"at": 1.0}]]},
    "a rank of another node": {"is": "facts", "facts": [["Spawned", {"at": 1.0, "rank": 7, "pid": 1}]]},
    "a rank that is no number": {"is": "facts", "facts": [["Spawned", {"at": 1.0, "rank": "1", "pid": 1}]]},
    "a fact without its fields": {"is": "facts", "facts": [["Exited", {}]]},
    "facts that are none": {"is": "facts", "facts": 5},
    "output of nobody": {"is": "out", "rank": 9, "which": 0, "data": "x"},
    "output that is no text": {"is": "out", "rank": 0, "which": 0, "data": None},
    "a payload without a rank": {"is": "payload", "json": "1"},
    "signs of nothing": {"is": "signs", "signs": [{"rank": None}], "held": {}},
    "an end without a tree": {"is": "done"},
    "a port that is no number": {"is": "standing", "port": "x"},
    "a pulse that was not asked for": {"is": "pong"},
    "an end before the beginning": {
        "is": "facts",
        "facts": [["Exited", {"at": 1.0, "rank": 0, "ending": {"kind": "exit"}}]],
    },
}


class Coordinator:
    """`rankguard run` of two nodes, as node 0, and our link to it as node 1."""

    def __init__(self, folder: str) -> None:
        port, lock = ports.hold_free_port()
        lock.close()
        words = ["run", "--nnodes", "2", "--node-rank", "0", "--rdzv-endpoint", f"127.0.0.1:{port}", "-n", "1"]
        words += ["--run-dir", f"{folder}/run", "--no-python", sys.executable, "-c", PROGRAM]
        self.folder = f"{folder}/run"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rankguard", *words],
            env={"RANKGUARD_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.link = self._join(port)

    def _join(self, port: int) -> Link:
        hello = {"node": 1, "name": "strange", "nproc": 1, "pid": 1, "count": 2}
        dialing = Dialing("127.0.0.1", port, token({"RANKGUARD_TOKEN": TOKEN}, "none"), hello)
        while dialing.link is None:
            assert dialing.refused is None, dialing.refused
            assert self.process.poll() is None, self.process.communicate()
            dialing.wake(time.monotonic())
            due = dialing.next_wake()
            time.sleep(0 if due is None else max(0.0, min(0.01, due - time.monotonic())))
        return dialing.link

    def hear(self, what: str) -> dict[str, object]:
        """Answer its pulse until it orders this."""
        poll = select.poll()
        poll.register(self.link, select.POLLIN)
        while True:
            poll.poll()
            for message in self.link.receive():
                if message["do"] == "ping":
                    self.link.send({"is": "pong", "t": message["t"], "mine": time.monotonic()})
                if message["do"] == what:
                    return message
            assert not self.link.closed, f"closed before `{what}`"

    def ended(self) -> tuple[int, dict[str, object], str]:
        out, err = self.process.communicate(timeout=60)
        assert out == ""
        with open(f"{self.folder}/verdict.json") as file:
            return self.process.returncode, json.load(file), err


@pytest.fixture
def coordinator(tmp_path: object) -> Iterator[Coordinator]:
    made = Coordinator(str(tmp_path))
    yield made
    made.link.close()
    made.process.kill()
    made.process.communicate()


@pytest.mark.parametrize("what", STRANGE)
def test_it_is_lost(coordinator: Coordinator, what: str) -> None:
    coordinator.link.send({"is": "standing", "port": 29400})
    coordinator.hear("go")
    coordinator.link.send(STRANGE[what])

    status, verdict, err = coordinator.ended()

    assert status == 1, err
    culprit = verdict["culprit"]
    assert isinstance(culprit, dict)
    assert (culprit["cause"]["kind"], culprit["node"]) == ("node-lost", "strange"), err
    assert "what has no meaning" in str(verdict["statement"])
    assert len(str(verdict["statement"])) < 700


def test_one_that_says_nothing_after_its_hello_is_waited_for(coordinator: Coordinator) -> None:
    coordinator.hear("ping")  # and it does not stand: nothing begins
    coordinator.link.close()

    status, verdict, err = coordinator.ended()

    assert status == 1, err
    assert "strange" in str(verdict["statement"])


def test_an_order_that_nobody_knows_is_no_harm(coordinator: Coordinator) -> None:
    coordinator.link.send({"is": "singing"})
    coordinator.link.send({"is": "standing", "port": 29400})
    coordinator.hear("go")
    coordinator.link.send({"is": "answer", "id": 99, "answer": {}})
    coordinator.process.terminate()
    coordinator.hear("signal")
    coordinator.link.send({"is": "done", "tree": ["TreeEmpty", {"at": 1.0}]})

    status, verdict, err = coordinator.ended()

    assert status != 125, err
    assert verdict["outcome"] in ("interrupted", "failed")
