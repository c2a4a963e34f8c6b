"""`--start auto`: whether ranks are forked of a warm server or executed. In the front, before anything is started.

Warm where it pays and nothing speaks against it; any doubt is exec, and why is told. The server looks again, at what
the modules have really done (`inside/warm.py`). The table of reasons is in docs/warm-start.md.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from rankguard.inside import BOOTSTRAP
from rankguard.inside.imports import used_later
from rankguard.jobspec import JobSpec
from rankguard.launchers.firstimports import FirstImports
from rankguard.launchers.warm import own_names, why_not_warm

HEAVY = 64
"""Python files in the packages that are imported. Fewer are imported sooner in every rank than a server is begun."""
_OF_A_FUNCTION = (
    "rankguard.inside.function",
    "rankguard.inside.this_rank",
    "mmap",
    "pickle",
    "multiprocessing.process",
)
"""What every rank imports to receive its function; without rankguard on its path it finds it by itself."""
_READ_WHEN_CUDA_BEGINS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_WATCHED = {
    "LD_PRELOAD": "a library is loaded before all others",
    "LD_AUDIT": "a library is loaded before all others",
    "CUDA_INJECTION64_PATH": "a profiler is loaded with CUDA",
    "NVTX_INJECTION64_PATH": "a profiler is loaded with CUDA",
    "COVERAGE_PROCESS_START": "coverage is measured",
    "COVERAGE_PROCESS_CONFIG": "coverage is measured",
    "PYTHONPROFILEIMPORTTIME": "imports are timed",
}
_NEVER = {
    "gevent": "replaces parts of the standard library, before others import them",
    "eventlet": "replaces parts of the standard library, before others import them",
    "mpi4py": "joins MPI when it is imported",
    "torch_xla": "may begin its device when it is imported",
    "coverage": "watches the process",
    "ddtrace": "watches the process",
    "debugpy": "watches the process",
    "newrelic": "watches the process",
    "pydevd": "watches the process",
    "viztracer": "watches the process",
}


def decide(spec: JobSpec, functions: Sequence[str] | None = None) -> JobSpec:
    """`auto` made `warm` with what to import, or `exec` with the reason why.

    `functions`: the files that a rank of a function imports, in order; null for a program.
    """
    because = _unlike(spec) or _surroundings(spec.env)
    if because is not None:
        return spec.replace(start="exec", not_warm=because)
    if spec.preload is not None:  # they are named, so nothing is looked for
        return (
            spec.replace(start="warm") if spec.preload else spec.replace(start="exec", not_warm="nothing is preloaded")
        )
    first = FirstImports(_import_path(spec))
    if functions is not None:
        for file in functions:
            first.imported(file)
    elif (words := _words(spec))[0] == "-m":
        first.module(words[1])
    elif os.path.isfile(words[0]):
        first.script(words[0])
    else:
        first.stopped = "it is a folder, or not there"
    because = _modules(first)
    if because is not None:
        return spec.replace(start="exec", not_warm=because)
    ours = () if functions is None else _OF_A_FUNCTION
    return spec.replace(start="warm", preload=(*first.modules, *_used_later(first), *ours), chosen=True)


def _used_later(first: FirstImports) -> list[str]:
    """Unless the program speaks of what these modules read when they are imported: it may set that before it uses them."""
    later = used_later(first.modules, first.names)
    tops = tuple(name.partition(".")[0].upper() for name in later)
    return [] if any(name.startswith(tops) for name in first.names if name.isupper()) else later


def _import_path(spec: JobSpec) -> list[str]:
    """The `sys.path` that the ranks import from, of a program without the folder of its own."""
    if spec.import_path:
        return list(spec.import_path)
    ours = os.path.dirname(os.path.realpath(sys.argv[0])) if sys.argv[:1] and sys.argv[0] else ""
    return [entry for entry in sys.path if entry and entry != ours]  # a command's own folder: bin


def _words(spec: JobSpec) -> Sequence[str]:
    return spec.argv[spec.argv.index(BOOTSTRAP) + 1 :]


def _unlike(spec: JobSpec) -> str | None:
    """The ranks are unlike one another, or unlike us."""
    because = why_not_warm(spec)
    if because is not None:
        return because
    for name in sorted(own_names(spec)):
        if name not in _READ_WHEN_CUDA_BEGINS:
            return f"{name} differs between the ranks"
    if spec.argv[0] != sys.executable:
        return "their Python is not the one that rankguard runs under"
    flags = sys.flags
    if flags.isolated or flags.no_site or flags.ignore_environment or flags.safe_path:
        return "rankguard's own Python was started with options that decide what can be imported"
    for name in sorted({*spec.env, *os.environ}):
        if name.startswith("PYTHON") and name != "PYTHONUNBUFFERED" and spec.env.get(name) != os.environ.get(name):
            return f"{name} is not what rankguard's own Python was started with"
    if sys.gettrace() is not None or sys.getprofile() is not None:
        return "a debugger or profiler watches rankguard itself"
    return None


def _surroundings(env: Mapping[str, str]) -> str | None:
    return next((f"{name} is set: {why}" for name, why in _WATCHED.items() if env.get(name)), None)


def _modules(first: FirstImports) -> str | None:
    tops = list(dict.fromkeys(name.partition(".")[0] for name in first.modules))
    for top in tops:
        if top in _NEVER:
            return f"{top} {_NEVER[top]}"
    if not tops:
        stopped = f"; {first.stopped}" if first.stopped else ""
        return f"the program begins with no import of an installed package{stopped}"
    if not _are_heavy(folder for top in tops for folder in first.folders[top]):
        return f"{', '.join(tops)}: too small for a server to pay"
    return None


def _are_heavy(folders: Iterable[str]) -> bool:
    """Counted until it is enough: some folders of a large package, all of a small one."""
    count, waiting = 0, list(folders)
    while waiting and count < HEAVY:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.endswith(".py"):
                        count += 1
                    elif entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return count >= HEAVY
