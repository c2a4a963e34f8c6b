"""Every option of `rankguard run`, in one table: the parser, the help, the shell completion, the man page and the page
that compares us with torchrun are views of it.

Names, defaults and meanings of torchrun's options were read in torch 2.13's `distributed/run.py`. To add an option: a
row here, its field in `cli/plan.py`, a test in `tests/cli/`.
"""

from collections.abc import Callable
from typing import Any

from rankguard.cli import values
from rankguard.record import Record

TOPICS = {
    "ranks": "how many, of what, and what they are told",
    "clocks": "how long things may take, in seconds",
    "output": "what the terminal shows",
    "files": "what is kept on disk, and what is told at the end",
    "nodes": "several machines (docs/nodes.md), and what has no effect here",
}
"""Topics of the help: each fits on a screen (`rankguard run --help TOPIC`)."""


class Option(Record):
    """One option. `metavar` null: a flag. `parse` turns its text into its value and raises `ValueError` with what is wrong.

    `torchrun`: how it compares with torchrun's option of this name: `same`, `better`, `no effect` or `refused`, and
    what differs; null when torchrun has none. `theirs`: its default there; `since`: the version that brought it, if it
    is later than 2.13. `pet`: `PET_<NAME>` in the environment is its default, as under torchrun. `shown`: the default
    in words, where the value does not tell it.
    """

    names: tuple[str, ...]
    topic: str
    help: str
    metavar: str | None = None
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] = ()
    repeats: bool = False
    torchrun: str | None = None
    theirs: Any = None
    since: str | None = None
    pet: bool = False
    shown: str | None = None

    @property
    def name(self) -> str:
        """The long name, with hyphens."""
        return next(name for name in self.names if name.startswith("--"))

    @property
    def field(self) -> str:
        """Its attribute in the parsed arguments."""
        return self.name[2:].replace("-", "_")


ELSEWHERE = {
    "--print-completion": ("is `rankguard completion` here", "rankguard completion bash"),
    "--use-env": ("is of torch.distributed.launch; ranks read LOCAL_RANK in any case", "leave it out"),
    "-np": ("is mpirun's; there is `-n`", "-n 2"),
    "-ppn": ("is mpirun's; there is `-n`", "-n 2"),
}
"""Options of torchrun's later versions and of its relatives that have no row: what to say, and what to do instead."""


def _ours(names: str, topic: str, text: str, metavar: str | None = None, **more: Any) -> Option:
    return Option(tuple(names.split()), topic, text, metavar, **more)


def _torch(names: str, topic: str, compared: str, text: str, metavar: str | None = None, **more: Any) -> Option:
    flag: dict[str, Any] = {"theirs": False} if metavar is None else {}
    return Option(tuple(names.split()), topic, text, metavar, torchrun=compared, **({"pet": True} | flag | more))


