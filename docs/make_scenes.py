# ruff: noqa: INP001, S108  # a script, not a package; a short folder in /tmp reads best
"""Records docs/scenes/*.txt from a real terminal of 80 columns, and writes docs/scenes.md around them:
`python docs/make_scenes.py [NAME…]`. Needs the test extra (pyte) and bash; takes about a minute.

A scene is a bash on a pty; what is typed there, and what the screen with its scrollback holds at telling moments, as a
terminal emulator shows it. Ranks wait for a word of the recorder, so that a moment is a fact and not a guess in seconds.
Times, sizes, pids and ids are replaced by others of the same kind; what may differ when it is recorded again is the order in
which ranks that do the same at once print their lines (Ctrl-C), how many victims still say something before they are
stopped (64 ranks), and what this machine can prove.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.terminal import CTRL_C, Terminal  # noqa: E402  # the path comes first

SCENES = ROOT / "docs" / "scenes"
PAGE = ROOT / "docs" / "scenes.md"
HOME = Path("/tmp/me")
PROMPT = "$ "

# ── The ranks' programs ──────────────────────────────────────────────────────────────────────────────────────────

SERVE = """\
import os, sys, time
import rankguard

rank = rankguard.this_rank()
with open(f"{os.environ['HOME']}/told/{rank.rank}") as told:
    for line in told:
        exec(line)
"""
"""Does what the recorder tells it: status, progress, ready."""

TRAIN = """\
import os

rank = int(os.environ["RANK"])
told = open(f"{os.environ['HOME']}/told/{rank}")
told.readline()
print(f"step 1: loss {2.5 - rank / 100:.2f}")
told.readline()
batch = {"input_ids": [1, 2, 3]}
print(batch["label"])
"""

SAVE = """\
import os

rank = int(os.environ["RANK"])
told = open(f"{os.environ['HOME']}/told/{rank}")
told.readline()
try:
    print("step 41")
    told.readline()
except KeyboardInterrupt:
    print("saving checkpoint")
    told.readline()
    print("saved")
"""

DEBUG = """\
import os

rank = int(os.environ["RANK"])
loss = 2.5 - rank / 100
if rank == 1:
    breakpoint()
print(f"loss {loss:.2f}")
"""

MANY = """\
import os, socket
import rankguard

rank = int(os.environ["RANK"])
folder = f"{os.environ['HOME']}/told"
told = open(f"{folder}/{rank}")
if rank == 37:
    listener = socket.create_server(("127.0.0.1", 0))
    for peer in (5, 21, 53):
        with open(f"{folder}/{peer}", "w") as its:
            its.write(f"{listener.getsockname()[1]}\\n")
    peers = [listener.accept()[0] for _ in range(3)]
elif rank in (5, 21, 53):
    peer = socket.create_connection(("127.0.0.1", int(told.readline())))
    peer.sendall(b"tensors")
    rankguard.this_rank().ready()
    peer.recv(1)
