"""What one coordinator can do: 8 … 1,024 nodes of 8 ranks, whose agents are scripted. `python bench/coordinator.py`

`--sizes 8,64,256,1024`, `--repeats 20`, `--facts 200000` (of the flood), `--markdown FILE` puts the table into a page.

The coordinator is the real one: supervisor, core, journal on disk, verdict. The agents are not: two processes speak the
real protocol over real links (`rankguard.nodes.link`) for all nodes, and each tells what an agent tells of eight ranks
that start, become ready, die or are told to end. Everything is on one machine, so the network costs nothing, and the
agents' own work (reading 1,023 orders) is part of what is measured. Of each size, a run each time:

- joined: from the first connection until the last agent has been told to start its ranks;
- facts/s: every agent sends facts as fast as it can, then that its ranks are ready; until the front hears that all are;
- stop: one rank is killed; from just before its agent's frame until the last of the other agents has the order;
- verdict: from there until the last agent has the final verdict;
- memory and CPU of the coordinator's supervisor: resident when all have joined, most ever; with heartbeats only.

Read next: `docs/many-nodes.md` (what limits it), `rankguard/launchers/fleet.py`.
"""

import argparse
import json
import os
import queue
import random
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from rankguard import wire
from rankguard.client import Client
from rankguard.facts import Exited, Looked, NodeStopping, OutputClosed, Ready, Reaped, Spawned, StatusTold, TreeEmpty
from rankguard.jobspec import NodesPlan
from rankguard.model import Ending, Memory
from rankguard.nodes.link import Dialing, Link
from rankguard.nodes.mapping import to_wire
from rankguard.spec import job_spec
from rankguard.wire import packed

NPROC, PROCESSES, TOKEN = 8, 2, "bench"
IDLE_S, MOMENT_S = 3.0, 0.3
HANG_S = 300.0
MARK = "<!-- made by bench/coordinator.py -->"
clock = time.monotonic


# ── The agents: a process for half of the nodes each ─────────────────────────────────────────────────────────────


class Agent:
    """One node's."""

    def __init__(self, number: int, port: int, count: int, agents: "Agents") -> None:
        self.number, self.agents = number, agents
        hello = {"node": number, "name": f"node-{number:04}", "nproc": NPROC, "pid": 1, "count": count}
        self.dialing = Dialing("127.0.0.1", port, TOKEN, hello, clock)
        self.dialing.watch(agents.selector, self.dial)
        self.link: Link | None = None
        self.writing = self.over = False

    def dial(self) -> None:
        self.dialing.wake(clock())
        assert self.dialing.refused is None, self.dialing.refused
        if self.dialing.link is not None:
            self.link = self.dialing.link
            self.agents.selector.register(self.link, selectors.EVENT_READ, self.news)
            self.send({"is": "standing", "port": 29500})

    def send(self, message: dict) -> None:
        self.send_packed(packed(message))

    def send_packed(self, frame: bytes) -> None:
        assert self.link is not None
        self.link.send_packed(frame)
        self.watch()

    def watch(self) -> None:
        if self.link is not None and not self.over and self.link.pending != self.writing:
            self.writing = self.link.pending
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.writing else 0)
            self.agents.selector.modify(self.link, events, self.news)

    def tell(self, *facts) -> None:
        self.send({"is": "facts", "facts": [to_wire(fact) for fact in facts]})

    def news(self) -> None:
        assert self.link is not None
        self.link.flush()
        for message in self.link.receive():
            if message["do"] == "ping":
                self.send({"is": "pong", "t": message["t"], "mine": clock()})
            else:
                getattr(self, message["do"])(message)
        if not self.over:
            assert not self.link.closed, f"node {self.number}: {self.link.error}"
            self.watch()

    def go(self, _message: dict) -> None:
        self.tell(*(Spawned(clock(), rank, 1000 + rank) for rank in range(NPROC)))
        self.agents.say("go")

    def flood(self, frames: int) -> None:
        status = [to_wire(StatusTold(clock(), rank, "step 1000", 1000.0, 5000.0, "steps")) for rank in range(NPROC)]
        frame = packed({"is": "facts", "facts": status})
        for _each in range(frames):
            self.send_packed(frame)
        self.tell(*(Ready(clock(), rank) for rank in range(NPROC)))

    def signs(self) -> None:
        """As once a second."""
        held = {"ranks": [[rank, {"rss_bytes": 1 << 30}] for rank in range(NPROC)], "age_s": 0.1}
        self.send(
            {"is": "signs", "signs": [{"rank": r, "at": clock(), "by": "status"} for r in range(NPROC)], "held": held}
        )

    def die(self) -> None:
        """A rank is killed: what its node's own core makes of that, in one frame."""
        now = clock()
        memory = tuple((rank, Memory(1 << 30)) for rank in range(1, NPROC))
        self.tell(
            Looked(now, (), memory),
            Exited(now, 0, Ending("signal", signal="SIGKILL", number=9), log_tail=("step 1000",) * 20),
            NodeStopping(now, 0, "", "rank 0 failed"),
        )
        self.end(1)

    def signal(self, message: dict) -> None:
        if message["ends"]:
            self.agents.say("ordered")
            self.agents.ending.append(self)

    def end(self, first: int) -> None:
        """Its ranks end by the signal, and are reaped."""
        if self.dialing is not None:
            now, ranks = clock(), range(first, NPROC)
            ended = Ending("signal", signal="SIGTERM", number=15)
            self.tell(*(Exited(now, rank, ended) for rank in ranks))
            self.tell(*(fact for r in range(NPROC) for fact in (OutputClosed(now, r), Reaped(now, r, 1 << 30))))
            self.send({"is": "done", "tree": to_wire(TreeEmpty(now))})
            self.dialing = None

    def kill(self, _message: dict) -> None:
        """It has ended already."""

    def finish(self, _message: dict) -> None:
        assert self.link is not None
        self.agents.say("finish")
        self.agents.selector.unregister(self.link)
        self.link.close()
        self.over = True


