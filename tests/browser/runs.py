"""Real runs for the browser to look at: each is made once in a session, by the command line, as anybody would."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rankguard.linux.ports import hold_free_port

RANKGUARD = [sys.executable, "-m", "rankguard"]
PATIENCE, PATIENCE_S = 400, "300"
"""For a machine on which others work, too: 256 interpreters start on it."""

STALL = """
import socket, time
import rankguard
this = rankguard.this_rank()

there, here = socket.socketpair()
server = socket.create_server(("127.0.0.1", 0))  # it takes connections, and never answers
data = socket.create_connection(server.getsockname())

def all_reduce():
    there.recv(1)

def fetch_next_shard():
    data.recv(1)

def train():
    for step in range(12):
        this.status("training", step, 100)
        print(f"step {step} loss {1 / (step + 1):.3f}", flush=True)
        time.sleep(0.05)
    if this.rank == 2:
        fetch_next_shard()
    all_reduce()

this.status("loading weights")
time.sleep(0.1 + 0.03 * this.rank)
this.ready()
train()
"""

STORM = """
import os, sys, time
import rankguard
this = rankguard.this_rank()
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
rows = 4000 + attempt
print(f"attempt {attempt + 1}: reads the checkpoint", flush=True)
this.status("reading the checkpoint")
time.sleep(0.05)
for part in range(10):
    this.status("loading weights", part + 1, 10)
    time.sleep(0.01 + 0.004 * this.rank)
this.ready()
time.sleep(0.1)
if this.rank == 3:
    raise RuntimeError(f"checkpoint shard 3 of 8 is corrupt: expected 4096 rows, found {rows}")
time.sleep(600)
"""

MANY = """
import ctypes, os, random, signal, sys, time
import rankguard
this = rankguard.this_rank()
bad, how, last = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else 12
rnd = random.Random(this.rank)
print(f"rank {this.rank} of {this.world_size} begins", flush=True)
for part in range(10):
    this.status("loading weights", part + 1, 10)
    time.sleep(0.02 + 0.02 * rnd.random() + (0.08 if this.rank == this.world_size - 3 else 0))
this.status("capturing graphs")
time.sleep(0.1 + 0.2 * rnd.random())
this.ready()
for step in range(last + 8):
    print(f"step {step} loss {1 / (step + 1):.4f}", flush=True)
    this.status("training", step, last + 8)
    time.sleep(0.05 + 0.05 * rnd.random())
    if this.rank == bad and step == last:
        if how == "crash":
            ctypes.string_at(0)
        if how == "raise":
            raise RuntimeError(f"loss is NaN at step {last}")
        os.kill(os.getpid(), signal.SIGKILL)
if how != "end":
    time.sleep(600)
"""

HOSTILE = r"""
import os, sys, time
import rankguard
this = rankguard.this_rank()
ATTACK = '<script>window.harmed=1</script></script><!-- <img src=x onerror="window.harmed=1"> & &lt;b&gt; ]]>'
this.status(ATTACK + "\x1b[2J\u202eevil")
out = sys.stdout.buffer
out.write(b"x" * 400_000 + b"\n")
out.write(ATTACK.encode() + b"\n")
out.write(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b[2J\x9b31m \x07bell\x08\n")
out.write("right \u202eto left\u202c \u2066isolated\u2069 \u200fmark \u2028line \u2029paragraph\n".encode())
out.write(b"not UTF-8: \xff\xfe\xed\xa0\x80\n")
out.write(b"__proto__ constructor toString\n")
out.write("the last line \U0001f600\n".encode())
out.flush()
time.sleep(0.2)
raise RuntimeError(ATTACK + "\x1b[31m\u202e")
"""


class Runs:
    """`report(name)`: the HTML file of a run of that name, made if it is not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[str, Path] = {}

    def report(self, name: str) -> Path:
        if name not in self._made:
            made = getattr(self, f"_{name}")()
            file = self.folder / f"{name}.html"
            told = subprocess.run(
                [*RANKGUARD, "report", str(made), "--html", str(file)], capture_output=True, text=True
            )
            assert told.returncode == 0, told.stderr
            self._made[name] = file
        return self._made[name]

    def run(self, name: str, program: str, *options: str, args: Sequence[str] = ()) -> Path:
        """A run of that program from its start to its end; its folder."""
        file, folder = self.folder / f"{name}.py", self.folder / name
        file.write_text(program)
        command = [*RANKGUARD, "run", *options, "--run-dir", str(folder), str(file), *args]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        assert (folder / "verdict.json").exists(), done.stderr.decode()
        return folder

    def _oom(self) -> Path:
        home = self.folder / "home"
        env = os.environ | {"RANKGUARD_HOME": str(home)}
        done = subprocess.run([*RANKGUARD, "drill", "oom"], env=env, capture_output=True, text=True, timeout=PATIENCE)
        [made] = home.glob("drill-oom-*")
        assert done.returncode == 0, done.stdout + done.stderr
        return made

    def _hang(self) -> Path:
        # Warm: silence is counted from a rank's start, in which an interpreter may take seconds.
        warm = ("--start", "warm")
        return self.run("hang", STALL, "-n", "8", *warm, "--ready-timeout", PATIENCE_S, "--stall-timeout", "2")

    def _storm(self) -> Path:
        return self.run("storm", STORM, "-n", "8", "--ready-timeout", PATIENCE_S, "--max-restarts", "3")

    def _one(self) -> Path:
        return self.run("one", MANY, "-n", "1", "--ready-timeout", PATIENCE_S, args=["0", "raise"])

    def _success(self) -> Path:
        return self.run("success", MANY, "-n", "4", "--ready-timeout", PATIENCE_S, args=["-1", "end"])

    def _many64(self) -> Path:
        return self.run("many64", MANY, "-n", "64", "--ready-timeout", PATIENCE_S, args=["37", "crash"])

    def _many256(self) -> Path:
        return self.run("many256", MANY, "-n", "256", "--ready-timeout", PATIENCE_S, args=["141", "kill"])

    def _nodes(self) -> Path:
        return self._on_nodes("nodes", 2, 4, "5", "12")

    def _nodes256(self) -> Path:
        return self._on_nodes("nodes256", 4, 64, "141", "60")

    def _on_nodes(self, name: str, nodes: int, each: int, bad: str, last: str) -> Path:
        """On several hosts by their names: each command has a host name of its own (root)."""
        file = self.folder / f"{name}.py"
        file.write_text(MANY)
        port, lock = hold_free_port()
        whole = [
            "--nnodes",
            str(nodes),
            "--rdzv-endpoint",
            f"127.0.0.1:{port}",
            "-n",
            str(each),
            "--ready-timeout",
            PATIENCE_S,
        ]
        started = []
        for node in range(nodes):
            run = [
                *RANKGUARD,
                "run",
                *whole,
                "--node-rank",
                str(node),
                "--run-dir",
                str(self.folder / f"{name}-{node}"),
            ]
            named = ["unshare", "--uts", "sh", "-c", f'hostname gpu-node-{node} && exec "$@"', "sh"]
            command = [*named, *run, str(file), bad, "kill", last]
            started.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
        assert {one.wait(timeout=PATIENCE) for one in started} == {137}
        lock.close()
        return self.folder / f"{name}-0"

    def _hostile(self) -> Path:
        return self.run("hostile", HOSTILE, "-n", "2")