OPTIONS = (
    # ── ranks ────────────────────────────────────────────────────────────────────────────────────────────────────
    _torch(
        "-n --nproc-per-node", "ranks",
        "better: `-n` for short; `gpu` and `auto` need no torch, and count what this process may use",
        "ranks: a number, `auto`, `cpu`, `gpu`, `xpu` (1)", "N", default="1", theirs="1",
        parse=values.nproc,
    ),
    _torch("-m --module", "ranks", "same", "PROGRAM is a module, as for `python -m`"),
    _torch(
        "--no-python", "ranks", "better: not needed for an executable that is not a .py file",
        "execute PROGRAM as it is",
    ),
    _torch(
        "--run-path", "ranks",
        "better: the path need not be absolute, and the program finds what stands beside it, as under `python`",
        "PROGRAM is a Python file, whatever its name",
    ),
    _torch("--role", "ranks", "same", "the role's name, in ROLE_NAME and in the prefix template (default)", "NAME",
           default="default", theirs="default"),
    _torch(
        "--virtual-local-rank", "ranks",
        "better: too few GPUs are told before anything starts; HIP_VISIBLE_DEVICES is set where it was",
        "LOCAL_RANK is 0 for every rank, and each sees one GPU (CUDA_VISIBLE_DEVICES)",
    ),
    _torch(
        "--numa-binding", "ranks",
        "better: needs no `numactl`, prefers near memory too, and works without a GPU (ranks in blocks over the nodes); "
        "a kernel that refuses is a warning",
        "CPUs and memory near each rank's GPU: node, socket, exclusive or core-complex", "MODE",
        choices=("node", "socket", "exclusive", "core-complex"), pet=False,
    ),
    _ours("--start", "ranks", "how Python ranks come to be: exec, warm (import once, fork each), or auto, warm where it is safe (auto)", "HOW",
          default="auto", choices=("auto", "exec", "warm")),
    _ours("--preload", "ranks", "what a warm start imports: MOD,…, none, or auto, the program's own imports (auto)", "MOD,…",
          default="auto"),
    _torch(
        "--master-addr", "ranks",
        "better: also without --master-port, where torchrun tells this machine's name instead; of several machines where "
        "node 0 is met, unless --rdzv-endpoint says that",
        "MASTER_ADDR of the ranks (127.0.0.1)", "HOST", default="127.0.0.1", theirs="127.0.0.1", parse=values.host,
    ),
    _torch(
        "--master-port", "ranks",
        "better: without one a free port is chosen and held until the job ends, so that two jobs never meet; of several "
        "machines where node 0 is met, unless --rdzv-endpoint says that",
        "MASTER_PORT (a free one, held until the job ends)", "PORT", parse=values.port, shown="a free port",
    ),
    # ── clocks ───────────────────────────────────────────────────────────────────────────────────────────────────
    _ours("--ready-timeout", "clocks", "every rank must report ready within S (off)", "S", parse=values.seconds),
    _ours("--stall-timeout", "clocks", "a rank that shows no sign of progress for S seconds is stalled (off)", "S",
          parse=values.seconds),
    _ours("--sample", "clocks", "look at the ranks' memory every S seconds; 0: never, and no warning before an OOM kill (1)",
          "S", default=1.0, parse=values.seconds),
    _ours("--grace", "clocks", "after a failure: SIGTERM to SIGKILL, for all others together (5)", "S", default=5.0,
          parse=values.seconds),
    _torch(
        "--shutdown-timeout", "clocks",
        "better: fractions too; 0 is no limit of ours, where torchrun kills at once",
        "after a request from outside: how long ranks may take (30; 0: no limit of ours)", "S", parse=values.seconds,
        shown="TORCH_ELASTIC_SHUTDOWN_TIMEOUT, else 30",
    ),
    _torch(
        "--signals-to-handle", "clocks", "better: SIGQUIT tells the stacks of all ranks unless it is named here",
        "signals that end the job besides SIGTERM, SIGINT and SIGHUP: SIGQUIT, SIGUSR1 …", "NAMES",
        parse=values.signals, theirs="SIGTERM,SIGINT,SIGHUP,SIGQUIT", shown="SIGTERM,SIGINT,SIGHUP",
    ),
    _torch(
        "--max-restarts", "clocks",
        "better: not what another attempt cannot heal; after a second failure in a row a growing pause; each attempt has its "
        "own files and its own port, and the verdict names them all",
        "how often all ranks are started again after a failure (0)", "N", default=0, theirs=0, parse=values.count,
    ),
    _ours("--restart-delay", "clocks", "the longest pause before a restart; it grows from 1 s, the first restart is at once (60)",
          "S", default=60.0, parse=values.seconds),
    _ours("--restart-window", "clocks", "count restarts over the last S seconds only (default: over the whole run)", "S",
          parse=values.seconds),
    # ── output ───────────────────────────────────────────────────────────────────────────────────────────────────
    _torch(
        "-r --redirects", "output",
        "better: ranks of any number of digits, and ranges; the files are written in any case",
        "streams to keep off the terminal: 1 stdout, 2 stderr, 3 both; for some ranks: 0:3,10-15:1", "STREAMS",
        default="0", parse=values.streams, theirs="0",
    ),
    _torch(
        "-t --tee", "output",
        "better: maps as above; lines come from a pipe at once, not from a file that is read again",
        "streams to show although redirected (as -r)", "STREAMS", default="0", parse=values.streams,
        theirs="0",
    ),
    _torch(
        "--local-ranks-filter", "output", "better: ranges too; a rank that is not there is told",
        "show these ranks only, such as 0,2,4-7", "RANKS", parse=values.shown_ranks, default=(), theirs="",
        shown="all ranks",
    ),
    _torch(
        "--duplicate-stdout-filters", "output", "better: of every rank, teed or not; in the run's folder",
        "copy lines with any of these texts to filtered_stdout.log or filtered_stderr.log; `,,` is a comma", "TEXTS", default=(),
        parse=values.texts, theirs=[], shown="none",
    ),
    _torch(
        "--duplicate-stderr-filters", "output", "better: of every rank, teed or not; in the run's folder",
        "copy lines with any of these texts to filtered_stdout.log or filtered_stderr.log; `,,` is a comma", "TEXTS", default=(), parse=values.texts,
        theirs=[], shown="none",
    ),
    _torch(
        "--log-line-prefix-template", "output",
        "better: of every line, not only of teed ones; `[0] ` where torchrun writes `[default0]:`",
        "before each line: ${rank}, ${local_rank}, ${role_name}, ${hostname}, ${node} ('[${rank}] ')", "TEXT", theirs="",
        since="2.15", shown="TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE, else `[${rank}] `, on several machines `[${node}:${rank}] `",
    ),
    _ours("--log-format", "output", "`text`, or `json` with ts, rank, node, stream, line (text)", "FORMAT",
          default="text", choices=("text", "json")),
    _ours("--stdin", "output", "which rank reads our stdin (0 on a tty, else `none`)", "RANK", default="auto"),
    _ours("--debug", "output", "give this rank the terminal itself (pdb, debugpy)",
          "RANK"),
    _ours("--no-color", "output", "no colours, as with NO_COLOR set"),
    _ours("-q --quiet", "output", "no progress lines, no live view"),
    _ours("-v --verbose", "output", "also say what was decided, and why"),
    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────
    _ours("--report", "files", "`text` on stderr, `json` on stdout, or `none` (text)", "KIND",
          default="text", choices=("text", "json", "none")),
    _ours("--run-dir", "files", "folder for this run's files (a new one)", "DIR", parse=values.folder),
    _torch(
        "--log-dir", "files",
        "better: each run gets a new folder in it, too; what is in that has names in full: `rank-0/attempt-0/stdout.log`",
        "folder that the run's folder is made in", "DIR", shown="the runs' folder of --run-dir",
    ),
    _ours("--log-max", "files", "of each stream on disk, its first quarter and last three; 0: none (64M)", "SIZE",
          default=64 << 20, parse=values.size),
    _ours("--http", "files", "serve probes, metrics and the state on HOST:PORT; `:8080` is this machine alone (off)", "ADDR",
          parse=values.http),
    _ours("--on-verdict", "files", "run this with the verdict on stdin, 10 s at most", "CMD"),
    _ours("--clean-shm", "files",
          "shared memory that outlives the job: `report` it, remove its `own`, remove `all` unused (report)", "WHAT",
          default="report", choices=("report", "own", "all")),
    _ours("--termination-log", "files",
          "the container's last word, written ahead when memory runs short; `none`: nowhere (/dev/termination-log, where it is)",
          "PATH", shown="/dev/termination-log, where it can be written"),
    _ours("--exit-codes", "files", "exit with the culprit's code or its `class` (culprit)", "KIND", default="culprit",
          choices=("culprit", "class")),
    _ours("--redact", "files", "more secrets to hide in what we write", "REGEX", default=(), repeats=True,
          parse=values.regex),
    _ours("--label", "files", "a label in the verdict", "K=V", default=(), repeats=True, parse=values.label),
    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────
    _torch(
        "--nnodes", "nodes", "same for N and N:N; MIN:MAX is refused, since a job keeps the size that it was asked for",
        "number of machines (1)", "N", default="1", theirs="1:1", parse=values.nodes,
    ),
    _torch(
        "--node-rank", "nodes",
        "better: found where it can be (Slurm, LeaderWorkerSet, indexed Jobs, or by the address), else the next free one; one "
        "that --nnodes does not have is refused",
        "which one this is, or `auto`: by Slurm, Kubernetes or address (auto)", "R", default="auto", theirs=0,
        parse=values.node_rank,
    ),
    _torch("--rdzv-backend", "nodes",
           "same for `static` and `c10d`, but that no store is started for them; others are refused",
           "static or c10d, which are alike here", "NAME", default="static", theirs="static"),
    _torch(
        "--rdzv-endpoint", "nodes",
        "better: of several machines where node 0 is met, with each backend, the ranks having a port of their own; of one, "
        "MASTER_ADDR and MASTER_PORT for `static`, no effect with `c10d`",
        "where node 0 is: HOST or HOST:PORT (29500)", "ADDR", default="", theirs="", parse=values.endpoint,
        shown="Slurm's first node or LWS_LEADER_ADDRESS, where there is one",
    ),
    _torch(
        "--rdzv-id", "nodes",
        "better: kept in any case, and nodes of another one are refused; without one TORCHELASTIC_RUN_ID is the run's own id",
        "the job's name, the same on each node; also TORCHELASTIC_RUN_ID", "ID", theirs="none",
        shown="SLURM_JOB_ID on several nodes, the run's id on one",
    ),
    _torch("--rdzv-conf", "nodes",
           "better: `join_timeout` or `timeout` is the default of --join-timeout; a line says so of the rest",
           "timeout=S is --join-timeout", "K=V,…", theirs="", default="", shown="none"),
    _ours("--join-timeout", "nodes", "all nodes must have joined within S (600)", "S", default=600.0, parse=values.some_seconds),
    _ours("--node-timeout", "nodes", "a node that is silent for S is lost (5)", "S", default=5.0, parse=values.some_seconds),
    _ours("--orphan-timeout", "nodes", "a node that hears nothing for S ends its ranks (10)", "S", default=10.0,
          parse=values.some_seconds),
    _ours("--on", "nodes", "`ray`: one command, Ray places the nodes (local)", "WHERE", choices=("local", "ray"),
          shown="`ray` where RAY_ADDRESS is set and no node 0 is named, else `local`"),
    _ours("--ray-address", "nodes", "Ray's cluster (RAY_ADDRESS)", "ADDR"),
    _ours("--resources", "nodes", "what Ray sets aside on each node: GPU=8,… or JSON", "WHAT", default=(),
          parse=values.resources, shown="a CPU for each rank; GPUs and all else only where they are named"),
    _torch("--standalone", "nodes", "same: one machine, a free port; --rdzv-id is kept", "one machine, a free port"),
    _torch("--local-addr", "nodes", "same: MASTER_ADDR, unless that is given", "MASTER_ADDR, if this is node 0",
           "HOST", parse=values.host, shown="none"),
    _torch("--monitor-interval", "nodes", "no effect: the kernel tells when a rank ends, nothing is polled",
           "accepted, without effect", "S", theirs=0.1, parse=values.seconds, shown="none"),
    _torch("--start-method", "nodes", "no effect: ranks are executed, each anew; see --start",
           "accepted, without effect", "HOW", choices=("spawn", "fork", "forkserver"), theirs="spawn", shown="none"),
    _torch("--event-log-handler", "nodes", "no effect: every event is in the run's `events.jsonl`",
           "accepted, without effect", "NAME", theirs="null", shown="none"),
    _torch("--logs-specs", "nodes", "refused but for `default`: it names a class of torch's; see -r, -t and --log-dir",
           "accepted: default", "NAME", pet=False, shown="none"),
)  # fmt: skip

