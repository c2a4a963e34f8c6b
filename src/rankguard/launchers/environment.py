"""The environment and the arguments of a rank: torchrun's, exactly, and what rankguard adds.

torchrun's names and rules were read in torch 2.13's `elastic/agent/server` and seen with `env -i`
(`tests/torch/test_parity.py` compares them); what differs is in docs/from-torchrun.md, and why is said here.
"""

from collections.abc import Mapping

from rankguard.jobspec import JobSpec

SIGNALS_TO_HANDLE = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
"""torchrun's default of --signals-to-handle, which it tells its ranks."""
LOCAL_RANK = "${local_rank}"

THIS_RUN = (
    "RANKGUARD_RUN_ID",
    "RANKGUARD_RUN_DIR",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "RANKGUARD_TOKEN",
)
"""What a rank must not inherit from whoever started us: it would speak for another job."""


def rank_environment(spec: JobSpec, rank: int, port: int, notify: str | None, error_file: str | None) -> dict[str, str]:
    """The whole environment of one rank. `rank` is its number on this machine: on one node that is all it has."""
    env = {name: value for name, value in spec.env.items() if name not in THIS_RUN}
    if spec.watch is None:
        env |= _of_torchrun(spec, rank, port, error_file)
    env["RANKGUARD_RUN_ID"] = (spec.share and spec.share.run_id) or spec.run_id
    if spec.run_dir is not None:
        env["RANKGUARD_RUN_DIR"] = spec.run_dir
    if notify is not None:
        env["NOTIFY_SOCKET"] = notify
    if spec.stall_timeout is not None:
        env["WATCHDOG_USEC"] = str(max(1, round(spec.stall_timeout * 1e6)))  # WATCHDOG_PID: `linux/spawn.py`
    if spec.debug_rank not in (None, rank):
        env["PYTHONBREAKPOINT"] = "0"  # only one rank has somebody who would answer
    if spec.python or spec.watch is not None:
        # A killed rank would take its last 8 KiB of output with it, that is, the evidence.
        env.setdefault("PYTHONUNBUFFERED", "1")
    return env | dict(_extra(spec, rank))


def _of_torchrun(spec: JobSpec, rank: int, port: int, error_file: str | None) -> dict[str, str]:
    """What torchrun tells its ranks. An engine that is watched is told nothing: it would take itself for one of them."""
    share = spec.share
    world_rank, size = str(spec.world_rank(rank)), str(spec.nprocs if share is None else share.world_size)
    env = {
        "RANK": world_rank,
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": str(spec.nprocs),
        "GROUP_RANK": str(0 if share is None else share.node),
        "GROUP_WORLD_SIZE": str(1 if share is None else share.count),
        "ROLE_NAME": spec.role,
        "ROLE_RANK": world_rank,
        "ROLE_WORLD_SIZE": size,
        "MASTER_ADDR": spec.master_addr,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RESTART_COUNT": str(spec.attempt),
        "TORCHELASTIC_MAX_RESTARTS": str(spec.max_restarts),
        "TORCHELASTIC_RUN_ID": spec.elastic_id or spec.run_id,
        # No agent hosts a store here: with `True` rank 0 would only be a client and every job would hang.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
    }
    env["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = spec.env.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    env["TORCHELASTIC_SIGNALS_TO_HANDLE"] = spec.env.get("TORCHELASTIC_SIGNALS_TO_HANDLE", SIGNALS_TO_HANDLE)
    if spec.virtual_local_rank:
        env |= {"LOCAL_RANK": "0"} | _own_gpu(spec.env, rank)
    if spec.nprocs > 1:
        env["OMP_NUM_THREADS"] = spec.env.get("OMP_NUM_THREADS", "1")
    if error_file is not None:
        env["TORCHELASTIC_ERROR_FILE"] = error_file
    return env


def rank_argv(spec: JobSpec, rank: int) -> tuple[str, ...]:
    """What one rank executes: torchrun puts the local rank for `${local_rank}` in the words behind the program."""
    if rank == spec.debug_rank and spec.debug_argv:
        spec = spec.replace(argv=spec.debug_argv)
    if not spec.macros or not any(LOCAL_RANK in word for word in spec.argv[1:]):
        return spec.argv
    return (spec.argv[0], *(word.replace(LOCAL_RANK, str(rank)) for word in spec.argv[1:]))


def _own_gpu(env: Mapping[str, str], rank: int) -> dict[str, str]:
    """The rank's GPU as the only one it sees (`--virtual-local-rank`)."""
    from rankguard.linux.devices import visible_ids

    names, ids = visible_ids(env)
    mine = str(rank) if ids is None else ids[rank]
    return dict.fromkeys(names, mine)


def _extra(spec: JobSpec, rank: int) -> Mapping[str, str]:
    return spec.rank_env[spec.world_rank(rank)] if spec.rank_env else {}
