"""What the options ask of this machine: how many ranks `-n auto` is, whether each rank has its GPU and its CPUs.

Looked up before anything starts, so that what is not possible is told at once. Read next: `linux/devices.py`,
`linux/numa.py`, `plan.py`.
"""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

from rankguard.cli.terminal import Said
from rankguard.errors import UsageError
from rankguard.linux import cpus


def count_ranks(text: str, env: Mapping[str, str], root: str = "") -> tuple[int, list[Said]]:
    """The number of ranks that `-n` means, and what is to be said of it. Raises `UsageError`."""
    if text.isdecimal():
        most = cpus.most_processes(root)
        if int(text) > most:
            raise UsageError(
                f"`-n {text}`: expected at most {most} ranks, the processes that this kernel has room for", "-n 8"
            )
        return int(text), []
    from rankguard.linux import devices

    if text == "xpu":
        found = len(devices.xpus(env, root))
        if not found:
            raise UsageError("`-n xpu`: expected an Intel GPU, but none is in `/sys/class/drm`", "-n cpu")
        return found, []
    gpus = len(devices.visible_gpus(env, root)) if text in ("gpu", "auto") else 0
    if gpus:
        return gpus, []
    if text == "gpu":
        raise UsageError(f"`-n gpu`: expected a GPU, but {devices.why_none(env, root)}", "-n cpu")
    usable, quota = cpus.usable_cpus(), cpus.cpu_quota()
    if quota is not None and quota < usable:
        fewer = max(1, int(quota))
        return usable, [
            (f"`-n {text}` is {usable}, but the cgroup allows {quota:g} CPUs' worth of time", f"-n {fewer}")
        ]
    return usable, []


def near(asked: SimpleNamespace, nprocs: int, env: Mapping[str, str], root: str = "") -> Iterator[Said]:
    """Looks whether each rank can have its own GPU and be bound where that is asked for. Raises `UsageError`."""
    if asked.virtual_local_rank:
        _own_gpus(nprocs, env, root)
    if asked.numa_binding is not None:
        yield from _bindings(asked.numa_binding, nprocs, env, root)


def _own_gpus(nprocs: int, env: Mapping[str, str], root: str) -> None:
    from rankguard.linux import devices

    names, ids = devices.visible_ids(env)
    if ids is not None and len(ids) < nprocs:
        listed = f"`{names[0]}={env[names[0]]}`"
        raise UsageError(
            f"`--virtual-local-rank`: expected {nprocs} GPUs in {listed}, one for each rank", f"-n {len(ids)}"
        )
    here = len(devices.visible_gpus(env, root))
    if ids is None and 0 < here < nprocs:
        raise UsageError(
            f"`--virtual-local-rank`: expected {nprocs} GPUs, one for each rank; there {_are(here)}", f"-n {here}"
        )


def _bindings(mode: str, nprocs: int, env: Mapping[str, str], root: str) -> Iterator[Said]:
    from rankguard.linux import numa

    try:
        made = numa.bindings(mode, nprocs, env, root)
    except numa.Impossible as error:
        hint = "--numa-binding node" if mode == "exclusive" else "leave out --numa-binding"
        raise UsageError(f"`--numa-binding {mode}`: {error}", hint) from None
    if made.no_memory is not None:
        yield (
            f"`--numa-binding {mode}`: the kernel lets us choose CPUs, but not memory ({made.no_memory})",
            "docker run --cap-add SYS_NICE, if that is Docker's default seccomp profile",
        )


def _are(count: int) -> str:
    return "is one" if count == 1 else f"are {count}"
