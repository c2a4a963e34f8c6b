"""What is asked for: everything that the supervisor needs to know of a job, complete before anything is started.

The command line (`cli/plan.py`, `cli/watch.py`) and `launch` make it (`spec.py`), the wire carries it, nobody changes it.
Read next: `model.py` (what is known, and the verdict).
"""

from collections.abc import Mapping

from rankguard.record import Record


class WatchPlan(Record):
    """How a tree of processes is watched (`rankguard watch`). Times are in seconds."""

    on_failure: str = "stop"
    """What the end of a rank-like process does: `stop` the engine, or `report` it."""
    settle: float = 10.0
    """How long the engine may take to end by itself after a failure, before it is told to."""
    rank_patterns: tuple[str, ...] = ()
    """Of titles and command lines that are rank-like, besides the rules that we know (`diagnosis/roles.py`)."""
    leave_patterns: tuple[str, ...] = ()
    """Of those that are not, whatever the rules say."""
    attached: int | None = None
    """The pid of an engine that somebody else has started; null: it is launched, or found by `match`."""
    attached_started: int | None = None
    """When that began, in clock ticks since boot: with the pid it is the identity."""
    match: str | None = None
    """What the title of an engine that somebody else starts matches; it is waited for."""
    ready_http: tuple[str, ...] = ()
    ready_tcp: tuple[str, ...] = ()
    ready_log: tuple[str, ...] = ()
    ready_file: tuple[str, ...] = ()
    """What shows that the engine is ready: all have to hold. Where none is given, its own word counts (sd_notify)."""

    @property
    def attaches(self) -> bool:
        """Somebody else has started the engine: it is left as it is, but for its end after a failure."""
        return self.attached is not None or self.match is not None

    @property
    def probed(self) -> bool:
        """Something else than the engine's own word shows that it is ready."""
        return any((self.ready_http, self.ready_tcp, self.ready_log, self.ready_file))


class NodesPlan(Record):
    """A job on several machines, as its coordinator has it: agents, one a node, launch the ranks. Times are in seconds."""

    count: int
    """Nodes."""
    nproc: int
    """Ranks of each node: `nprocs` is `count` times that."""
    host: str = ""
    """What the coordinator listens on; empty: every address of this machine."""
    port: int = 0
    """0: a free one."""
    token: str = ""
    """What both ends of a link prove to know; it never travels."""
    agent: tuple[str, ...] = ()
    """The command that starts this machine's own agent, or the one that has the agents placed (`on`)."""
    on: str = "join"
    """How agents come: they `join` by themselves, the same command having been started on each node, or `ray` places them."""
    settings: Mapping[str, str] = {}
    """For whoever places them (`--ray-address`, `--resources` …)."""
    join_timeout: float = 600.0
    node_timeout: float = 5.0
    """A node that is silent for so long is lost."""
    orphan_timeout: float = 10.0
    """`Share.orphan_timeout` of the agents that we have placed."""
    watch: WatchPlan | None = None
    """Each node watches an engine of its own, and the ranks are the roots of these (`supervisor/nodes/council.py`)."""


class Share(Record):
    """One node's part of such a job, as its agent has it. Times are in seconds."""

    host: str
    """Where the coordinator is."""
    port: int
    count: int
    """Nodes."""
    token: str = ""
    node: int | None = None
    """Which of them this is; null: the coordinator says."""
    join_timeout: float = 600.0
    orphan_timeout: float = 10.0
    """Ranks whose coordinator has been silent for so long end by themselves: nobody may ever reach them again."""
    first_rank: int = 0
    """From here on it is as the coordinator says, at the start of each attempt."""
    world_size: int = 0
    run_id: str = ""
    """Of the whole job, which its ranks are told; ours names what is ours alone."""

    coordinator: NodesPlan | None = None
    """Of a watch: node 0 starts the coordinator, too, as a child of its supervisor."""

    @property
    def known(self) -> bool:
        """The coordinator has said what our part is."""
        return self.world_size > 0


