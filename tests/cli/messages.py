"""What is asked wrongly, or meets a machine that says no: each case is a command line, and how the world stands for it.

`tests/cli/snapshots/NAME.txt` holds what it says. To add one: a row here, `UPDATE_GOLDEN=1 pytest tests/cli/test_messages.py`,
and read the file: would you know what to do?
"""

import contextlib
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rankguard.cli.options import ELSEWHERE

Prepare = Callable[[], None]


class World:
    """A folder of its own for each case: `work` is where it is run, `runs` is RANKGUARD_HOME."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work, self.runs = folder, folder / "work", folder / "runs"
        self.work.mkdir()
        self.files: dict[str, str | int] = {"stdin": os.devnull}
        """What stdin, stdout and stderr are: a path, or -1 for closed. Else what they write is kept."""
        self.before: Prepare | None = None
        self.env = {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "dumb",
            "RANKGUARD_HOME": str(self.runs), "XDG_STATE_HOME": str(folder / "state"), "TMPDIR": str(folder / "tmp"),
        }  # fmt: skip
        (folder / "tmp").mkdir()
        self.program("train.py", "print('trained')\n")

    def program(self, name: str, text: str, mode: int = 0o644) -> None:
        (self.work / name).write_text(text)
        (self.work / name).chmod(mode)

    def run_of(
        self,
        run_id: str,
        verdict: str | None = '{"outcome": "succeeded", "statement": "all is well"}',
        journal: bool = True,
    ) -> None:
        folder = self.runs / run_id
        folder.mkdir(parents=True)
        if verdict is not None:
            (folder / "verdict.json").write_text(verdict)
        if journal:
            (folder / "events.jsonl").write_text("")

    def fifo_for_a_journal(self, run_id: str) -> None:
        (self.runs / run_id).mkdir(parents=True)
        os.mkfifo(self.runs / run_id / "events.jsonl")

    def command(self, line: str) -> list[str]:
        """A Python of our own in place of the installed script: `-m rankguard` is the same main."""
        name, *words = shlex.split(line)
        assert name == "rankguard"
        return [sys.executable, "-m", "rankguard", *words]

    def run(self, line: str) -> subprocess.CompletedProcess[bytes]:
        def prepare() -> None:
            for number, name in enumerate(("stdin", "stdout", "stderr")):
                if self.files.get(name) == -1:
                    os.close(number)
            if self.before is not None:
                self.before()

        streams: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with contextlib.ExitStack() as opened:
            for name, path in self.files.items():
                if path != -1:
                    streams[name] = opened.enter_context(open(str(path), "rb" if name == "stdin" else "wb"))
            return subprocess.run(
                self.command(line), env=self.env, cwd=self.work, timeout=60, preexec_fn=prepare, **streams
            )  # type: ignore[call-overload]


Setup = Callable[[World], None]
CASES: dict[str, tuple[str, Setup | None]] = {}


def case(name: str, line: str, setup: Setup | None = None) -> None:
    assert name not in CASES
    CASES[name] = (line, setup)


def _env(**variables: str) -> Setup:
    return lambda world: world.env.update(variables)


def _program(name: str, text: str, mode: int = 0o755) -> Setup:
    return lambda world: world.program(name, text, mode)


def _streams(**files: str | int) -> Setup:
    return lambda world: world.files.update(files)


def _limit(which: int, value: int) -> Setup:
    def setup(world: World) -> None:
        world.before = lambda: resource.setrlimit(which, (value, value))

    return setup


def _both(first: Setup, second: Setup) -> Setup:
    def setup(world: World) -> None:
        first(world)
        second(world)

    return setup


def _runs(*ids: str) -> Setup:
    return lambda world: [world.run_of(run_id) for run_id in ids] and None


# ── Verbs ────────────────────────────────────────────────────────────────────────────────────────────────────────

case("verb-typo", "rankguard rpeort")
case("verb-two-near", "rankguard rusn")
case("verb-unknown", "rankguard frobnicate")
case("verb-is-a-program", "rankguard train.py --lr 3e-4")
case("verb-missing", "rankguard -n 2 train.py")
case("verb-hostile", "rankguard 'x\x1b[31m\nerror: y'")
case("help-topic-typo", "rankguard help exit-staus")
case("help-topic-unknown", "rankguard help frobnicate")
case("run-help-topic-typo", "rankguard run --help clock")
case("completion-no-shell", "rankguard completion")
case("completion-other-shell", "rankguard completion tcsh")
case("drill-unknown", "rankguard drill oomm")
case("drill-too-few-ranks", "rankguard drill oom -n 1")

# ── Past runs ────────────────────────────────────────────────────────────────────────────────────────────────────

case("runs-bad-number", "rankguard runs -n many")
case("runs-option-typo", "rankguard runs --numbr 3")
case("runs-a-word-too-many", "rankguard runs 7f3a")
case("report-no-runs-yet", "rankguard report")
case("explain-no-runs-yet", "rankguard explain")
case("report-unknown", "rankguard report 7f3a", _runs("1a2b3c4d"))
case("report-ambiguous", "rankguard report 1a", _runs("1a2b3c4d", "1a2bffff", "7f3a0001"))
case("report-two", "rankguard report 1a2b 7f3a", _runs("1a2b3c4d"))
case("report-flag-with-value", "rankguard report --json=yes", _runs("1a2b3c4d"))
case("report-no-verdict", "rankguard report 1a2b", lambda world: world.run_of("1a2b3c4d", None))
case("report-journal-is-a-fifo", "rankguard report 1a2b", lambda world: world.fifo_for_a_journal("1a2b3c4d"))
case("explain-journal-is-a-fifo", "rankguard explain 1a2b", lambda world: world.fifo_for_a_journal("1a2b3c4d"))
case("stacks-no-runs-yet", "rankguard stacks")
case("stacks-of-a-run-that-is-over", "rankguard stacks 1a2b", _runs("1a2b3c4d"))
case("stacks-bad-rank", "rankguard stacks --rank two")
case("doctor-option-typo", "rankguard doctor --jsn")
case("doctor-no-ranks", "rankguard doctor -n 0")
case("runs-none", "rankguard runs")
case("runs-in-no-folder", "rankguard runs --in nosuch")
case("runs-in-a-folder-without", "rankguard runs --in .")
case("runs-prune-what", "rankguard runs --prune")
case("runs-older-than-alone", "rankguard runs --older-than 7d")
case("runs-bad-age", "rankguard runs --prune --older-than lately")
case(
    "explain-folder-without-a-journal", "rankguard explain 1a2b", lambda world: world.run_of("1a2b3c4d", journal=False)
)

# ── Options of run ───────────────────────────────────────────────────────────────────────────────────────────────

case("run-no-program", "rankguard run")
case("run-no-program-after-options", "rankguard run -n 2 --grace 3")
case("run-option-typo", "rankguard run --gracee 3 train.py")
case("run-option-underscore-typo", "rankguard run --nproc_per_nod=2 --shutdwn_timeout 3 train.py")
case("run-option-unknown", "rankguard run --frobnicate train.py")
case("run-option-ambiguous", "rankguard run --re json train.py")
case("run-option-short-unknown", "rankguard run -x train.py")
case("run-flag-with-value", "rankguard run --no-python=1 train.py")
case("run-option-without-value", "rankguard run -n")
case("run-long-option-without-value", "rankguard run --ready-timeout")
case("run-option-for-a-value", "rankguard run --label --grace 3 train.py")
case("run-debug-and-stdin", "rankguard run -n 2 --debug 1 --stdin 0 train.py")
for option in ELSEWHERE:
    case(f"run-elsewhere-{option.lstrip('-')}", f"rankguard run {option} 2 train.py")
case("run-module-and-no-python", "rankguard run -m --no-python train")
case("run-choice-near", "rankguard run --report jsn train.py")

BAD_VALUES = {
    "--nproc-per-node": "many", "--numa-binding": "near", "--start": "warmish", "--master-port": "70000",
    "--ready-timeout": "soon", "--stall-timeout": "0s", "--grace": "-1", "--sample": "often", "--shutdown-timeout": "nan", "--signals-to-handle": "SIGKILL",
    "--max-restarts": "often", "--restart-window": "-2", "--restart-delay": "soon", "--redirects": "4", "--tee": "0:9", "--local-ranks-filter": "a-b",
    "--log-format": "xml", "--stdin": "9", "--debug": "two", "--report": "html", "--log-max": "lots",
    "--http": "::1:8080", "--clean-shm": "mine", "--run-dir": "", "--exit-codes": "none", "--redact": "[", "--label": "model", "--nnodes": "2:4",
    "--node-rank": "1", "--rdzv-backend": "etcd", "--monitor-interval": "often", "--start-method": "thread",
    "--logs-specs": "mine", "--master-addr": "a b", "--rdzv-endpoint": "host:port", "--local-addr": "a b",
    "--join-timeout": "0", "--node-timeout": "-5", "--orphan-timeout": "never", "--on": "slurm", "--resources": "GPU",
}  # fmt: skip
"""For each option that does not take whatever it is given."""
for option, value in BAD_VALUES.items():
    case(f"run-bad{option[1:]}", f"rankguard run {option} {shlex.quote(value)} train.py")
case("run-bad-nproc-zero", "rankguard run -n 0 train.py")
case("run-bad-signal-name", "rankguard run --signals-to-handle SIGFOO train.py")
case("run-bad-pet-variable", "rankguard run train.py", _env(PET_NPROC_PER_NODE="many"))
case("run-bad-pet-flag", "rankguard run train.py", _env(PET_NO_PYTHON="yes"))
case("run-bad-shutdown-variable", "rankguard run train.py", _env(TORCH_ELASTIC_SHUTDOWN_TIMEOUT="long"))
case("run-nodes-without-an-endpoint", "rankguard run --nnodes 2 -n 4 -m train --lr 1")
case("run-nodes-standalone", "rankguard run --standalone --nnodes 2 train.py")
case("run-nodes-stdin", "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 --stdin 0 train.py")
case("run-nodes-debug", "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 --debug 0 train.py")
case("run-nodes-no-such-node", "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 --node-rank 2 train.py")
case(
    "run-nodes-no-such-node-of-slurm",
    "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 train.py",
    _env(SLURM_NODEID="7"),
)
case("run-nodes-met-everywhere", "rankguard run --nnodes 2 --rdzv-endpoint 0.0.0.0:29500 train.py")
case("run-nodes-bad-backend", "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 --rdzv-backend etcd train.py")
case("run-nodes-bad-conf", "rankguard run --nnodes 2 --rdzv-endpoint 127.0.0.1 --rdzv-conf timeout=long train.py")
case("run-ray-counts-here", "rankguard run --on ray -n gpu train.py")

# ── Programs ─────────────────────────────────────────────────────────────────────────────────────────────────────

case("program-missing", "rankguard run ./nosuch")
case("program-missing-on-path", "rankguard run --no-python nosuch-command")
case("program-missing-python", "rankguard run nosuch.py")
case("program-missing-module", "rankguard run -m nosuch_module")
case("program-not-executable", "rankguard run --no-python ./data", _program("data", "1 2 3\n", 0o644))
case("program-a-folder", "rankguard run --no-python ./folder", lambda world: (world.work / "folder").mkdir())
case("program-a-folder-of-python", "rankguard run ./folder", lambda world: (world.work / "folder").mkdir())
case("program-bad-interpreter", "rankguard run ./script", _program("script", "#!/no/such/python\n"))
case("program-no-interpreter", "rankguard run ./script", _program("script", "\x7fNOT AN ELF\n"))

# ── The machine ──────────────────────────────────────────────────────────────────────────────────────────────────


def _gone(world: World) -> None:
    def leave() -> None:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")

    world.before = leave


def _file_in_the_way(world: World) -> None:
    (world.work / "runs").write_text("a file, not a folder")


case("folder-gone", "rankguard run /bin/true", _gone)
case("run-dir-not-writable", "rankguard run --run-dir runs/7f3a train.py", _file_in_the_way)
case("log-dir-not-writable", "rankguard run --log-dir runs train.py", _file_in_the_way)
case("too-few-descriptors", "rankguard run -n 64 /bin/true", _limit(resource.RLIMIT_NOFILE, 64))
case("hardly-any-descriptors", "rankguard run /bin/true", _limit(resource.RLIMIT_NOFILE, 10))
case("notify-socket-nonsense", "rankguard run train.py", _env(NOTIFY_SOCKET="nonsense"))
case("stdin-closed", "rankguard run train.py", _streams(stdin=-1))
case("stderr-closed", "rankguard run --grace soon train.py", _streams(stderr=-1))
case("stdout-closed-runs", "rankguard runs", _streams(stdout=-1))
case("stdout-closed-help", "rankguard --help", _streams(stdout=-1))
case("stdout-closed-run", "rankguard run train.py", _streams(stdout=-1))
case("stdout-full-help", "rankguard --help", _streams(stdout="/dev/full"))
case("stdout-full-runs", "rankguard runs", _both(_runs("1a2b3c4d"), _streams(stdout="/dev/full")))
case("stdout-full-run", "rankguard run train.py", _streams(stdout="/dev/full"))
case("stderr-full", "rankguard run --grace soon train.py", _streams(stderr="/dev/full"))