BY_FIELD = {option.field: option for option in OPTIONS}


_AS_OF_RUN = (
    "ready_timeout", "stall_timeout", "sample", "grace", "shutdown_timeout", "signals_to_handle",
    "log_format", "no_color", "quiet", "verbose",
    "report", "run_dir", "log_dir", "log_max", "termination_log", "http", "on_verdict", "clean_shm", "exit_codes",
    "redact", "label",
)  # fmt: skip


def _watch(names: str, text: str, metavar: str | None = None, **more: Any) -> Option:
    return Option(tuple(names.split()), "watch", text, metavar, **more)


_FOR_WATCH: dict[str, Any] = {"topic": "watch", "pet": False, "torchrun": None}

SHARED = tuple(BY_FIELD[field].replace(**_FOR_WATCH) for field in _AS_OF_RUN)
"""Options that `watch` takes, too, with the same meaning."""

OF_NODES = (
    BY_FIELD["nnodes"].replace(**_FOR_WATCH, help="machines of the engine; the same command on each (1)"),
    BY_FIELD["node_rank"].replace(**_FOR_WATCH, help="which one this is (auto)"),
    BY_FIELD["rdzv_endpoint"].replace(**_FOR_WATCH, help="where node 0 is: HOST or HOST:PORT (29490)"),
    BY_FIELD["rdzv_id"].replace(**_FOR_WATCH, help="a name, the same on each node", shown="none"),
    BY_FIELD["join_timeout"].replace(**_FOR_WATCH, help="who has not joined within S is told (600)"),
    BY_FIELD["node_timeout"].replace(**_FOR_WATCH),
    BY_FIELD["orphan_timeout"].replace(**_FOR_WATCH, help="node 0 unreached for S is lost (10)"),
)
"""Options of `watch` for an engine on several machines."""

