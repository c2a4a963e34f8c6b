"""What it costs to know a tree: 1,000 processes that stand, 200 a second that come and go, for half a minute.

    .venv/bin/python bench/roster.py [--standing 1000] [--rate 200] [--seconds 30] [--lives 0.02] [--source listing|children]

Prints the CPU time of the looks and of the news as a share of one processor, apart from the load itself, which another
process makes. Also how soon a new process was seen, and what was told that should not have been.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from selectors import DefaultSelector

from rankguard.diagnosis.roles import RULES, VARIABLES, name_of, role_of
from rankguard.launchers.treewatch import Outlook, TreeWatch
from rankguard.linux.census import Census
from rankguard.linux.libc import become_subreaper

LOAD = """
import os, signal, subprocess, sys, time
standing, rate, lives = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
for _ in range(standing):
    if os.fork() == 0:
        signal.pause()
sys.stdout.write("up\\n"); sys.stdout.flush()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
due = time.monotonic()
while True:
    due += 1 / rate
    os.posix_spawn("/bin/sleep", ["sleep", lives], os.environ)
    time.sleep(max(0.0, due - time.monotonic()))
"""


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--standing", type=int, default=1000)
    asked.add_argument("--rate", type=float, default=200.0)
    asked.add_argument("--seconds", type=float, default=30.0)
    asked.add_argument("--lives", default="0.02")
    asked.add_argument("--source", choices=["listing", "children"])
    options = asked.parse_args()
    become_subreaper()
    command = [sys.executable, "-I", "-S", "-c", LOAD, str(options.standing), str(options.rate), options.lives]
    load = subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0)
    try:
        assert load.stdout is not None
        load.stdout.readline()
        measure(load.pid, options)
    finally:
        os.killpg(load.pid, signal.SIGKILL)
        load.wait()


def measure(root: int, options: argparse.Namespace) -> None:
    selector, facts = DefaultSelector(), []
    census = Census(root, heir=os.getpid())
    if options.source:
        census._sources = [getattr(census, f"_by_{options.source}")]
    watch = TreeWatch(
        Outlook(
            root, lambda title, env, above: role_of(title, RULES, env, above), name_of, VARIABLES, lambda: ((), True)
        ),
        selector,
        census,
        facts.append,
    )
    while len(watch.roster.processes) < options.standing:
        watch.wake(time.monotonic())
    print(f"{len(watch.roster.processes)} processes known")
    for part in ("first 10 s", "then"):
        until = time.monotonic() + (10.0 if part == "first 10 s" else options.seconds)
        began, cpu, looks = time.monotonic(), time.thread_time(), census._looks
        while (now := time.monotonic()) < until:
            news = selector.select(max(0.0, min(watch.next_wake(), until) - now))
            for key, _events in news:
                key.data[1](time.monotonic())
            watch.wake(time.monotonic())
        took, used = time.monotonic() - began, time.thread_time() - cpu
        print(
            f"{part}: {100 * used / took:.2f} % of a processor, {(census._looks - looks) / took:.1f} looks a second, "
            f"{watch.roster.cost_s * 1e3:.2f} ms each, {len(facts)} facts, {len(watch.roster.processes)} known"
        )
    print("costs of the sources:", {source.__name__: f"{cost * 1e3:.2f} ms" for source, cost in census._costs.items()})
    watch.close()


if __name__ == "__main__":
    main()
