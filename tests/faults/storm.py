"""`python -m tests.faults.storm N [SEED [VICTIMS]]`: N times SIGKILL for each of our processes at a random moment, and a table of what was left.

By hand and in `.ci`; `test_kill.py` does a few of each. Kinds: who is killed × how the job was started.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

from tests.faults.nest import BROOD, Nest, state

VICTIMS = ("front", "warden", "supervisor", "all")
SHAPES = ("cli", "shell", "library")
RANKS = 3


def start(nest: Nest, shape: str, seconds: float) -> None:
    """A job whose ranks end by themselves after `seconds`."""
    brood = [sys.executable, "-I", "-S", BROOD, nest.folder, str(seconds), *random.choice(((), ("ignore",)))]
    if shape == "library":
        command = (nest.launch, RANKS, *brood)
    else:
        words = brood if shape == "cli" else ["sh", "-c", " ".join(brood) + "; :"]
        command = (nest.run, "-n", str(RANKS), "--grace", "1", "--no-python", *words)
    with open(f"{nest.top}/stderr", "wb") as said:
        command[0](*command[1:], stdout=subprocess.DEVNULL, stderr=said)


def once(victim: str, shape: str) -> dict[str, object]:
    """One kill: what was left, after how long, and at which moment it was."""
    with Nest() as nest:
        start(nest, shape, random.choice((0.3, 0.8, 30)))
        assert nest.front is not None
        wanted = ("front", "warden", "supervisor") if victim == "all" else (victim,)
        early = random.random() < 0.5
        if early and victim != "all":
            while victim not in nest.ours() and nest.front.poll() is None:
                pass
            delay = random.uniform(0, 0.08)
        else:
            delay = random.uniform(0, 1.5)
        time.sleep(delay)  # a random moment is the point
        pidfds = []
        ours = nest.ours()
        moment = "start" if "supervisor" not in ours else "run"
        for name in random.sample(wanted, len(wanted)):
            if name in ours and (name != "front" or nest.front.poll() is None):
                try:
                    pidfds.append(os.pidfd_open(ours[name]))
                except ProcessLookupError:
                    pass
        if nest.front.poll() is not None:
            moment = "over"
        for pidfd in pidfds:
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                moment = "over"
        for pidfd in pidfds:
            os.close(pidfd)
        if not pidfds or moment == "over":
            # Nobody was hit: the job may go on as it likes; nothing to see here.
            return {"moment": "missed", "took": 0.0, "left": {}, "traces": [], "exit": None}

        front = nest.front.pid  # it has still to say what happened

        def spare(pid: int, line: str) -> bool:
            return pid == front or (victim == "all" and nest.recorded().get(pid) in ("child", "escapee", "bare"))

        if shape == "shell" and victim == "all":  # the rank is the shell; the program in it is a child

            def spare(pid: int, line: str) -> bool:
                return ("brood.py" in line and "sh -c" not in line) or "sleep" in line

        took, left = nest.until_empty(spare)
        code: object = "alive"
        if not left:
            try:
                code = nest.front.wait(5)
            except subprocess.TimeoutExpired:
                code = f"front {state(nest.front.pid)} hangs"
        traces = nest.traces() if victim != "all" else []
        if left:
            left = {pid: f"{nest.recorded().get(pid, '-')} {state(pid)} {line}" for pid, line in left.items()}
            left[0] = f"{nest.until_empty(spare, 15)[0]:.2f} s more until empty"
            left[1] = nest.journal()[-4000:]
        with open(f"{nest.top}/stderr", errors="replace") as file:
            said = file.read()
        return {
            "moment": moment,
            "delay": delay,
            "took": took,
            "left": left,
            "traces": traces,
            "exit": code,
            "said": said,
        }


def main() -> None:
    """The table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    random.seed(int(sys.argv[2]) if len(sys.argv) > 2 else None)
    bad = 0
    print(
        f"{'victim':11}{'shape':9}{'kills':>6}{'missed':>7}{'survivors':>10}{'traces':>7}{'median ms':>10}{'max ms':>8}  exits"
    )
    for victim in sys.argv[3].split(",") if len(sys.argv) > 3 else VICTIMS:
        for shape in SHAPES:
            took, left, traces, exits, missed = [], 0, 0, Counter[str](), 0
            for turn in range(-(-count // len(SHAPES))):
                told = once(victim, shape)
                if told["moment"] == "missed":
                    missed += 1
                    continue
                took.append(float(told["took"]))  # type: ignore[arg-type]
                left += bool(told["left"])
                traces += bool(told["traces"])
                exits[f"{told['moment']}:{told['exit']}"] += 1
                if told["left"] or told["traces"]:
                    print(f"  {victim} {shape} #{turn}: {told}".replace("\\n", "\n      "), flush=True)
            bad += left + traces
            took.sort()
            middle, most = (took[len(took) // 2] * 1000, took[-1] * 1000) if took else (0, 0)
            row = f"{victim:11}{shape:9}{len(took):6}{missed:7}{left:10}{traces:7}{middle:10.1f}{most:8.1f}"
            print(row, " ", dict(exits), flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
