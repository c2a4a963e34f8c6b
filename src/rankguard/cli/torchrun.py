"""torchrun's options of several machines and of its inner workings: what they mean on one machine, here.

Each is followed, or accepted with a line that says why it does nothing, or refused with a hint; none is silently
ignored. What torchrun 2.13 does with each was read in its `distributed/run.py`; docs/from-torchrun.md has the table.
Only words here, nothing is looked up in DNS. Read next: `plan.py`; several machines: `nodes.py`.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from types import SimpleNamespace

from rankguard.cli.terminal import Said
from rankguard.errors import UsageError
from rankguard.record import Record

BACKENDS = ("static", "c10d")
NOBODY = "on one machine there is nobody to meet"
_OF_SEVERAL = ("rdzv_conf", "join_timeout", "node_timeout", "orphan_timeout", "ray_address", "resources")


class Meeting(Record):
    """Where the ranks meet, and under which name. `port` null: a free one."""

    addr: str
    port: int | None
    elastic_id: str | None


def placed(asked: SimpleNamespace, env: Mapping[str, str]) -> str | None:
    """How several nodes come: they `join`, or `ray` places them; null: the ranks run here. Raises `UsageError` for a number of nodes that has no meaning."""
    least, most = asked.nnodes
    if least != most:
        raise UsageError(
            f"`{as_given(asked, 'nnodes')}`: expected one number; a job keeps the size that it was asked for",
            f"--nnodes {most}",
        )
    if asked.on == "ray":
        return "ray"
    if most == 1:
        return None
    named = {"rdzv_endpoint", "master_addr", "node_rank"} & asked.given
    return "ray" if asked.on is None and env.get("RAY_ADDRESS") and not named else "join"


def one_machine(asked: SimpleNamespace) -> None:
    """Refuses what makes no sense on one machine. Raises `UsageError`."""
    if asked.node_rank not in (None, 0) and not _meets_by_itself(asked):
        raise UsageError(
            f"`{as_given(asked, 'node_rank')}`: expected 0, as there is one node",
            f"--nnodes {asked.node_rank + 1}, with --rdzv-endpoint HOST:PORT",
        )
    if asked.rdzv_backend not in BACKENDS and not asked.standalone:
        raise UsageError(
            f"`{as_given(asked, 'rdzv_backend')}`: expected {' or '.join(BACKENDS)}; {NOBODY}",
            "--rdzv-backend c10d",
        )


def refuse(asked: SimpleNamespace) -> None:
    """What is refused in any case. Raises `UsageError`."""
    if asked.logs_specs not in (None, "default"):
        raise UsageError(
            f"`{as_given(asked, 'logs_specs')}`: expected default; a class of torch's cannot direct our output",
            "--log-dir DIR, --redirects, --tee, --log-format",
        )


def meeting(asked: SimpleNamespace) -> Meeting:
    """MASTER_ADDR, MASTER_PORT and TORCHELASTIC_RUN_ID, as torchrun would choose them on one machine."""
    elastic_id = asked.rdzv_id or None
    if _meets_by_itself(asked):
        return Meeting(asked.local_addr or "127.0.0.1", None, elastic_id)
    if asked.rdzv_endpoint is not None:
        return Meeting(asked.rdzv_endpoint.host, asked.rdzv_endpoint.port, elastic_id)
    addr = asked.master_addr
    if asked.master_port is None and asked.local_addr is not None and "master_addr" not in asked.given:
        addr = asked.local_addr
    return Meeting(addr, asked.master_port, elastic_id)


def without_effect(asked: SimpleNamespace, nprocs: int) -> Iterator[Said]:
    """A note for each option that was given and does nothing, a warning for what is surely not meant.

    `nprocs`: ranks of this node. Not what has no effect on one machine alone: `alone`.
    """
    for field, why in _unused_inside(asked):
        yield f"`{as_given(asked, field)}` has no effect: {why}"
    for field in ("redirects", "tee"):
        beyond = getattr(asked, field).beyond(nprocs)
        if beyond:
            yield f"`{as_given(asked, field)}`: there is no rank {beyond[0]}", _ranks_are(nprocs)
    missing = [rank for rank in asked.local_ranks_filter if rank >= nprocs]
    if missing:
        shown = "" if len(missing) < len(asked.local_ranks_filter) else "; no rank is shown"
        yield f"`{as_given(asked, 'local_ranks_filter')}`: there is no rank {missing[0]}{shown}", _ranks_are(nprocs)
    if os.environ.get("TORCHELASTIC_ENABLE_FILE_TIMER") == "1":
        yield "`TORCHELASTIC_ENABLE_FILE_TIMER=1` has no effect: there is no timer server", "--ready-timeout S"


def alone(asked: SimpleNamespace) -> Iterator[Said]:
    """A note for each option of several machines that was given and does nothing on one."""
    unused = [(field, NOBODY) for field in _OF_SEVERAL if field in asked.given and getattr(asked, field) != ""]
    for field, why in (*_unused_to_meet(asked), *unused):
        yield f"`{as_given(asked, field)}` has no effect: {why}"


def not_kept(asked: SimpleNamespace, nprocs: int, run_dir: str | None) -> Said | None:
    """Streams that are kept off the terminal, and in no file either."""
    hidden = [rank for rank in range(nprocs) if asked.redirects.of(rank) & ~asked.tee.of(rank)]
    if not hidden or (run_dir is not None and asked.log_max > 0):
        return None
    why = "no files are kept of this run" if run_dir is None else "`--log-max 0` keeps none"
    hint = "--run-dir DIR" if run_dir is None else "leave out --log-max"
    return f"`{as_given(asked, 'redirects')}`: what it keeps off the terminal is in no file; {why}", hint


def as_given(asked: SimpleNamespace, field: str) -> str:
    """How the option was written; what may hold a password by its name only."""
    written = str(asked.written.get(field, f"--{field.replace('_', '-')}"))
    return written.replace("=", " ").split()[0] if field == "rdzv_conf" else written


def names_us(host: str) -> bool:
    """Whether that is this machine's name, or an address of it. Nothing is looked up."""
    if host in ("localhost", socket.gethostname(), socket.gethostname().partition(".")[0]):
        return True
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))  # an address that is not ours cannot be bound to
    except OSError:
        return False
    return True


