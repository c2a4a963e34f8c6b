"""`rankguard run` as a user starts it, watched from outside: its output, its journal, its verdict, what it left behind.

Waits for lines and for ends, never for seconds. `PATIENCE` is for a machine on which eight ranks import torch at once
and others work, too; it is reached only when a test fails.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema

import rankguard

ROOT = Path(__file__).parents[2]
DDP = "examples/ddp.py"
PROGRAMS = "tests/torch/programs"
ENDLESS = 1_000_000
PATIENCE = 100.0
SCHEMA = json.loads((Path(rankguard.__file__).parent / "schema/verdict-1.json").read_text())


class Run:
    """A job of `n` ranks. `group`: the memory cgroup that it is started in, launcher and all; `env`: more variables."""

    def __init__(self, folder, n, *words, group=None, options=(), cwd=ROOT, env=None):
        self.folder = Path(folder, "run")
        self._start(["-m", "rankguard", "run", "-n", n, "--run-dir", self.folder, *options, *words], group, cwd, env)

    def _start(self, words, group, cwd=ROOT, env=None, *, together=False):
        """`together`: what it says on stderr is among the lines of its output."""
        command = [sys.executable, *words]
        if group is not None:
            command = ["/bin/sh", "-c", 'echo 0 > "$0"/cgroup.procs && exec "$@"', group, *command]
        self._stderr = self.folder.with_name("stderr")
        with self._stderr.open("w") as stderr:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if together else stderr,
            )
        self._unread, self.output = b"", []
        self.status = self.verdict = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:  # a test has failed: end what it started
            self._process.terminate()
            self._process.wait()
        self._process.stdout.close()

    def until(self, what):
        """Wait until a rank prints a line that holds `what`."""
        for line in self._lines():
            if what in line:
                return line
        return self._fail(f"ended before a rank printed {what!r}")

    def journal(self):
        """Facts and orders so far, in order."""
        with open(self.folder / "events.jsonl") as lines:
            entries = lines.read().splitlines(keepends=True)
        return [json.loads(line) for line in entries[1:] if line.endswith("\n")]

    def facts(self, name, rank=None):
        return [e for e in self.journal() if e.get("fact") == name and rank in (None, e.get("rank"))]

    def pid(self, rank):
        """Of the attempt that runs."""
        return self.facts("Spawned", rank)[-1]["pid"]

    def kill(self, rank, number=signal.SIGKILL):
        """The instant of the signal, on the clock of the journal."""
        pid = self.pid(rank)
        at = time.monotonic()
        os.kill(pid, number)
        return at

    def end(self):
        """Wait for the end; the verdict, which must keep the schema, name the exit status and leave nobody alive."""
        self.wait()
        self.read_verdict()
        assert (self.status, survivors(self.run_id())) == (self.verdict["exit_code"], [])
        return self.verdict

    def wait(self):
        """Wait for the end of its output, then of the command."""
        for _ in self._lines():
            pass
        self.status = self._process.wait()

    def read_verdict(self):
        self.verdict = json.loads((self.folder / "verdict.json").read_text())
        jsonschema.validate(self.verdict, SCHEMA)

    def run_id(self):
        with open(self.folder / "events.jsonl") as lines:
            return json.loads(next(lines))["spec"]["run_id"]

    def stderr(self):
        return self._stderr.read_text()

    def last_line(self):
        return self.stderr().splitlines()[-1]

    def _lines(self):
        """The ranks' lines, each as it comes."""
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                self.output.append(line.decode(errors="replace"))
                yield self.output[-1]
                continue
            if not poll.poll(PATIENCE * 1000):
                self._fail(f"printed nothing for {PATIENCE} s")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return
            self._unread += data

    def _fail(self, why):
        raise AssertionError(f"the run {why}\n" + "\n".join(self.output[-20:]) + f"\n{self.stderr()[-6000:]}")


def survivors(run_id):
    """Every process that carries the mark of this run, and every child that fell to us: pytest is a subreaper."""
    mark = f"RANKGUARD_RUN_ID={run_id}\0".encode()
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            stat = Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")[2].split()
            if stat[0] in "ZX" or int(pid) == os.getpid():
                continue
            ours = mark in Path("/proc", pid, "environ").read_bytes() + b"\0" or int(stat[1]) == os.getpid()
            if ours:
                found.append(Path("/proc", pid, "cmdline").read_text(errors="replace").replace("\0", " "))
        except (OSError, ProcessLookupError):
            continue
    return found


def who(verdict):
    """The verdict in one line of a test: who, why, how sure."""
    culprit = verdict["culprit"]
    cause = culprit["cause"]
    return culprit["rank"], cause["kind"], cause["family"], cause["confidence"], verdict["exit_code"]


def others(verdict):
    """What became of the ranks that are not to blame. `collateral` or `stopped`: which of the two is a matter of speed."""
    rows = [row for row in verdict["ranks"] if row["rank"] != verdict["culprit"]["rank"]]
    assert [row["rank"] for row in rows] == [r for r in range(verdict["world_size"]) if r != verdict["culprit"]["rank"]]
    return {row["relation"] for row in rows}


def innocent(verdict):
    """Nobody else is blamed, and nobody may be."""
    return others(verdict) <= {"collateral", "stopped"} and verdict["either"] == []