WATCH_OPTIONS = (
    _watch("--on-failure", "when a rank-like process ends: stop or report (stop)", "WHAT", default="stop",
           choices=("stop", "report")),
    _watch("--settle", "the engine's own time to end after a failure (10)", "S", default=10.0,
           parse=values.seconds),
    _watch("--rank-pattern", "more processes that are rank-like",
           "REGEX", default=(), repeats=True, parse=values.telling_regex),
    _watch("--leave-pattern", "processes that are not, whatever the rules say", "REGEX", default=(), repeats=True,
           parse=values.telling_regex),
    _watch("--pid", "attach to a process that runs", "PID", parse=values.count),
    _watch("--match", "attach to the one that matches; wait for it", "REGEX", parse=values.regex),
    _watch("--ready-http", "ready when this URL answers 200 to 399", "URL", default=(), repeats=True,
           parse=values.ready_url),
    _watch("--ready-tcp", "ready when this accepts a connection", "HOST:PORT", default=(), repeats=True,
           parse=values.ready_endpoint),
    _watch("--ready-log", "ready when a line of its output matches", "REGEX", default=(), repeats=True,
           parse=values.regex),
    _watch("--ready-file", "ready when this file is there", "PATH", default=(), repeats=True,
           parse=values.ready_path),
    _watch("--on-lost", "when rankguard itself is killed: keep or end (keep)", "WHAT",
           default="keep", choices=("end", "keep")),
    *OF_NODES,
    *SHARED,
)  # fmt: skip
"""Of `rankguard watch`: its own, and those that mean the same as for `run`."""