class JobSpec(Record):
    """Everything that the supervisor needs to know, complete before anything is started. Times are in seconds."""

    run_id: str
    command: tuple[str, ...]
    """What every rank executes, as given by the user; `argv` is what is executed."""
    argv: tuple[str, ...]
    nprocs: int
    env: Mapping[str, str]
    cwd: str
    macros: bool = False
    """`${local_rank}` in `argv` is the rank's own number, as under torchrun."""
    rank_env: tuple[Mapping[str, str], ...] = ()
    """Additions for each rank; empty for none."""
    role: str = "default"
    node: str = ""
    start: str = "exec"
    """How Python ranks come to be: `exec`, `warm` (forked of a server that has imported `preload`), or `auto`."""
    preload: tuple[str, ...] | None = None
    """Modules that a warm start imports first; null for what the program imports at its top level."""
    imports_of: tuple[str, ...] = ()
    """The words that name the file whose imports are meant, where they are not those of the program itself."""
    chosen: bool = False
    """`warm` was chosen for the program (`auto`), not asked for: a doubt more is a reason to execute."""
    not_warm: str | None = None
    """Why `auto` came out as `exec`, where there was a choice."""
    import_path: tuple[str, ...] = ()
    """`sys.path` of a function's ranks, which is its caller's; empty for a program's own."""
    cargo: str | None = None
    """A function and its arguments for ranks on other machines (`launchers/function.py`), in base 64."""
    python: bool = True
    """The ranks are Python under our bootstrap."""
    expect_ready: bool = False
    ready_timeout: float | None = None
    stall_timeout: float | None = None
    """A rank without a sign of progress for so long is stalled."""
    sample: float = 1.0
    """Every so many seconds the ranks' memory is looked at; 0: never."""
    grace: float = 5.0
    shutdown_timeout: float = 30.0
    run_dir: str | None = None
    http: str | None = None
    """`HOST:PORT` where the page, the probes and the metrics are served."""
    log_max: int = 64 << 20
    console: str = "prefix"
    """`prefix` (stdout to stdout, stderr to stderr), `stderr` (both to stderr) or `none`."""
    prefix: str | None = None
    log_format: str = "text"
    """Of the console's lines: `text` or `json`."""
    color: bool = True
    """False: the colours of ranks are taken out of what the console shows (`--no-color`, `NO_COLOR`)."""
    hidden: tuple[int, ...] = ()
    """For each rank the streams that the console does not show: 1 stdout, 2 stderr, 3 both. Empty: it shows all."""
    filters: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Lines with one of these texts are copied to `filtered_stdout.log` and `filtered_stderr.log` of the run."""
    stdin_rank: int | None = None
    debug_rank: int | None = None
    """The rank that has the terminal itself as stdin, stdout and stderr; no time-out runs meanwhile."""
    debug_argv: tuple[str, ...] = ()
    """What the debug rank executes instead of `argv`, when a debugger follows it from the front."""
    master_addr: str = "127.0.0.1"
    """Empty: the address by which the coordinator sees node 0."""
    master_port: int | None = None
    virtual_local_rank: bool = False
    numa_binding: str | None = None
    """`node`, `socket`, `exclusive` or `core-complex`: where each rank's threads and memory may be."""
    elastic_id: str | None = None
    """TORCHELASTIC_RUN_ID, if it is not the run's own id."""
    max_restarts: int = 0
    restart_window: float | None = None
    """Restarts are counted over so many seconds; null: over the whole run."""
    restart_delay: float = 60.0
    """The longest pause before a restart; it begins with 1 s, at the second one in a row."""
    attempt: int = 0
    """How many attempts have failed before this one."""
    ignore_hup: bool = False
    nofile: tuple[int, int] = (1024, 1024)
    labels: Mapping[str, str] = {}
    redact: tuple[str, ...] = ()
    adopted: bool = False
    """The ranks were started by somebody else: they are watched, not spawned, stopped or reaped."""
    names: tuple[str | None, ...] = ()
    any_end_fails: bool = False
    """Every ending is a failure until the watch is told that the job is stopping (`guard`, `wait_ready`)."""
    on_lost: str = "end"
    """When one of our own processes is gone: `end` the job, or `keep` it running."""
    nodes: NodesPlan | None = None
    """The ranks run on several machines, and this is the job as a whole; null: they run here."""
    share: Share | None = None
    """The ranks are one node's part of such a job; null: they are the job."""
    watch: WatchPlan | None = None
    """The one rank is the root of a tree whose processes are watched; null: ranks are launched."""
    events: bool = False
    """The front wants to be told of every fact (`on_event`)."""
    verbose: bool = False
    """The front wants the journal as it is written (`-v`)."""
    exit_codes: str = "culprit"
    termination_log: str | None = None
    """Where the last word of a container goes (`/dev/termination-log`); null: nowhere."""
    clean_shm: str = "report"
    """Of shared memory that outlives the job: `report` it, remove the job's `own`, or `all` that nobody uses."""

    def world_rank(self, rank: int) -> int:
        """The number of this machine's `rank` among all ranks of the job."""
        return rank if self.share is None else self.share.first_rank + rank

    @property
    def shown_elsewhere(self) -> bool:
        """Node 0 shows what the ranks print, and who is ready. Not of a watch: each node has an engine of its own."""
        return self.share is not None and self.watch is None

    @property
    def keeps(self) -> bool:
        """What was started outlives our own processes. An engine of somebody else's does in any case, and we end alone."""
        return self.on_lost == "keep" and not (self.watch is not None and self.watch.attaches)
