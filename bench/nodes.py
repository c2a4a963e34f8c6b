"""Four machines: SIGKILL of rank 5 of the torch example, until nothing of the job runs anywhere and the verdict is printed.

`python bench/nodes.py [N]`: N times (default 20) under `rankguard run`, one command per node, and N times under Ray Train on
a Ray cluster of the same four hosts, in turn. The hosts are network namespaces of this machine (`tests/nodes/rig.py`), so root
only; 2 ranks on each train DistributedDataParallel over gloo (`ranks/several.py`, `examples/ddp.py`). `--no-ray`: only ours.

From just before kill(2), at a moment drawn from two seconds of training, since Ray Train's controller looks every 2 s: until
the last of the other seven ranks is gone, by pidfds; until the verdict is printed by node 0's command (for Ray Train: until
the caller of `fit` has its exception); until every node's command has printed it and ended. The Ray cluster stands before and
after, rankguard's nodes start and end with the job: start-up is not measured. Needs torch, and for Ray Train `ray[train]`.
"""

import argparse
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.nodes.rig import Host, Rig, why_not  # noqa: E402 - the repository is no package
from tests.ray import hosts as ray_cluster  # noqa: E402

RANKS = ROOT / "bench" / "ranks" / "several.py"
VERDICT = "the job has failed"
VICTIM, WORLD, NPROC = 5, 8, 2
LIMIT_S = 240.0
"""Eight ranks that import torch on two busy cores take a minute; Ray, another one."""
AIM_MS = 250.0


class Times(NamedTuple):
    """Milliseconds from the kill."""

    gone: float
    """The last of the other ranks."""
    verdict: float
    """Printed where the job was started (rankguard: by node 0's command)."""
    everywhere: float
    """Printed by every node's command, which has ended; Ray Train has one."""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("count", nargs="?", type=int, default=20)
    options.add_argument("--no-ray", action="store_true")
    options.add_argument("--json", metavar="FILE")
    asked = options.parse_args()
    if (reason := why_not()) is not None:
        print(f"nodes: {reason}", file=sys.stderr)
        return 2
    found: dict[str, list[Times]] = {"rankguard": [], "floor": []}
    with tempfile.TemporaryDirectory(prefix="nodes-", dir="/var/tmp") as made, Rig(4, Path(made)) as rig:
        if asked.no_ray:
            measure(found, rig, Path(made), asked.count, OURS)
        else:
            found["Ray Train"] = []
            ray_cluster.start(rig, NPROC)
            measure(found, rig, Path(made), asked.count, OURS | {"Ray Train": ray_train})
    for name, series in found.items():
        print(name)
        for field in Times._fields:
            values = [getattr(times, field) for times in series]
            spread = f"[{min(values):.0f} – {max(values):.0f}], {len(values)}"
            print(f"  {field:11} {statistics.median(values):8.1f} ms {spread}")
    if asked.json:
        Path(asked.json).write_text(json.dumps({name: [t._asdict() for t in ts] for name, ts in found.items()}))
    ours = statistics.median(max(times.gone, times.verdict) for times in found["rankguard"])
    print(f"rankguard, all gone and verdict printed: {ours:.0f} ms; to reach: {AIM_MS:.0f}")
    return int(ours > AIM_MS)


def measure(
    found: dict[str, list[Times]], rig: Rig, folder: Path, count: int, how: dict[str, Callable[..., Times]]
) -> None:
    """In turn, so that what the machine does meanwhile is shared."""
    for turn in range(count):
        for name, once in how.items():
            own = folder / f"{name.replace(' ', '-')}-{turn}"
            own.mkdir()
            found[name].append(once(rig, own))
            print(f"{turn + 1:3} {name:10} " + "  ".join(f"{value:8.1f}" for value in found[name][-1]), flush=True)


def rankguard(rig: Rig, folder: Path, *, all_at_once: bool = False) -> Times:
    with told(folder) as (fifo, ranks):
        fronts = [_front(host, number, folder, fifo) for number, host in enumerate(rig.hosts)]
        marker = "rankguard: exit 137 killed proven rank=" + "5 " * (not all_at_once)
        times = strike(ranks(), fronts, marker, range(WORLD) if all_at_once else (VICTIM,))
        for host in rig.hosts:  # Ray's own processes are there all the time
            left = {pid: line for pid, line in host.processes().items() if "rankguard" in line or str(fifo) in line}
            if left:
                raise AssertionError(f"left on {host.name}: {left}")
        return times


