"""Time that ranks on other nodes are given: to save after a request, and what they leave behind after a good end.

Two commands on this machine, loopback between them; the second of two nodes is not the coordinator's.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from rankguard.linux import ports

GRACE = "0.3"
HEAD = """
import os, signal, subprocess, sys, time
RANK, folder = int(os.environ["RANK"]), sys.argv[1]
def say(what):
    with open(f"{folder}/{what}", "w") as fifo: fifo.write("x")
def hear(what):
    with open(f"{folder}/{what}") as fifo: fifo.read()
"""
SAVES = """
def saves(*_):
    say("asked") if RANK == 1 else None
    time.sleep(4 * float(sys.argv[2])) if RANK == 1 else None
    os._exit(0)
signal.signal(signal.SIGTERM, saves)
say(f"up{RANK}")
while True: signal.pause()
"""
LEAVES = """
if RANK == 1:
    child = "import signal; signal.signal(15, 1); print('x', flush=True); signal.pause()"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE).stdout.readline()
    say("up1")
else:
    say("up0")
    hear("swept")
"""


class Nodes:
    """`rankguard run` as node 0 and as node 1, one rank each."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        (folder / "program.py").write_text(HEAD + text)
        port, lock = ports.hold_free_port()
        lock.close()
        self.fronts = []
        for node in (0, 1):
            words = ["run", "--nnodes", "2", "--node-rank", str(node), "--rdzv-endpoint", f"127.0.0.1:{port}"]
            words += ["-n", "1", "--grace", GRACE, "--run-dir", str(folder / f"run-{node}")]
            words += [str(folder / "program.py"), str(folder), GRACE]
            self.fronts.append(
                subprocess.Popen([sys.executable, "-m", "rankguard", *words], stderr=subprocess.PIPE, text=True)
            )

    def fifos(self, *names: str) -> None:
        for name in names:
            os.mkfifo(self.folder / name)

    def hear(self, name: str) -> None:
        (self.folder / name).read_text()

    def ended(self) -> list[tuple[int, str]]:
        ends = []
        for front in self.fronts:
            _out, err = front.communicate(timeout=60)
            ends.append((front.returncode, err))
        return ends


def test_a_request_gives_ranks_on_every_node_the_time_to_save(tmp_path: Path) -> None:
    for name in ("up0", "up1", "asked"):
        os.mkfifo(tmp_path / name)
    nodes = Nodes(tmp_path, SAVES)
    for name in ("up0", "up1"):
        nodes.hear(name)

    nodes.fronts[0].send_signal(signal.SIGTERM)
    nodes.hear("asked")

    assert [status for status, _err in nodes.ended()] == [0, 0]
    verdict = json.loads((tmp_path / "run-1/verdict.json").read_text())
    assert verdict["teardown"]["killed"] == []


def test_what_a_node_s_ranks_leave_behind_is_ended_and_fails_nobody(tmp_path: Path) -> None:
    for name in ("up0", "up1", "swept"):
        os.mkfifo(tmp_path / name)
    nodes = Nodes(tmp_path, LEAVES)
    for name in ("up0", "up1"):
        nodes.hear(name)

    events = tmp_path / "run-1/events.jsonl"
    while '"TreeEmpty"' not in events.read_text():  # node 1 has swept, with SIGKILL in the end
        assert nodes.fronts[0].poll() is None, nodes.ended()
    (tmp_path / "swept").write_text("x")

    ended = nodes.ended()
    assert [status for status, _err in ended] == [0, 0], ended
    assert '"kill": true' in events.read_text()