class Agents:
    """Commands come on stdin, and for each that is a line on stdout: (what, how many agents, first and last instant)."""

    def __init__(self, first: int, last: int, count: int, port: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.command)
        self.seen: dict[str, list[float]] = {}
        self.wanted: dict[str, int] = {}
        self.agents = [Agent(number, port, count, self) for number in range(first, last)]
        self.stop, self.rest = False, b""
        self.ending: list[Agent] = []
        """Their ranks end once no other has an order to read: as if each were a machine of its own."""
        self.seen["began"] = [clock()] * (last - first)
        for each in self.agents:
            each.dial()

    def say(self, what: str) -> None:
        seen = self.seen.setdefault(what, [])
        seen.append(clock())
        self.answer(what)

    def answer(self, what: str) -> None:
        if len(self.seen.get(what, ())) >= self.wanted.get(what, 1 << 60):
            seen = self.seen[what]
            print(json.dumps([what, len(seen), min(seen, default=0.0), max(seen, default=0.0)]), flush=True)
            del self.wanted[what]

    def command(self) -> None:
        said = os.read(0, 1 << 16)
        self.stop = not said
        *lines, self.rest = (self.rest + said).split(b"\n")
        for each in lines:
            self.obey(*json.loads(each))

    def obey(self, what: str, value) -> None:
        if what == "wait":
            name, count = value
            self.wanted[name] = count
            self.seen.setdefault(name, [])
            self.answer(name)
        elif what == "flood":
            self.wanted["flood"] = 1
            began = clock()
            for each in self.agents:
                each.flood(value)
            self.seen["flood"] = [began]
            self.answer("flood")
        elif what == "die":
            self.wanted["die"] = 1
            self.seen["die"] = [clock()]
            self.agents[value].die()
            self.answer("die")

    def run(self) -> None:
        signs_at = clock() + 1.0
        while not self.stop:
            due = [
                at for a in self.agents if a.link is None and a.dialing and (at := a.dialing.next_wake()) is not None
            ]
            wait = min([signs_at, *due]) - clock() if not self.ending else 0.0
            ready = self.selector.select(max(0.0, wait))
            for key, _events in ready:
                key.data()
            if not ready:
                for each in self.ending:
                    each.end(0)
                self.ending.clear()
            now = clock()
            for each in self.agents:
                if each.link is None and each.dialing and (each.dialing.next_wake() or now + 1) <= now:
                    each.dial()
            if now >= signs_at:
                signs_at = now + 1.0
                for each in self.agents:
                    if each.link is not None and each.dialing is not None:
                        each.signs()


