"""Stands in for an agent: as many children as it has ranks; tells them, its part and its environment; ends with them.

`JOURNAL` is a FIFO that takes one line of each; a rank ends when it has read a byte of `END`, another FIFO. When stdin
ends or a rank fails, the others are killed.
"""

import json
import os
import select
import subprocess
import sys


def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def score():
    with open("/proc/self/oom_score_adj") as told:
        return told.read()


def main():
    spec = json.loads(sys.stdin.buffer.readline())
    env = spec["env"]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", "import os, sys; os.read(os.open(sys.argv[1], os.O_RDONLY), 1)", env["END"]], env=env, cwd=spec["cwd"],
            stdin=subprocess.DEVNULL,
        )
        for _ in range(spec["nprocs"])
    ]  # fmt: skip
    told = {
        "node": spec["share"]["node"], "host": spec["share"]["host"], "name": spec["node"], "pid": os.getpid(),
        "worker": parent(parent(os.getpid())), "ranks": [rank.pid for rank in ranks], "environ": dict(os.environ), "env": env,
        "score": score(), "cwd": spec["cwd"], "run_dir": spec["run_dir"],
    }  # fmt: skip
    with open(env["JOURNAL"], "wb", buffering=0) as journal:
        journal.write(json.dumps(told).encode() + b"\n")
    waiter, pidfds = select.poll(), {os.pidfd_open(rank.pid): rank for rank in ranks}
    for pidfd in pidfds:
        waiter.register(pidfd, select.POLLIN)
    waiter.register(0, select.POLLIN)
    while pidfds:
        for fd, _ in waiter.poll():
            waiter.unregister(fd)
            if fd == 0 or pidfds.pop(fd).wait() != 0:
                for rank in ranks:
                    rank.kill()
    sys.stderr.write("the stand-in ends\n")
    sys.exit(next((128 - rank.returncode for rank in ranks if rank.returncode), 0))


main()
