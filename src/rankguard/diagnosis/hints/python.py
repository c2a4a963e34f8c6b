"""Hints for what Python programs trip over before or beside their own work: modules, start methods, arguments, files.

Sources of the texts: CPython 3.11 to 3.14 (`multiprocessing/spawn.py`, `context.py`, `import.c`), torch
(`cuda/__init__.py`; issues 38228 and 190489), huggingface_hub (`utils/_errors.py`), glibc's dynamic loader.
"""

from rankguard.circumstances import Module
from rankguard.diagnosis.hints import Row, Told
from rankguard.diagnosis.wants import modules_in
from rankguard.diagnosis.words import clip

_ENDED = ("exception", "exit-code", "reported-failure")
_SAME = ("no", "the same program would fail in the same way")


def _main_guard(told: Told) -> str:
    return (
        'put what starts processes below `if __name__ == "__main__":`, since each new process imports the program first'
    )


def _start_method_twice(told: Told) -> str:
    return "call `set_start_method` once, below the `__main__` guard, or use `multiprocessing.get_context(…)` instead"


def _fork_after_cuda(told: Told) -> str:
    return (
        'start those processes by `spawn` (`get_context("spawn")`, `DataLoader(multiprocessing_context="spawn")`),'
        " or touch CUDA only after the fork"
    )


def _shadowed(told: Told) -> str | None:
    """A file beside the program has the name of the module that was meant."""
    hidden = [each for each in _modules(told) if each.shadow and (each.standard or "is not a package" in told.words)]
    hidden = hidden or [each for each in _modules(told) if each.shadow and "partially initialized" in told.words]
    if not hidden:
        return None
    return f"rename `{hidden[0].shadow}`: it hides the module `{hidden[0].name}`"


def _no_module(told: Told) -> str | None:
    """Which Python ran, and where the module is instead."""
    name, python = modules_in(told.words), told.python
    if not name or python is None or _shadowed(told):
        return None
    found = next((each.found for each in _modules(told) if each.name == name[0]), None)
    if found is not None and found != told.host.venv:
        return f"`{name[0]}` is installed in {found}, but the ranks ran under {python}: use `{found}/bin/python -m rankguard`"
    active = told.host.active_venv
    if active and told.host.venv != active:
        return f"the ranks ran under {python}, not in {active}, which is active: use `{active}/bin/python -m rankguard`"
    where = f"the virtual environment {told.host.venv}" if told.host.venv else "no virtual environment"
    return f"install it for the Python that ran, which is in {where}: `{python} -m pip install {name[0]}`"


def _old_local_rank(told: Told) -> str:
    return "read LOCAL_RANK from the environment: as under torchrun, no rank is given `--local-rank` or `--local_rank`"


def _other_glibc(told: Told) -> str:
    assert told.found is not None
    needs = f"{told.found[1]} {told.found[2]}"
    return f"install a build for this system: the one in use was built for {needs} or newer (`ldd --version` tells what is here)"


def _other_build(told: Told) -> str:
    return "reinstall the package that the message names: it was built for another version of the library that it calls"


def _no_library(told: Told) -> str:
    assert told.found is not None
    return f"install `{told.found[1]}`, or name its folder in LD_LIBRARY_PATH (`ldconfig -p` lists what is found)"


def _gated(told: Told) -> str:
    return "ask for access on the model's page and give the ranks a token that may read it (HF_TOKEN, `huggingface-cli login`)"


def _no_file(told: Told) -> str | None:
    """Only where the path is relative: which folder it was looked for in."""
    assert told.found is not None
    path = told.found[1] or told.found[2]
    if not path or path.startswith("/") or "://" in path:
        return None
    return f"`{clip(path, 80)}` is looked for in {told.case.spec.cwd}: give the whole path, or start there"


def _no_stdin(told: Told) -> str | None:
    if told.case.spec.adopted or told.case.spec.stdin_rank is not None:
        return None
    return f"run again with `--stdin {told.rank.rank}`, which gives it our stdin: it had none to read from"


def _no_debugger(told: Told) -> str | None:
    spec = told.case.spec
    raised = told.cause.exception
    if raised is None or raised.type != "bdb.BdbQuit" or spec.adopted:
        return None
    if told.rank.rank in (spec.debug_rank, spec.stdin_rank):
        return None
    return f"run again with `--debug {told.rank.rank}`: `breakpoint()` found nothing to read from, and quit"


def _python_had_shut_down(told: Told) -> str | None:
    """A thread of torch dropped a tensor after Python had begun to shut down: pytorch issue 190489, as of torch 2.13.

    glibc ends such a thread by unwinding it, and out of a destructor that ends in std::terminate. The same words come from
    any `std::thread` that is not joined, so only where torch is seen. faulthandler may crash on it: then it is SIGSEGV.
    """
    if told.rank.exited is None or not any("torch" in line for line in told.rank.exited.log_tail):
        return None
    return (
        "call `destroy_process_group()` at the end, with `import torch.distributed.nn` before `init_process_group`: likely"
        " a thread of torch still worked when Python shut down (pytorch issue 190489)"
    )


def _modules(told: Told) -> list[Module]:
    wanted = modules_in(told.words)
    return [each for survey in told.case.surveys for each in survey.modules if each.name in wanted]


ROWS = (
    Row(_main_guard, r"before the\s+current process has finished its bootstrapping phase", _ENDED, retry=_SAME),
    Row(_start_method_twice, r"RuntimeError: context has already been set", ("exception",), retry=_SAME),
    Row(_fork_after_cuda, r"Cannot re-initialize CUDA in forked subprocess", _ENDED, retry=_SAME),
    Row(
        _shadowed,
        r"No module named '|partially initialized module|cannot import name|[Mm]odule '\w+' has no attribute",
        ("exception",),
        retry=_SAME,
    ),
    Row(
        _no_module,
        r"(?:^|\n)(?:ModuleNotFoundError|ImportError): No module named '",
        ("exception",),
        retry=("no", "the same Python would miss the same module"),
    ),
    Row(_old_local_rank, r"(?:unrecognized arguments|arguments are required):.*--local[-_]rank", retry=_SAME),
    Row(_other_glibc, r"version `(GLIBC|GLIBCXX|CXXABI)_([\d.]+)' not found", retry=("elsewhere", "another machine may have a newer C library")),
    Row(_other_build, r"undefined symbol: |wrong ELF class|DLL load failed", ("exception", "exit-code"), retry=_SAME),
    Row(_no_library, r"(?:ImportError|OSError|error while loading shared libraries): (lib[\w.+-]+\.so[\w.]*): cannot open shared", retry=_SAME),
    Row(
        _gated,
        r"GatedRepoError|Cannot access gated repo|Access to model \S+ is restricted"
        r"|(?:401|403) Client Error: .*huggingface\.co",
        _ENDED,
        retry=("no", "access would be refused again"),
    ),
    Row(
        _no_file,
        r"(?:FileNotFoundError|NotADirectoryError): (?:\[Errno \d+\] [^:\n]*: '([^'\n]+)'|No such file or directory: \"?([^\"\n]+))",
        ("exception",),
    ),
    Row(_no_stdin, r"^EOFError: EOF when reading a line$", ("exception",)),
    Row(_no_debugger, r"BdbQuit", ("exception",)),
    Row(_python_had_shut_down, r"terminate called without an active exception", ("crash",)),
)  # fmt: skip
