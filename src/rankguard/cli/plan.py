"""The parsed arguments of `rankguard run` → the job that is asked for. No process is started here."""

import os
import shlex
import stat
import sys
from types import SimpleNamespace
from typing import Any

from rankguard import inside
from rankguard.cli import machine, torchrun
from rankguard.cli.editor import followed
from rankguard.cli.lastword import last_word_of
from rankguard.cli.options import BY_FIELD
from rankguard.cli.terminal import Hands, Said, hands
from rankguard.cli.values import Streams
from rankguard.errors import UsageError
from rankguard.jobspec import JobSpec
from rankguard.launchers.environment import SIGNALS_TO_HANDLE
from rankguard.linux.files import is_noexec
from rankguard.spec import job_spec, settled

SHUTDOWN_TIMEOUT = 30.0


def plan(asked: SimpleNamespace, *, follows: bool = False) -> tuple[JobSpec, list[Said]]:
    """The job, and what is to be said before it starts. `follows`: it joins a node 0 that is on this machine, too.

    Raises `UsageError` and `SpawnFailed`.
    """
    torchrun.refuse(asked)
    on = torchrun.placed(asked, os.environ)
    if on is None:
        torchrun.one_machine(asked)
    else:
        from rankguard.cli import nodes as several  # no start on one machine waits for it

        several.refuse(asked, on)
    here, said = machine.count_ranks(asked.nproc_per_node, os.environ)
    said += torchrun.without_effect(asked, here)
    said += machine.near(asked, here, os.environ) if on != "ray" else ()
    argv, python = rank_command(asked)
    said += _another_language(asked) if python else []
    fields = of_both(asked)
    hidden = _hidden(asked, here)
    if on is None:
        said += torchrun.alone(asked)
        nprocs, meeting, hand = here, torchrun.meeting(asked), hands(asked, here, hidden)
    else:
        nodes = several.nodes(asked, on, here, os.environ, follows)
        said += nodes.said
        nprocs, meeting = here * nodes.shown, nodes.meeting
        hand = Hands(None, None, hidden * nodes.shown, asked.ready_timeout, asked.stall_timeout or None)
        fields |= several.fields(nodes)
    last_word, unsaid = last_word_of(asked.termination_log)
    spec, warning = job_spec(
        command=[asked.program, *asked.args],
        argv=argv,
        nprocs=nprocs,
        role=asked.role,
        python=python,
        expect_ready=asked.ready_timeout is not None,
        ready_timeout=hand.ready_timeout,
        stall_timeout=hand.stall_timeout,
        max_restarts=asked.max_restarts,
        restart_window=asked.restart_window,
        restart_delay=asked.restart_delay,
        elastic_id=meeting.elastic_id,
        macros=True,
        start=asked.start,
        preload=_preload(asked.preload),
        env=_told(asked),
        filters=(asked.duplicate_stdout_filters, asked.duplicate_stderr_filters),
        prefix=_prefix(asked),
        hidden=hand.hidden,
        stdin_rank=hand.stdin,
        debug_rank=hand.debug,
        debug_argv=followed(argv) if python and hand.debug is not None else (),
        virtual_local_rank=asked.virtual_local_rank,
        numa_binding=asked.numa_binding,
        master_addr=meeting.addr,
        master_port=meeting.port,
        termination_log=last_word,
        **fields,
    )
    said += unsaid
    if warning is not None and spec.run_dir is not None:
        said.append(warning)
    elif warning is not None and asked.log_dir != os.devnull:  # which is torchrun's way to ask for no files
        said.append((warning, "--run-dir DIR, a folder that can be written"))
    said += filter(None, [torchrun.not_kept(asked, here, spec.run_dir)])
    if spec.nodes is not None:
        spec = spec.replace(elastic_id=spec.elastic_id or spec.run_id)
    return settled(spec, here=here), said + list(hand.said)


def of_both(asked: SimpleNamespace) -> dict[str, Any]:
    """What `run` and `watch` take alike (`options.SHARED`), as fields of the job. Raises `UsageError`."""
    return {
        "sample": asked.sample,
        "grace": asked.grace,
        "shutdown_timeout": _shutdown_timeout(asked),
        "run_dir": asked.run_dir,
        "http": asked.http,
        "log_dir": asked.log_dir,
        "log_max": asked.log_max,
        "log_format": asked.log_format,
        "color": not (asked.no_color or os.environ.get("NO_COLOR")),
        "console": "stderr" if asked.report == "json" else "prefix",
        "labels": dict(asked.label),
        "redact": asked.redact,
        "verbose": asked.verbose and not asked.quiet,
        "exit_codes": asked.exit_codes,
        "clean_shm": asked.clean_shm,
    }