def _unused_to_meet(asked: SimpleNamespace) -> Iterator[tuple[str, str]]:
    """Of the options that say where nodes meet: the fields that do nothing, and why."""
    given = asked.given
    endpoint = asked.rdzv_endpoint
    if _meets_by_itself(asked):
        by = "--standalone" if asked.standalone else "--rdzv-backend c10d"
        if endpoint is not None and endpoint.port is not None and not names_us(endpoint.host):
            yield "rdzv_endpoint", NOBODY
        for field in ("master_addr", "master_port"):
            if field in given:
                yield field, f"`{by}` chooses a free port of this machine, as under torchrun"
        if asked.node_rank:
            yield "node_rank", NOBODY
        if asked.rdzv_backend not in BACKENDS:
            yield "rdzv_backend", NOBODY
    elif endpoint is not None:
        for field, mine in (("master_addr", endpoint.host), ("master_port", endpoint.port)):
            if field in given and getattr(asked, field) != mine:
                yield field, f"`{as_given(asked, 'rdzv_endpoint')}` goes before it"
    if "local_addr" in given and meeting(asked).addr != asked.local_addr:
        yield "local_addr", "MASTER_ADDR is given, and goes before it"


def _unused_inside(asked: SimpleNamespace) -> Iterator[tuple[str, str]]:
    """Of the options that say how torchrun itself works."""
    if "monitor_interval" in asked.given:
        yield "monitor_interval", "the kernel tells when a rank ends, nothing is polled"
    if "start_method" in asked.given:
        yield "start_method", "`--start` says how ranks come to be"
    if asked.event_log_handler not in (None, "null"):
        yield "event_log_handler", "every event is in the run's `events.jsonl`"
    if asked.log_dir is not None and asked.run_dir is not None:
        yield "log_dir", "`--run-dir` goes before it"


def _meets_by_itself(asked: SimpleNamespace) -> bool:
    """Torchrun's own store on a free port: no address or port that is given plays a part."""
    return bool(asked.standalone or asked.rdzv_backend == "c10d")


def _ranks_are(nprocs: int) -> str:
    return f"ranks are 0 to {nprocs - 1}" if nprocs > 1 else "the only rank is 0"
