"""`rankguard watch`: parse, plan, launch the engine or attach to it; the front does the rest."""

import os
from collections.abc import Sequence
from types import SimpleNamespace

from rankguard.cli import say
from rankguard.cli.lastword import last_word_of
from rankguard.cli.plan import of_both
from rankguard.cli.verbs import parse
from rankguard.errors import UsageError
from rankguard.jobspec import JobSpec, Share, WatchPlan
from rankguard.linux.find import Found, above, is_hidden, named, process_of
from rankguard.linux.modes import in_background
from rankguard.spec import job_spec

OF_NODES = ("node_rank", "rdzv_endpoint", "rdzv_id", "join_timeout", "node_timeout", "orphan_timeout")
"""Options that mean something with `--nnodes` alone."""


def watch(words: Sequence[str]) -> int:
    """Watch one engine; the exit status. Raises `UsageError` and `SpawnFailed` before anything is started."""
    asked = parse("watch", words)
    if asked is None:
        return 0
    spec = plan(asked)
    from rankguard.cli.front.main import Front

    return Front(asked, spec).run()


def plan(asked: SimpleNamespace) -> JobSpec:
    """The job of one rank, the engine's root. Raises `UsageError`."""
    ways = [name for name in ("command", "pid", "match") if getattr(asked, name) not in (None, [], ())]
    if len(ways) != 1:
        said = "no COMMAND is given" if not ways else "expected one of COMMAND, --pid and --match"
        raise UsageError(said, "rankguard watch -- vllm serve MODEL")
    if not asked.command:
        _check(asked)
    found = _attached(asked) if asked.pid is not None else None
    attaches = not asked.command
    command = asked.command or (found.title.split() if found is not None else ["--match", asked.match])
    last_word, unsaid = last_word_of(asked.termination_log)
    watched = WatchPlan(
        on_failure=asked.on_failure,
        settle=asked.settle,
        rank_patterns=asked.rank_pattern,
        leave_patterns=asked.leave_pattern,
        attached=None if found is None else found.pid,
        attached_started=None if found is None else found.started,
        match=asked.match,
        ready_http=asked.ready_http,
        ready_tcp=asked.ready_tcp,
        ready_log=asked.ready_log,
        ready_file=asked.ready_file,
    )
    share, notes = _share(asked, watched)
    spec, warning = job_spec(
        command=command,
        argv=command,
        nprocs=1,
        role="engine",
        python=False,
        watch=watched,
        share=share,
        on_lost=asked.on_lost,
        expect_ready=asked.ready_timeout is not None or _tells_readiness(asked),
        ready_timeout=asked.ready_timeout,
        stall_timeout=asked.stall_timeout or None,
        start="exec",
        stdin_rank=None if attaches or in_background(0) else 0,
        termination_log=last_word,
        **of_both(asked),
    )
    for line in unsaid:
        say.warning(*line)
    for note in notes:
        say.note(note)
    if warning is not None:
        say.warning(warning, "--run-dir DIR, a folder that can be written")
    return spec


def _share(asked: SimpleNamespace, watched: WatchPlan) -> "tuple[Share | None, Sequence[str]]":
    """The part that this node has of an engine over several; null for one that is here alone. Raises `UsageError`."""
    if not {"nnodes", *OF_NODES} & asked.given:
        return None, ()
    from rankguard.cli.watchnodes import share  # no start on one machine waits for it

    return share(asked, watched, OF_NODES, os.environ)


def _tells_readiness(asked: SimpleNamespace) -> bool:
    return any((asked.ready_http, asked.ready_tcp, asked.ready_log, asked.ready_file))


def _attached(asked: SimpleNamespace) -> Found:
    """The process that is there now. Raises `UsageError`."""
    found = named(asked.pid)
    if found is None and is_hidden(asked.pid):
        raise UsageError(
            f"`--pid {asked.pid}`: /proc hides it from us (hidepid)", "the engine's user, or root, may watch it"
        )
    if found is not None and (of := process_of(asked.pid)) != asked.pid:
        raise UsageError(f"`--pid {asked.pid}`: that is a thread of process {of}", f"--pid {of}")
    if found is None:
        raise UsageError(f"`--pid {asked.pid}`: there is no such process", "pgrep -af NAME, or --match REGEX")
    if asked.pid in above(os.getpid()):
        raise UsageError(
            f"`--pid {asked.pid}`: that is rankguard itself, or above it", "the pid of the engine's first process"
        )
    return found


def _check(asked: SimpleNamespace) -> None:
    """What needs an engine that we have started. Raises `UsageError`."""
    instead = "rankguard watch [OPTIONS] -- COMMAND, which starts the engine"
    if asked.ready_log:
        raise UsageError("`--ready-log` needs the engine's output, which is not ours when it is attached to", instead)
    if asked.clean_shm != "report":
        raise UsageError(
            "`--clean-shm` removes what an engine of ours leaves; whose memory this is is not known", instead
        )
    if asked.on_lost == "end":
        raise UsageError("`--on-lost end`: an engine that is attached to is never ended because of us", instead)
    if asked.stall_timeout:
        raise UsageError(
            "`--stall-timeout` needs the engine's output, which is not ours when it is attached to", instead
        )