class Half:
    """One of the processes that are agents, from outside."""

    def __init__(self, first: int, last: int, count: int, port: int) -> None:
        self.size = last - first
        words = [sys.executable, __file__, "--agents", json.dumps([first, last, count, port])]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(self, what: str, value) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, value]) + "\n")
        self.process.stdin.flush()

    def answer(self, what: str) -> tuple[float, float]:
        """First and last instant."""
        assert self.process.stdout is not None
        said, _count, first, last = json.loads(self.process.stdout.readline())
        assert said == what, (said, what)
        return first, last

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


# ── One run ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Run(NamedTuple):
    """One run's figures: seconds, facts a second, bytes, share of a processor. Null: not measured in this one."""

    joined: float
    facts: float | None
    cpu_per_fact: float
    stop: float
    verdict: float
    joined_bytes: int
    most_bytes: int
    idle: float | None


def one(count: int, flood: int, folder: str, idle: bool) -> Run:
    port = free_port()
    plan = NodesPlan(count=count, nproc=NPROC, host="127.0.0.1", port=port, token=TOKEN, node_timeout=60.0)
    spec, warning = job_spec(
        command=["train.py"], argv=["train.py"], nprocs=count * NPROC, env={}, run_dir=folder, nodes=plan,
        console="none", expect_ready=True, start="exec",
    )  # fmt: skip
    assert warning is None, warning
    client = Client(spec)
    front = Front(client)
    halves = [Half(at * count // PROCESSES, (at + 1) * count // PROCESSES, count, port) for at in range(PROCESSES)]
    try:
        supervisor = child_of(client.warden_pid)
        spans = ask_all(halves, "go")
        joined = max(last for _first, last in spans) - min(first for first, _last in ask_all(halves, "began"))
        joined_bytes = memory(supervisor, "VmRSS")
        frames = max(1, flood // (count * NPROC)) if flood else 1
        before = cpu_s(supervisor)
        for half in halves:
            half.order("flood", frames)
        began = min(half.answer("flood")[0] for half in halves)
        ready = front.until("told")[1]
        facts = (frames + 1) * count * NPROC
        took, spent = ready - began, cpu_s(supervisor) - before
        before, at = cpu_s(supervisor), clock()
        time.sleep(IDLE_S if idle else MOMENT_S)  # what is measured is time in which nothing happens
        cpu = (cpu_s(supervisor) - before) / (clock() - at) if idle else None
        half = random.randrange(PROCESSES)
        for at, each in enumerate(halves):
            each.order("wait", ["ordered", each.size - (at == half)])
        halves[half].order("die", random.randrange(halves[half].size))
        died = halves[half].answer("die")[0]
        stop = max(each.answer("ordered")[1] for each in halves) - died
        most = memory(supervisor, "VmHWM")
        verdict = max(last for _first, last in ask_all(halves, "finish")) - died
        most = memory(supervisor, "VmHWM") or most  # it ends now
        told = front.until("finished")[0]["verdict"]
        assert told["culprit"]["cause"]["kind"] == "killed", told["statement"]
        assert len(told["ranks"]) == count * NPROC
        return Run(joined, facts / took if flood else None, spent / facts, stop, verdict, joined_bytes, most, cpu)
    finally:
        for half in halves:
            half.close()
        client.wire.shut()  # takes the job with it, if it has not ended
        assert client.wait_gone()
        front.join()
        client.close()


def ask_all(halves: list[Half], what: str) -> list[tuple[float, float]]:
    for half in halves:
        half.order("wait", [what, half.size])
    return [half.answer(what) for half in halves]


class Front(threading.Thread):
    """Reads what the supervisor says, all the time, as a front does."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self.client, self.said = client, queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while not self.client.closed:
            for message, _fds in self.client.receive(None):
                if message["is"] != "told" or message["what"] == "all-ready":
                    self.said.put((message, clock()))

    def until(self, is_: str) -> tuple[dict, float]:
        """The message of that kind, and when it came; none may be about a fault."""
        while True:
            message, at = self.said.get(timeout=HANG_S)
            assert message["is"] not in ("bug", "spawn-failed"), message
            if message["is"] == is_:
                return message, at


def free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return end.getsockname()[1]


def child_of(pid: int) -> int:
    """The supervisor, of its warden."""
    hang = clock() + HANG_S
    while clock() < hang:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    raise AssertionError("the supervisor did not begin")


def memory(pid: int, field: str) -> int:
    """`VmRSS` or `VmHWM` in bytes, 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), 0)


def cpu_s(pid: int) -> float:
    """CPU time of a process of one thread, as the scheduler has it, to the nanosecond (proc(5), `schedstat`)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


# ── All of them ──────────────────────────────────────────────────────────────────────────────────────────────────


def line(count: int, runs: list[Run]) -> list[str]:
    """A row of the table."""

    def middle(values: list[float]) -> float:
        return statistics.median(values)

    def spread(values: list[float], unit: float) -> str:
        return f"**{middle(values) * unit:.0f}** [{min(values) * unit:.0f} – {max(values) * unit:.0f}]"

    facts = [run.facts for run in runs if run.facts is not None]
    cost = [run.cpu_per_fact for run in runs if run.facts is not None]
    idle = [run.idle for run in runs if run.idle is not None]
    return [
        f"{count:,} × {NPROC}",
        f"{middle([run.joined for run in runs]):.2f} s",
        f"{middle(facts):,.0f} ({middle(cost) * 1e6:.0f} µs)",
        spread([run.stop for run in runs], 1e3) + " ms",
        f"{middle([run.verdict for run in runs]):.2f} s",
        f"{middle([run.joined_bytes for run in runs]) / 2**20:.0f}, {max(run.most_bytes for run in runs) / 2**20:.0f} MiB",
        f"{middle(idle) * 100:.1f} %",
    ]


HEAD = (
    "nodes × ranks", "joined, all started", "facts/s (CPU each)", "death → stop order at the last agent",
    "→ verdict at the last", "memory: joined, most", "CPU, heartbeats only",
)  # fmt: skip


def main() -> int:
    if sys.argv[1:2] == ["--agents"]:
        # The final verdict has a row for each rank. Each machine reads it for itself; here that would be one after the other.
        wire._unsqueezed = lambda body, most: b'{"do":"finish"}'
        Agents(*json.loads(sys.argv[2])).run()
        return 0
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="8,64,256,1024", help="numbers of nodes, with commas between")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--facts", type=int, default=200_000, help="of the flood")
    parser.add_argument("--markdown", metavar="FILE", help="the page to put the table into")
    asked = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    with tempfile.TemporaryDirectory(prefix="rankguard-coordinator-", dir="/var/tmp") as folder:
        for count in map(int, asked.sizes.split(",")):
            runs = []
            for at in range(asked.repeats):
                measures = at < 3  # what takes long is measured in the first ones
                runs.append(one(count, asked.facts if measures else 0, f"{folder}/{count}-{at}", idle=measures))
            rows.append(line(count, runs))
            print(" | ".join(rows[-1]), flush=True)
    if asked.markdown:
        put(Path(asked.markdown), [HEAD, ["---"] * len(HEAD), *rows])
    return 0


def put(page: Path, rows: list) -> None:
    """Between the marks."""
    before, _mark, rest = page.read_text().partition(MARK)
    _old, _mark, after = rest.partition(MARK)
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    page.write_text(f"{before}{MARK}\n{table}{MARK}{after}")


if __name__ == "__main__":
    sys.exit(main())
