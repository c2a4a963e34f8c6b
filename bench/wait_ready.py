"""How long from the SIGKILL of one rank of eight to `RankFailed` in the caller's hand, beside a bare wait on its pidfd.

Three shapes (rank 0 silent and rank 5 dies; a rank that had delivered dies; one dies in the middle of its message) times
three start methods. Times are milliseconds, from just before kill(2) in a third process. `python bench/wait_ready.py [RUNS]`
"""

import json
import multiprocessing as mp
import os
import select
import statistics
import subprocess
import sys
import time

import rankguard

RANKS, CULPRIT = 8, 5
SHAPES = ("silent", "delivered", "mid-message")

# Waits until the caller sleeps, so that what is measured is news to one that waits.
KILLER = """
import os, sys, time
for line in sys.stdin:
    victim, caller = map(int, line.split())
    asleep = 0
    while asleep < 5:
        asleep = asleep + 1 if open(f"/proc/{caller}/stat").read().rpartition(") ")[2][0] == "S" else 0
        time.sleep(0.002)
    at = time.monotonic()
    os.kill(victim, 9)
    print(at, flush=True)
"""


def rank(number: int, shape: str, writer, up, life) -> None:
    if number == CULPRIT and shape == "delivered":
        writer.send({"rank": number})
    if number == CULPRIT and shape == "mid-message":
        os.write(writer.fileno(), (100_000).to_bytes(4, "big") + bytes(1000))
    up.send(None)
    life.recv()


class Ranks:
    def __init__(self, method: str, shape: str) -> None:
        context = mp.get_context(method)
        self.pipes = [
            context.Pipe(duplex=False) for _ in range(RANKS)
        ]  # the writers stay open here: no EOF tells of a death
        up, up_writer = context.Pipe(duplex=False)
        life, self.life = context.Pipe(duplex=False)
        self.processes = [
            context.Process(target=rank, args=(i, shape, self.pipes[i][1], up_writer, life), daemon=True)
            for i in range(RANKS)
        ]
        for each in self.processes:
            each.start()
        for _ in range(RANKS):
            up.recv()

    def close(self) -> None:
        for each in self.processes:
            each.kill()
        for each in self.processes:
            each.join()


def once(method: str, shape: str, killer: subprocess.Popen) -> float:
    ranks = Ranks(method, "silent" if shape == "bare pidfd" else shape)
    victim = ranks.processes[CULPRIT].pid
    waiter = select.poll()
    pidfd = os.pidfd_open(victim)
    waiter.register(pidfd, select.POLLIN)
    killer.stdin.write(f"{victim} {os.getpid()}\n")
    killer.stdin.flush()
    if shape == "bare pidfd":
        waiter.poll()
        at = time.monotonic()
    else:
        try:
            rankguard.wait_ready(ranks.processes, [reader for reader, _writer in ranks.pipes])
        except rankguard.RankFailed as error:
            at = time.monotonic()
            if error.verdict.culprit.rank != CULPRIT:
                raise
    os.close(pidfd)
    ranks.close()
    return (at - float(killer.stdout.readline())) * 1e3


def main(runs: int) -> None:
    killer = subprocess.Popen([sys.executable, "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    table = {}
    print(f"{runs} runs each, {RANKS} ranks, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; milliseconds")
    print(f"{'':11} {'':12} {'median':>7} {'p95':>7} {'max':>7}")
    for method in mp.get_all_start_methods():
        for shape in ("bare pidfd", *SHAPES):
            times = sorted(once(method, shape, killer) for _ in range(runs))
            row = (statistics.median(times), times[int(len(times) * 0.95)], times[-1])
            table[f"{method} {shape}"] = [round(value, 3) for value in row]
            print(f"{method:11} {shape:12} " + " ".join(f"{value:7.2f}" for value in row), flush=True)
    killer.stdin.close()
    killer.wait()
    print(json.dumps(table))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
