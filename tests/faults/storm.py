"""`python -m tests.faults.storm N [SEED [VICTIMS [SHAPES]]]`: N times SIGKILL for each of our processes at a random moment, and a table of what was left.

By hand, and then nothing may be left after a second; `test_kill.py` does a few of each, in the time that the machine
takes. Kinds: who is killed × how the job was started. The shape `terminal` is a job in the foreground of a pty with much going on: the view, stacks, Ctrl-Z, a rank in the hand, a hook.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import Counter

from tests.faults.nest import BROOD, Nest, state

VICTIMS = ("front", "warden", "supervisor", "all")
SHAPES = ("cli", "shell", "library", "terminal")
RANKS = 3
HANGS_S = 60.0
"""A front that has started only now, on a busy machine, has said long before what happened."""
SHELL = """
import fcntl, os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
folder = sys.argv[1]
undo = lambda: (os.setpgid(0, 0), os.tcsetpgrp(0, os.getpid()), signal.signal(signal.SIGTTOU, signal.SIG_DFL))
front = subprocess.Popen(sys.argv[2:], cwd=folder, preexec_fn=undo)
code = front.wait()
os._exit(code if code >= 0 else 128 - code)
"""
"""What a shell with job control is to its foreground job; it is not in the job's folder."""
HOOK = "sleep 0.5; echo hook >>hooked; sleep 0.7"
VISIBLE, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"


class Pty:
    """A terminal that is read all the time, and what a job may have left of it."""

    def __init__(self) -> None:
        self.fd, self.theirs = os.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.output = b""
        self._reads = threading.Thread(target=self._read, daemon=True)
        self._reads.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.fd, 65536):
                self.output += data

    def harm(self) -> str | None:
        """What is not as it was before."""
        after = termios.tcgetattr(self.theirs)
        os.close(self.theirs)
        self._reads.join(5)
        os.close(self.fd)
        if after != self.before:
            return f"modes {self.before} became {after}"
        return "the cursor is hidden" if self.output.rfind(HIDDEN) > self.output.rfind(VISIBLE) else None


def start_terminal(nest: Nest, seconds: float) -> Pty:
    """A job in the foreground of a pty, with a random choice of what part 2 can do at a time."""
    pty = Pty()
    words = ["-n", str(RANKS), "--grace", "1", "--on-verdict", HOOK]
    words += random.choice(((), ("--debug", "0"), ("--ready-timeout", "60"), ("--ready-timeout", "60")))
    words += random.choice(((), ("-v",), ("--log-format", "json"), ("--clean-shm", "own")))
    brood = [sys.executable, "-I", "-S", BROOD, nest.folder, str(seconds), *random.choice(((), ("ignore",)))]
    run = [sys.executable, "-m", "rankguard", "run", *words, "--no-python", *brood]
    nest.start(
        [sys.executable, "-I", "-S", "-c", SHELL, nest.folder, *run],
        env=nest.env(TERM="xterm-256color"),
        stdin=pty.theirs, stdout=pty.theirs, stderr=pty.theirs, cwd="/", start_new_session=True,
    )  # fmt: skip
    nest.wrapped = True
    return pty


def stir(nest: Nest) -> str:
    """Something that the job is busy with when the kill comes."""
    what = random.choice(("nothing", "stacks", "suspend", "both", "resume"))
    front = nest.ours().get("front")
    if front is not None and "warden" in nest.ours():  # earlier it is no front yet, and a signal ends it
        with contextlib.suppress(ProcessLookupError):
            if what in ("stacks", "both"):
                os.kill(front, signal.SIGQUIT)
            if what in ("suspend", "both", "resume"):
                os.kill(front, signal.SIGTSTP)
            if what == "resume":
                time.sleep(random.uniform(0, 0.1))
                os.kill(front, signal.SIGCONT)
    time.sleep(random.uniform(0, 0.15))
    return what


def start(nest: Nest, shape: str, seconds: float) -> Pty | None:
    """A job whose ranks end by themselves after `seconds`. → its terminal, if it has one."""
    if shape == "terminal":
        return start_terminal(nest, seconds)
    brood = [sys.executable, "-I", "-S", BROOD, nest.folder, str(seconds), *random.choice(((), ("ignore",)))]
    if shape == "library":
        command = (nest.launch, RANKS, *brood)
    else:
        words = brood if shape == "cli" else ["sh", "-c", " ".join(brood) + "; :"]
        command = (nest.run, "-n", str(RANKS), "--grace", "1", "--no-python", *words)
    with open(f"{nest.top}/stderr", "wb") as said:
        command[0](*command[1:], stdout=subprocess.DEVNULL, stderr=said)
    return None


def is_child(nest: Nest, pid: int, line: str) -> bool:
    """A rank's, which nobody of ours is left to end; a suspended one has not recorded itself.

    Or a rank that Ctrl-Z stopped before it executed its program, and so before it asked to die with us (docs/limits.md).
    """
    kind = nest.recorded().get(pid)
    early = kind is None and state(pid) == "T" and f'"pid": {pid}}}' not in nest.journal()
    return kind in ("child", "escapee", "bare") or early


def once(victim: str, shape: str, limit: float = 1.0) -> dict[str, object]:
    """One kill: what was left after `limit` seconds, after how long nothing was, and at which moment it was."""
    with Nest() as nest:
        pty = start(nest, shape, random.choice((0.3, 0.8, 30)))
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
        stirred = stir(nest) if pty is not None else None
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
            nest.kill()
            if pty is not None:
                pty.harm()
            return {"moment": "missed", "took": 0.0, "left": {}, "traces": [], "exit": None}

        front = ours.get("front", nest.front.pid)  # it has still to say what happened

        def spare(pid: int, line: str) -> bool:
            if victim in ("warden", "supervisor") and ("sleep 0." in line):  # the front's, which lives
                return True
            return pid == front or (victim == "all" and is_child(nest, pid, line))

        if shape == "shell" and victim == "all":  # the rank is the shell; the program in it is a child

            def spare(pid: int, line: str) -> bool:
                return ("brood.py" in line and "sh -c" not in line) or "sleep" in line

        took, left = nest.until_empty(spare, limit)
        code: object = "alive"
        if not left:
            with contextlib.suppress(ProcessLookupError, KeyError):
                if pty is not None:
                    os.kill(ours["front"], signal.SIGCONT)  # `fg`: it says what happened meanwhile
            try:
                code = nest.front.wait(HANGS_S)
            except subprocess.TimeoutExpired:
                code = f"front {state(nest.front.pid)} hangs"
        traces = nest.traces() if victim != "all" else []
        if left:
            left = {pid: f"{nest.recorded().get(pid, '-')} {state(pid)} {line}" for pid, line in left.items()}
            left[0] = f"{nest.until_empty(spare, 15)[0]:.2f} s more until empty"
            left[1] = nest.journal()[-4000:]
        if pty is None:
            with open(f"{nest.top}/stderr", errors="replace") as file:
                said = file.read()
        else:
            if (harm := pty.harm()) is not None and victim != "all":  # when all are killed nobody can put it back
                traces.append(harm)
            said = pty.output.decode(errors="replace")
            if "Traceback" in said:
                traces.append(said)
        return {
            "stirred": stirred,
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
        for shape in sys.argv[4].split(",") if len(sys.argv) > 4 else SHAPES:
            took, left, traces, exits, missed = [], 0, 0, Counter[str](), 0
            for turn in range(-(-count // 3)):
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