def floor(rig: Rig, folder: Path) -> Times:
    return rankguard(rig, folder, all_at_once=True)


OURS = {"rankguard": rankguard, "floor": floor}


def _front(host: Host, number: int, folder: Path, fifo: Path) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "rankguard", "run", "--nnodes", "4", "--node-rank", str(number)]
    words += ["--rdzv-endpoint", "10.77.0.1:29500", "--nproc-per-node", str(NPROC), str(RANKS), str(fifo)]
    return host.popen(words, env=host.env(RANKGUARD_TOKEN="bench"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ray_train(rig: Rig, folder: Path) -> Times:
    head = rig.hosts[0]
    with told(folder) as (fifo, ranks):
        env = head.env(RAY_ADDRESS=f"{head.address}:{ray_cluster.PORT}", RAY_TRAIN_V2_ENABLED="1", **ray_cluster.ENV)
        caller = head.popen(
            [sys.executable, str(RANKS), "--ray", str(fifo), str(folder)],
            env=env,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return strike(ranks(), [caller], VERDICT)


@contextmanager
def told(folder: Path) -> Iterator[tuple[Path, Callable[[], dict[int, int]]]]:
    """A FIFO, and what waits until all ranks have said that they train: rank → pidfd."""
    path = folder / "told"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    held: dict[int, int] = {}

    def ranks() -> dict[int, int]:
        text, until = b"", time.monotonic() + LIMIT_S
        while text.count(b"\n") < WORLD:
            if not select.select([fd], [], [], until - time.monotonic())[0]:
                raise AssertionError(f"only {len(text.splitlines())} of {WORLD} ranks train after {LIMIT_S:.0f} s")
            text += os.read(fd, 4096)
        for line in text.split(b"\n")[:-1]:
            rank, pid = map(int, line.split())
            held[rank] = os.pidfd_open(pid)
        return held

    try:
        yield path, ranks
    finally:
        for each in (fd, *held.values()):
            os.close(each)


def strike(
    ranks: dict[int, int], commands: "list[subprocess.Popen[Any]]", marker: str, victims: Sequence[int] = (VICTIM,)
) -> Times:
    """Kill rank 5 and watch all the others, and what the commands say, at one point."""
    time.sleep(random.uniform(0.2, 2.2))
    waiter = select.poll()
    others = {fd for rank, fd in ranks.items() if rank != VICTIM}
    texts: dict[int, bytes] = {}
    for fd in others:
        waiter.register(fd, select.POLLIN)
    for command in commands:
        for stream in (command.stdout, command.stderr):
            if stream is not None:
                texts[stream.fileno()] = b""
                waiter.register(stream.fileno(), select.POLLIN)
    first = {stream.fileno() for stream in (commands[0].stdout, commands[0].stderr) if stream is not None}
    reading, gone, verdict = set(texts), 0.0, 0.0
    began = time.monotonic()
    for rank in victims:
        signal.pidfd_send_signal(ranks[rank], signal.SIGKILL)
    while others or reading:
        for fd, _events in waiter.poll((began + LIMIT_S - time.monotonic()) * 1000):
            now = time.monotonic() - began
            if fd in others:
                others.discard(fd)
                waiter.unregister(fd)
                gone = now
            else:
                got = os.read(fd, 65536)
                texts[fd] += got
                if not verdict and fd in first and marker.encode() in texts[fd]:
                    verdict = now
                if not got:
                    reading.discard(fd)
                    waiter.unregister(fd)
        if time.monotonic() - began > LIMIT_S:
            raise AssertionError(f"not over after {LIMIT_S:.0f} s: {len(others)} ranks live")
    for command in commands:
        command.wait(LIMIT_S)
    everywhere = time.monotonic() - began
    said = b"\n".join(texts.values()).decode(errors="replace")
    if said.count(marker) != len(commands):
        raise AssertionError(f"`{marker}` was not said by all: {said}")
    return Times(gone * 1000, verdict * 1000, everywhere * 1000)


if __name__ == "__main__":
    sys.exit(main())
