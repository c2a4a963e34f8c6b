"""Losses at random: a job of 4 nodes × 2 ranks on the hosts of a rig loses a part, again and again, and the end is looked at.

`python -m tests.nodes.losses [COUNT] [--seed N] [--only KIND]` (`make losses`; 100 take ten minutes). Which part, on which
node and when is drawn; a third comes while the job starts. Each time it is asked:

- has every command on every node ended within the bound that the options state? else it is a *hang*;
- does anything of the job live on any node then? a *survivor*;
- do all nodes that could be told say the right thing: the rank that was killed, or the node that was lost? else *wrong*.

Ends with 1 when there was one of those. Not a test of pytest: what it finds is found by many turns.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from tests.nodes.jobs import MET, WAIT, Job, Node
from tests.nodes.rig import Host, Rig, why_not

NODE, ORPHAN, GRACE, JOIN = 2.0, 3.0, 1.0, 8.0
CLOCKS = ("--node-timeout", str(NODE), "--orphan-timeout", str(ORPHAN), "--join-timeout", str(JOIN))
SLACK = 3.0
"""For 30 processes of Python on two cores; not for any clock of ours."""
START_UP = 1.5
"""A job of this size stands after about so many seconds."""
SILENT = max(NODE, ORPHAN)
PARTS = ("supervisor", "front", "warden")
NODES = 4
TOGETHER = MET + "together(meet())\n"


class Loss(NamedTuple):
    """One that was drawn."""

    kind: str
    """`rank`, `agent`, `own agent`, `driver`, `cut`, `cut driver`."""
    node: int
    part: str
    after: float
    """Seconds from the start of the commands; negative: from when all ranks were up."""
    program: str

    @property
    def early(self) -> bool:
        return self.after >= 0

    @property
    def bound(self) -> float:
        """By when all must have ended, from the loss on."""
        noticed = SILENT if "cut" in self.kind else 0.0
        return (max(noticed, JOIN) if self.early else noticed) + GRACE + SLACK

    def __str__(self) -> str:
        when = f"{self.after:.3f} s after the start" if self.early else f"{-self.after:.3f} s after all were up"
        return f"{self.kind} {self.part} of host-{'abcd'[self.node]}, {when}"


class Outcome(NamedTuple):
    """What came of it."""

    loss: Loss
    took: float
    hang: str
    survivors: dict[str, Any]
    wrong: str

    @property
    def bad(self) -> bool:
        return bool(self.hang or self.survivors or self.wrong)


def draw(kind: str) -> Loss:
    """One loss of a kind."""
    program = random.choice((WAIT, TOGETHER))
    after = random.uniform(0, START_UP) if random.random() < 1 / 3 and kind != "rank" else -random.uniform(0, 0.5)
    match kind:
        case "rank":
            return Loss(kind, random.randrange(NODES), str(random.randrange(2)), after, program)
        case "agent":
            return Loss(kind, random.randrange(1, NODES), random.choice(PARTS), after, program)
        case "own agent":
            return Loss(kind, 0, f"agent-{random.choice(PARTS)}", after, program)
        case "driver":
            return Loss(kind, 0, random.choice(PARTS), after, program)
        case "cut":
            return Loss(kind, random.randrange(1, NODES), random.choice(("down", "silently")), after, program)
        case _:
            return Loss(kind, 0, random.choice(("down", "silently")), after, program)


KINDS = ("rank", "agent", "own agent", "driver", "cut", "cut driver")


def once(hosts: list[Host], folder: Path, loss: Loss) -> Outcome:
    """Start a job, lose the part, and look at the end."""
    with Job(hosts, folder, loss.program) as job:
        began = time.monotonic()
        job.start(*CLOCKS)
        if loss.early:
            time.sleep(max(0.0, began + loss.after - time.monotonic()))
        else:
            job.up()
            time.sleep(-loss.after)
        lose(job, loss)
        lost = time.monotonic()
        hang, nodes = "", []
        try:
            nodes = job.ended(loss.bound)
        except AssertionError as error:
            hang = str(error)
        took = time.monotonic() - lost
        survivors: dict[str, Any] = {host.name: left for host in hosts if (left := host.processes())}
        for host in hosts:
            host.forget()
        for left in survivors.values():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        return Outcome(loss, took, hang, survivors, "" if hang else right(job, loss, nodes))


def lose(job: Job, loss: Loss) -> None:
    """Make it happen."""
    if loss.kind == "rank":
        job.kill_rank(2 * loss.node + int(loss.part))
    elif "cut" in loss.kind:
        job.hosts[loss.node].cut(silently=loss.part == "silently")
    else:
        while (pid := job.ours(loss.node).get(loss.part)) is None:  # it comes a moment later
            if job.fronts[loss.node].poll() is not None:
                return
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def right(job: Job, loss: Loss, nodes: list[Node]) -> str:
    """Empty when every node that could be told says what has happened; else what is wrong."""
    wrong = []
    where = job.hosts[loss.node]
    for number, node in enumerate(nodes):
        told = node.verdict
        if node.status == 0:
            wrong.append(f"{node.host} ended with 0")
        if "outcome" not in told:
            if number != loss.node:
                wrong.append(f"{node.host} has no verdict: {node.stderr[-500:]}")
            continue
        culprit = told["culprit"] or {}
        if loss.kind == "rank":
            rank = 2 * loss.node + int(loss.part)
            if (culprit.get("rank"), culprit.get("node"), node.status, node.kind) != (rank, where.name, 137, "killed"):
                wrong.append(f"{node.host}: {node.status} {told['statement']}")
        elif number != loss.node:
            names = (where.name, f"node {loss.node} ", where.address)
            if told["outcome"] != "failed" or not any(name in told["statement"] for name in names):
                wrong.append(f"{node.host}: {told['outcome']}: {told['statement']}")
            elif node.kind != "node-lost" and (node.kind, loss.kind) != ("supervisor-lost", "driver"):
                wrong.append(f"{node.host}: {node.kind}: {told['statement']}")
        elif "cut" in loss.kind and node.kind != "node-lost":
            wrong.append(f"{node.host}, which was cut off: {node.kind}: {told['statement']}")
    return "; ".join(wrong)


def table(outcomes: list[Outcome]) -> str:
    """Of all kinds, a line each."""
    kinds: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        kinds[outcome.loss.kind].append(outcome)
    lines = [
        f"{'lost':12} {'times':>5} {'early':>5} {'hangs':>5} {'survivors':>9} {'wrong':>5}   all ended after: median, most, bound (s)"
    ]
    for kind in (*KINDS, "all"):
        some = outcomes if kind == "all" else kinds.get(kind, [])
        if some:
            late = [each for each in some if not each.loss.early] or some
            counts = [sum(map(bool, (each[at] for each in some))) for at in (2, 3, 4)]
            times = f"{statistics.median(each.took for each in late):.2f}, {max(each.took for each in late):.2f}, "
            times += "–" if kind == "all" else f"{late[0].loss.bound:.1f}"
            early = sum(each.loss.early for each in some)
            lines.append(f"{kind:12} {len(some):5} {early:5} {counts[0]:5} {counts[1]:9} {counts[2]:5}   {times}")
    return "\n".join(lines)


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("count", nargs="?", type=int, default=100)
    options.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options.add_argument("--only", choices=KINDS)
    asked = options.parse_args()
    if (reason := why_not()) is not None:
        print(f"losses: {reason}", file=sys.stderr)
        return 2
    random.seed(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="losses-") as made, Rig(NODES, Path(made)) as rig:
        for turn in range(asked.count):
            folder = Path(made, str(turn))
            folder.mkdir()
            outcomes.append(once(rig.hosts, folder, draw(asked.only or KINDS[turn % len(KINDS)])))
            told = outcomes[-1]
            print(f"{turn + 1:4} {'WRONG' if told.bad else 'right'} {told.took:6.2f} s  {told.loss}", flush=True)
            if told.bad:
                print(f"     hang: {told.hang}\n     left: {told.survivors}\n     wrong: {told.wrong}", flush=True)
    print(table(outcomes))
    return int(any(outcome.bad for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