rankguard.this_rank().ready()
told.readline()
"""

# ── The scenes ───────────────────────────────────────────────────────────────────────────────────────────────────


class Recorder:
    """A shell on a terminal, and what was seen on it."""

    def __init__(self, ranks: int, program: str, name: str, rows: int = 24) -> None:
        self.parts: list[str] = []
        self.alone = open("/tmp/.rankguard-scenes", "w")  # noqa: SIM115  # until the scene is over: its folder has one name
        fcntl.flock(self.alone, fcntl.LOCK_EX)
        shutil.rmtree(HOME, ignore_errors=True)
        (HOME / "told").mkdir(parents=True)
        (HOME / "bin").mkdir()
        (HOME / name).write_text(program)
        command = HOME / "bin" / "rankguard"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rankguard "$@"\n')
        command.chmod(0o755)
        self.fifos = []
        for rank in range(ranks):
            os.mkfifo(HOME / "told" / str(rank))
            self.fifos.append(os.open(HOME / "told" / str(rank), os.O_RDWR))
        env = {
            "PATH": f"{HOME}/bin:/usr/bin:/bin", "HOME": str(HOME), "TERM": "xterm-256color", "LANG": "C.UTF-8",
            "PS1": PROMPT, "PYTHONPATH": str(ROOT / "src"), "BASH_SILENCE_DEPRECATION_WARNING": "1",
        }  # fmt: skip
        self.terminal = Terminal("bash", "--norc", "--noprofile", "-i", rows=rows, columns=80, env=env, cwd=HOME)
        self.terminal.expect(PROMPT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for fd in self.fifos:
            os.close(fd)
        self.terminal.__exit__(*error)
        shutil.rmtree(HOME, ignore_errors=True)
        self.alone.close()

    def type(self, text: str) -> None:
        self.terminal.send(f"{text}\n")

    def tell(self, rank: int, line: str) -> None:
        """To a rank of SERVE."""
        os.write(self.fifos[rank], line.encode() + b"\n")

    def let_go(self, rank: int) -> None:
        """A rank that reads a line goes on."""
        self.tell(rank, "")

    def in_turn(self, ranks: int, text: str) -> None:
        """One rank after another goes on and prints this: the order of their lines is then always the same."""
        for rank in range(ranks):
            self.let_go(rank)
            self.until(lambda screen, rank=rank: f"[{rank}] {text}" in screen)

    def until(self, shows: Callable[[str], object]) -> None:
        """Until the screen holds it."""
        self.terminal.expect_screen(lambda rows: shows("\n".join(rows)), 90)

    def ended(self) -> None:
        """The command is over, and the shell asks for the next."""
        self.terminal.expect_screen(lambda rows: rows and rows[-1].strip() == PROMPT.strip() and len(rows) > 1, 90)

    def shot(self, when: str) -> None:
        """What the terminal holds now, what has scrolled away included."""
        rows = self.terminal.scrolled()
        while rows and rows[-1].strip() in ("", PROMPT.strip()):
            rows.pop()
        self.parts.append(f"── {when} {'─' * (76 - len(when))}\n\n" + "\n".join(rows) + "\n")

    def pid_of(self, rank: int) -> int:
        """Of a rank of the newest run."""
        (journal,) = HOME.glob(".local/state/rankguard/runs/*/events.jsonl")
        entries = (json.loads(line) for line in journal.read_text().splitlines())
        return next(int(e["pid"]) for e in entries if e.get("fact") == "Spawned" and e["rank"] == rank)

    def text(self) -> str:
        return normal("\n".join(self.parts))


def start() -> str:
    """Four ranks load a model; the live view shows how far each is, and is gone when all are ready."""
    with Recorder(4, SERVE, "serve.py") as r:
        r.type("rankguard run -n 4 --ready-timeout 600 serve.py")
        for rank, (status, done) in enumerate((("loading shard", 12), ("loading shard", 13), ("", 0), ("", 0))):
            if status:
                r.tell(rank, f"rank.status('{status} {done} of 30', {done}, 30)")
        r.tell(2, "rank.status('capturing graphs')")
        r.tell(3, "print('flash attention 2.8 found', flush=True); rank.status('allocating host cache')")
        r.until(
            lambda screen: (
                "shard 12" in screen and "shard 13" in screen and "host cache" in screen and "graphs" in screen
            )
        )
        r.shot("while the ranks load")
        r.tell(2, "rank.ready()")
        r.tell(1, "rank.status('loading shard 29 of 30', 29, 30)")
        r.until(lambda screen: "1 of 4 ready" in screen and "shard 29" in screen)
        r.shot("a little later: rank 2 is ready")
        for ready, rank in enumerate((0, 1), 2):
            r.tell(rank, "rank.ready()")
            r.until(lambda screen, ready=ready: f"{ready} of 4 ready" in screen)
        r.tell(3, "rank.ready()")
        r.until(lambda screen: "all 4 ranks ready" in screen)
        r.tell(0, "print('serving on port 8000', flush=True)")
        r.until(lambda screen: "serving" in screen)
        for rank in range(4):
            r.tell(rank, "sys.exit(0)")
        r.ended()
        r.shot("all were ready: the view is gone, the ranks' own lines stay")
        return r.text()


def progress() -> str:
    """The same start in a CI log, where nobody can be shown a view: a line at 10 s, at 30 s, and when all are ready."""
    with Recorder(4, SERVE, "serve.py") as r:
        r.type("CI=true rankguard run -n 4 --ready-timeout 600 serve.py > log 2>&1; cat log")
        r.tell(0, "rank.ready()")
        r.tell(1, "rank.status('loading', 41, 100)")
        r.tell(3, "rank.ready()")
        log = HOME / "log"
        _wait_for(log, "10 s:")
        r.tell(1, "rank.ready()")
        _wait_for(log, "30 s:")
        r.tell(2, "rank.status('late'); rank.ready()")
        _wait_for(log, "all 4 ranks ready")
        for rank in range(4):
            r.tell(rank, "sys.exit(0)")
        r.ended()
        r.shot("the log")
        return r.text()


def failure() -> str:
    """One of four ranks raises; the others are stopped, and the report says which, why and what proves it."""
    with Recorder(4, TRAIN, "train.py", rows=40) as r:
        r.type("rankguard run -n 4 train.py")
        r.in_turn(4, "step 1")
        r.let_go(2)
        r.ended()
        r.type("echo $?")
        r.until(lambda screen: re.search(r"^1$", screen, re.MULTILINE))
        r.shot("rank 2 raises")
        return r.text()


def ctrl_c() -> str:
    """Ctrl-C: each rank gets SIGINT and has 30 s to save. All ended with 0, and so does the command."""
    with Recorder(3, SAVE, "train.py", rows=30) as r:
        r.type("rankguard run -n 3 train.py")
        r.in_turn(3, "step 41")
        r.terminal.send(CTRL_C)
        r.until(lambda screen: screen.count("saving") == 3)
        r.in_turn(3, "saved")
        r.ended()
        r.shot("Ctrl-C, and three ranks that save")
        return r.text()


def debug() -> str:
    """Rank 1 has the terminal for pdb; the other ranks write to their files meanwhile."""
    with Recorder(2, DEBUG, "train.py", rows=30) as r:
        r.type("rankguard run -n 2 --debug 1 train.py")
        for typed in ("p rank, loss", "loss = 0.5", "continue"):
            r.until(lambda screen: screen.rstrip().endswith("(Pdb)"))
            r.type(typed)
        r.ended()
        r.shot("pdb in rank 1")
        return r.text()


def many() -> str:
    """Somebody kills rank 37 of 64 while three others wait for its data: the culprit is named, not its victims."""
    with Recorder(64, MANY, "train.py", rows=40) as r:
        r.type("rankguard run -n 64 train.py")
        r.until(lambda screen: "all 64 ranks ready" in screen)
        os.kill(r.pid_of(37), signal.SIGKILL)
        r.ended()
        r.shot("rank 37 is killed")
        return r.text()


SCENE = {"start": start, "progress": progress, "failure": failure, "ctrl-c": ctrl_c, "debug": debug, "many": many}


def recorded(name: str) -> str:
    """A scene in which nothing is told of others: what they leave in /dev/shm while a job runs may be its own."""
    for _ in range(10):
        text = SCENE[name]()
        if not re.search(r"^  left  |left behind: ", text, re.MULTILINE):
            return text
    raise RuntimeError(
        f"`{name}`: other jobs of this user left things in /dev/shm each time; try again when they are over"
    )


def _wait_for(log: Path, text: str) -> None:
    """Until a file that we cannot be told of holds it: the scene is about clocks of 10 and 30 s."""
    import time

    until = time.monotonic() + 90
    while not log.exists() or text not in log.read_text():
        if time.monotonic() > until:
            raise TimeoutError(f"`{text}` did not come: {log.read_text() if log.exists() else ''}")
        time.sleep(0.05)


# ── What differs from one recording to the next ──────────────────────────────────────────────────────────────────


def normal(text: str) -> str:
    """Times, sizes, pids and ids of one length each, columns as they were."""
    text = text.replace(os.uname().nodename, "host-a").replace(sys.executable, "python3")
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b", "7f3a0b1c", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "2026-11-22 08:14:03 UTC", text)
    text = re.sub(r"\bpid \d+", "pid 40213", text)
    for kind, sample in _SAMPLES:
        text = re.sub(rf"(?<![\d.]){kind}", sample, text)
    return text


_SAMPLES = (
    (r"\+\d\d\.\d s\b", "+20.1 s"), (r"0\.\d\d s\b", "0.25 s"), (r"\d\.\d s\b", "1.2 s"), (r"\d\d\.\d s\b", "30.2 s"), (r"\d+\.\d ms\b", "8.1 ms"),
    (r"\d\d?\.\d of \d\d?\.\d (?=[GM]iB)", "1.9 of 64.0 "), (r"(?<= )\d s(?= ·)", "4 s"),
    (r"\d\d\.\d(?=\n)", "11.5"), (r"rank \d\d last, \+\S+ m?s", "rank 63 last, +0.02 s"),
)  # fmt: skip
"""Each keeps its width as far as there are columns: seconds, sizes of the whole job, of a rank."""


# ── docs/scenes.md ───────────────────────────────────────────────────────────────────────────────────────────────

HEAD = """# Scenes

Six scenes from a real terminal of 80 columns, recorded by `docs/make_scenes.py` (`make docs`). Times, sizes, pids and ids
are others of the same kind; what was typed stands behind `$`.
"""
TITLES = {
    "start": "A start", "progress": "A start in a CI log", "failure": "A failure", "ctrl-c": "Ctrl-C",
    "debug": "One rank in the hand", "many": "A failure of 64 ranks",
}  # fmt: skip


def page() -> str:
    """The page, from what was recorded."""
    parts = [HEAD]
    for name, scene in SCENE.items():
        recorded = (SCENES / f"{name}.txt").read_text().rstrip("\n")
        told = " ".join(textwrap.dedent(scene.__doc__ or "").split())
        parts.append(f"## {TITLES[name]}\n\n{told}\n\n```text\n{recorded}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    SCENES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or SCENE:
        (SCENES / f"{name}.txt").write_text(recorded(name))
    if all((SCENES / f"{name}.txt").exists() for name in SCENE):
        PAGE.write_text(page())
