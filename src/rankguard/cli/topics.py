"""What the help tells besides options: exit status, variables of the environment, signals. Data; `help.py` lays it out,
and so do the man page and `docs/command-line.md`.
"""

from rankguard.record import Record


class Topic(Record):
    """A page of the help: sentences, then rows of two cells."""

    name: str
    summary: str
    text: str
    rows: tuple[tuple[str, str], ...]
    end: str = ""


PAGES = {
    page.name: page
    for page in (
        Topic(
            "exit-status", "what `rankguard run` exits with",
            "The status of `rankguard run` says how the job ended, never 0 after a failure:",
            (
                ("0", "every rank ended with 0, also after a request from outside"),
                ("1-255", "the culprit's own code"),
                ("128 + n", "the culprit was ended by signal n (137: SIGKILL, 139: SIGSEGV)"),
                ("1", "it failed without a code: ended with 0 before it was ready, reported a failure"),
                ("124", "--ready-timeout or a stall"),
                ("130 143 129", "ended on request by SIGINT, SIGTERM, SIGHUP; no rank failed"),
                ("2", "usage"),
                ("125", "a fault of rankguard, or a limit of this machine (open files)"),
                ("126 127", "PROGRAM cannot be executed, is not found"),
            ),
            "Codes can be the program's own too: scripts read `outcome` and `cause.kind` of\n"
            "`--report json`. With `--exit-codes class`: 80, 81 the program failed before,\n"
            "after it was ready, 82 memory, 83 machine or GPU, 84 time-out, 85 cannot start,\n"
            "86 node lost. Other verbs: 0, 1 unable to, 2 usage, 130 Ctrl-C, 141 `| head`.",
        ),
        Topic(
            "environment", "variables that rankguard reads, and those that ranks get",
            "Read by rankguard:",
            (
                ("RANKGUARD_HOME", "folder of the runs, before any other"),
                ("XDG_STATE_HOME", "runs are in rankguard/runs there (~/.local/state)"),
                ("TMPDIR", "short-lived files, and runs where no other folder can be written"),
                ("PET_NPROC_PER_NODE …", "defaults of torchrun's options: PET_ and the option's name"),
                ("RANKGUARD_TOKEN", "a secret that the nodes of a job share (docs/nodes.md)"),
                ("RAY_ADDRESS", "Ray's cluster, for --on ray; implies it, unless node 0 is named"),
                ("SLURM_*, LWS_*, JOB_COMPLETION_INDEX", "which node this is, and where node 0 is"),
                ("NO_COLOR, TERM=dumb", "no colours"),
                ("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "default of --shutdown-timeout"),
                ("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "default of --log-line-prefix-template"),
                ("OMP_NUM_THREADS", "passed on; else 1 for each of several ranks, as torchrun"),
            ),
            "Each rank gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR,\n"
            "MASTER_PORT and torchrun's others, NOTIFY_SOCKET (say READY=1 there),\n"
            "RANKGUARD_RUN_ID, RANKGUARD_RUN_DIR, and for Python PYTHONUNBUFFERED=1.",
        ),
        Topic(
            "signals", "what a signal to `rankguard run` does",
            "Sent to `rankguard run`:",
            (
                ("SIGTERM, SIGHUP", "forwarded to every rank; they have --shutdown-timeout (30) seconds to end"),
                ("SIGINT (Ctrl-C)", "the same; a second one ends all at once"),
                ("SIGQUIT (Ctrl-\\)", "the stacks of all ranks; nothing stops"),
                ("SIGUSR1, SIGUSR2", "forwarded; nothing stops"),
                ("SIGCONT, SIGWINCH", "forwarded; nothing stops"),
                ("SIGTSTP (Ctrl-Z)", "the job is stopped with us; `fg` goes on, no deadline has run meanwhile"),
                ("SIGHUP under nohup", "stays ignored"),
            ),
            "A signal that a rank sends to its parent (SGLang sends SIGQUIT) is a fact about\n"
            "that rank. --signals-to-handle adds signals that end the job.",
        ),
    )
}  # fmt: skip