def _preload(asked: str) -> tuple[str, ...] | None:
    return None if asked == "auto" else () if asked == "none" else tuple(filter(None, asked.split(",")))


# ── Ranks ────────────────────────────────────────────────────────────────────────────────────────────────────────


def rank_command(asked: SimpleNamespace) -> tuple[list[str], bool]:
    """What every rank executes, and whether it is Python under our bootstrap.

    A file that is not there is executed as it is, so that the kernel says so, before anything of Python is started.
    """
    python = [os.environ.get("PYTHON_EXEC") or sys.executable, "-u", inside.BOOTSTRAP]  # both as torchrun has them
    if asked.module:
        for other in ("no_python", "run_path"):
            if getattr(asked, other):
                option = BY_FIELD[other].name
                raise UsageError(f"`--module {option}`: expected one of the two", f"--module or {option}")
        return [*python, "-m", asked.program, *asked.args], True
    found = "python" if asked.run_path else _kind(asked.program)
    if found != "python" or (asked.no_python and not asked.run_path):  # torchrun: --run-path goes before --no-python
        path = asked.program
        if "/" not in path and found == "executable" and not _on_path(path):
            path = f"./{path}"
        return [path, *asked.args], False
    return [*python, asked.program, *asked.args], True


def _on_path(name: str) -> bool:
    from shutil import which  # only for the few programs that lie in the current folder

    return which(name) is not None


def _kind(program: str) -> str:
    try:
        mode = os.stat(program).st_mode
    except OSError:
        return "missing"
    if stat.S_ISDIR(mode) or program.endswith(".py"):
        return "python"
    if os.access(program, os.X_OK):
        return "executable"
    # With `noexec` no x bit counts: the kernel shall say so of what is no Python, not Python's parser.
    return "executable" if mode & 0o111 and is_noexec(program) and _another_interpreter(program) else "python"


def _another_language(asked: SimpleNamespace) -> list[Said]:
    """`run.sh` without its x bit runs under Python, as with torchrun, and ends with a puzzling SyntaxError."""
    path = asked.program
    if asked.module or asked.run_path or path.endswith(".py") or not _another_interpreter(path):
        return []
    return [(f"`{path}` is not executable, so it runs under Python", f"chmod +x {shlex.quote(path)}")]


def _another_interpreter(path: str) -> bool:
    """Its first line names one, and it is no Python."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as program:
            first = program.readline(256)
    except OSError:
        return False
    return first.startswith(b"#!") and b"py" not in first


# ── Output ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _hidden(asked: SimpleNamespace, nprocs: int) -> tuple[int, ...]:
    """For each rank the streams that the terminal does not show, as bits; empty when it shows all."""
    redirects: Streams = asked.redirects
    tee: Streams = asked.tee
    shown = frozenset(asked.local_ranks_filter) or range(nprocs)
    hidden = tuple(
        redirects.of(rank) & ~tee.of(rank) if rank in shown else 3 for rank in range(nprocs)
    )  # fmt: skip
    return hidden if any(hidden) else ()


def _prefix(asked: SimpleNamespace) -> str | None:
    """Torchrun 2.13 has the template as a variable, later versions as an option too."""
    if asked.log_line_prefix_template is not None:
        return str(asked.log_line_prefix_template)
    return os.environ.get("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE") or None


# ── torchrun's habits ────────────────────────────────────────────────────────────────────────────────────────────


def _shutdown_timeout(asked: SimpleNamespace) -> float:
    """What was asked, or what torchrun's variable says. Raises `UsageError`."""
    if asked.shutdown_timeout is not None:
        return float(asked.shutdown_timeout)
    text = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    if text is None:
        return SHUTDOWN_TIMEOUT
    try:
        return float(BY_FIELD["shutdown_timeout"].parse(text))
    except ValueError as error:
        said = f"`TORCH_ELASTIC_SHUTDOWN_TIMEOUT={text}`: expected {error}"
        raise UsageError(said, "unset TORCH_ELASTIC_SHUTDOWN_TIMEOUT") from None


def _told(asked: SimpleNamespace) -> dict[str, str]:
    """What torchrun tells its ranks of its own options, whatever they inherit."""
    return {"TORCHELASTIC_SIGNALS_TO_HANDLE": asked.texts.get("signals_to_handle", SIGNALS_TO_HANDLE)}
