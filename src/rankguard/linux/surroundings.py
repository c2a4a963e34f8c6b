"""What this machine is like where it matters for a failure: container, limits, core files, file systems, CPU, Python.

A few dozen small files, read once after a job has failed; nothing is searched for and nothing raises. Not the memory
limits (`memory.py`), the ports (`portuse.py`) or the GPUs' driver (`gpu_program.py`).

Sources: core(5), proc_sys_kernel(5), statvfs(3), getrlimit(2), Documentation/admin-guide/cgroup-v1/pids.rst,
the flags of /proc/cpuinfo as x86's psABI levels use them; venv's `pyvenv.cfg` (PEP 405).
Read next: `../supervisor/survey.py`.
"""

import glob
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from resource import RLIM_INFINITY, RLIMIT_CORE, RLIMIT_NPROC, getrlimit

from rankguard.circumstances import Core, Host, Module, Place
from rankguard.linux.devices import visible_gpus, xpus
from rankguard.linux.files import listed, read_text
from rankguard.linux.hierarchies import Group, own_groups

SHM = "/dev/shm"  # noqa: S108  # the kernel's shared memory, no file of ours
_FLAGS = ("sse4_2", "avx", "avx2", "fma", "bmi2", "avx512f")
"""What builds of numerical libraries for x86-64 are made for: levels 2, 3 and 4 of the psABI."""


def host(env: Mapping[str, str], program: str) -> Host:
    """Of the job: `env` is the ranks' environment, `program` what they execute."""
    groups = own_groups()
    cpu, lacks = _cpu()
    return Host(
        container=_container(env),
        slurm_job=env.get("SLURM_JOB_ID"),
        oom_group=_oom_group(groups),
        core_pattern=(read_text("/proc/sys/kernel/core_pattern") or "").strip() or None,
        core_limit=_limit(RLIMIT_CORE),
        processes_limit=_limit(RLIMIT_NPROC),
        pids=_pids(groups),
        shm=place(SHM),
        cpu=cpu,
        cpu_lacks=lacks,
        gpus=len(visible_gpus(env) or xpus(env)),
        program=program,
        venv=venv_of(program),
        active_venv=env.get("VIRTUAL_ENV") or env.get("CONDA_PREFIX"),
    )


def place(path: str) -> Place | None:
    """The file system that `path` is on, or would be; null when nothing of it can be seen."""
    while not os.path.exists(path):
        above = os.path.dirname(path)
        if above == path:
            return None
        path = above
    try:
        told = os.statvfs(path)
        mount = os.path.realpath(path)
        while not os.path.ismount(mount):
            mount = os.path.dirname(mount)
    except (OSError, ValueError):
        return None
    return Place(path, mount, told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize, told.f_files, told.f_favail)


def core_of(pid: int, cwd: str, since: float) -> Core | None:
    """The core file that a process of ours has written since the time of day `since`, as core_pattern names it (core(5))."""
    pattern = (read_text("/proc/sys/kernel/core_pattern") or "").strip()
    if not pattern or pattern.startswith(("|", "@")):
        return None
    if "%p" not in pattern and (read_text("/proc/sys/kernel/core_uses_pid") or "").strip() != "0":
        pattern += ".%p"
    known = {"p": str(pid), "i": str(pid), "P": str(pid), "I": str(pid), "%": "%"}
    parts = pattern.split("%")
    told = glob.escape(parts[0])
    at = 1
    while at < len(parts):
        letter, rest = parts[at][:1], parts[at][1:]
        if not letter and at + 1 < len(parts):  # `%%`
            told, rest, at = told + "%", parts[at + 1], at + 1
        else:
            told += known.get(letter, "*")
        told, at = told + glob.escape(rest), at + 1
    found = []
    for path in glob.glob(os.path.join(glob.escape(cwd), told)):
        try:
            seen = os.lstat(path)
        except OSError:
            continue
        if seen.st_mtime >= since - 1.0 and seen.st_uid == os.getuid():
            found.append((seen.st_mtime, Core(pid, path, seen.st_blocks * 512)))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def module(name: str, beside: Iterable[str], prefixes: Iterable[str]) -> Module:
    """Whether a file in one of the folders `beside` hides the module, and under which of `prefixes` it is installed."""
    shadows = (f"{folder}/{name}{end}" for folder in beside for end in (".py", "/__init__.py"))
    shadow = next((path for path in shadows if os.path.isfile(path)), None)
    found = next((prefix for prefix in prefixes if _installed(name, prefix)), None)
    return Module(name, shadow, name in sys.stdlib_module_names, found)


def venv_of(python: str) -> str | None:
    """The virtual environment of a Python by its path."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(python)))
    return folder if os.path.isfile(f"{folder}/pyvenv.cfg") else None


def _installed(name: str, prefix: str) -> bool:
    folders = (f"{prefix}/lib/{each}/site-packages" for each in listed(f"{prefix}/lib") if each.startswith("python3"))
    return any(os.path.isdir(f"{each}/{name}") or os.path.isfile(f"{each}/{name}.py") for each in folders)


def _container(env: Mapping[str, str]) -> str | None:
    if "KUBERNETES_SERVICE_HOST" in env:
        return "kubernetes"
    if os.path.exists("/.dockerenv"):
        return "docker"
    return "podman" if os.path.exists("/run/.containerenv") else None


def _oom_group(groups: Mapping[str, Group]) -> bool | None:
    if "v2" not in groups:
        return None
    told = [read_text(f"{path}/memory.oom.group") for path in groups["v2"].upwards()]
    return None if not any(told) else any((text or "").strip() == "1" for text in told)


def _limit(which: int) -> int:
    soft, _hard = getrlimit(which)
    return -1 if soft == RLIM_INFINITY else soft


def _pids(groups: Mapping[str, Group]) -> tuple[int, int] | None:
    """The group in which the fewest processes can still be made."""
    found = []
    for key in ("pids", "v2"):
        for path in groups[key].upwards() if key in groups else ():
            most, now = read_text(f"{path}/pids.max"), read_text(f"{path}/pids.current")
            if most and now and most.strip().isdecimal() and now.strip().isdecimal():
                found.append((int(now), int(most)))
    return min(found, key=lambda pair: pair[1] - pair[0]) if found else None


def _cpu() -> tuple[str | None, tuple[str, ...]]:
    """The CPU's name, and which of the flags that builds ask for it lacks (x86-64 only)."""
    fields: dict[str, str] = {}
    for line in (read_text("/proc/cpuinfo") or "").split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags", "").split()
    lacks = tuple(flag for flag in _FLAGS if flag not in flags) if flags and platform.machine() == "x86_64" else ()
    return fields.get("model name"), lacks
