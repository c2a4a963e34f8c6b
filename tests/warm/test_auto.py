"""`--start auto`: warm where it pays and nothing speaks against it, else executed, with the reason in the journal."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.warm.conftest import Warm, notes

from rankguard.launchers.auto import HEAVY

PRINTS = "import big\nprint(big.__name__)\n"


@pytest.fixture
def auto(warm: Warm) -> Warm:
    """A package that is large enough, `big`; modules in it that hold a program's text."""
    folder = warm.packages / "big"
    folder.mkdir()
    for number in range(HEAVY):
        (folder / f"part{number}.py").write_text("")
    (folder / "__init__.py").write_text("")
    return warm


def begin(warm: Warm, text: str) -> None:
    (warm.packages / "big/__init__.py").write_text(text)


def run(warm: Warm, text: str, *options: str, n: int = 2) -> tuple[str, str]:
    """How the ranks were started, and the notes of the journal."""
    ended = warm.run(n, text, *options, start="auto")
    assert ended.status == 0, ended.stderr
    return ended.verdict["start"], notes(ended)


def test_a_large_package_at_the_beginning(auto: Warm) -> None:
    start, said = run(auto, "import sys\n" + PRINTS)

    assert (start, "has imported big" in said) == ("warm", True)


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("import small", "small: too small for a server to pay"),
        ("import json", "begins with no import of an installed package"),
        ("os.environ['X'] = '1'\n" + PRINTS, "program.py:3 runs before"),
        ("import big.gone\n", ""),
        ("import mpi4py\n" + PRINTS, "mpi4py joins MPI when it is imported"),
    ],
)
def test_why_a_program_is_executed(auto: Warm, text: str, because: str) -> None:
    for name in ("small", "mpi4py"):
        auto.package(name, "")
    (auto.packages / "big/gone.py").write_text("")

    start, said = run(auto, text)

    assert (start, because in said) == ("exec" if because else "warm", True), said


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "there are 2 threads"),
        ("import os\npid = os.getpid()", "big reads the process id when it is imported"),
        ("import os\nif 'RANK' not in os.environ: raise ValueError", "importing big raised ValueError"),
        ("import multiprocessing\nlock = multiprocessing.Lock()", "memory is shared with whatever is forked"),
        ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 1000)", "a timer runs"),
    ],
)  # fmt: skip
def test_why_a_module_makes_it_executed(auto: Warm, text: str, because: str) -> None:
    begin(auto, text)

    start, said = run(auto, PRINTS)

    assert (start, because in said) == ("exec", True), said


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_START is set: coverage is measured"),
        ("CUDA_INJECTION64_PATH", "CUDA_INJECTION64_PATH is set: a profiler"),
        ("PYTHONPROFILEIMPORTTIME", "imports are timed"),
    ],
)
def test_an_environment_that_decides(auto: Warm, name: str, because: str) -> None:
    auto.env[name] = "1"

    start, said = run(auto, PRINTS)

    assert (start, because in said) == ("exec", True), said


@pytest.mark.parametrize(
    ("options", "n", "start"),
    [
        ((), 1, "exec"),
        (("--preload", "none"), 2, "exec"),
        (("--preload", "small"), 2, "warm"),
        (("--numa-binding", "node"), 2, "exec"),
    ],
)
def test_options_that_decide(auto: Warm, options: tuple[str, ...], n: int, start: str) -> None:
    auto.package("small", "")

    assert run(auto, PRINTS, *options, n=n)[0] == start


def test_another_python(auto: Warm) -> None:
    wrapper = auto.packages / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    auto.env["PYTHON_EXEC"] = str(wrapper)

    assert "their Python is not the one that rankguard runs under" in run(auto, PRINTS)[1]


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("kept = open('/dev/zero')", "before anything is imported /dev/zero is open"),
        ("import os, sys\n'RANKGUARD_WARM' in os.environ and sys.settrace(lambda *what: None)", "is traced"),
        ("import sys\nsys.setprofile(lambda *what: None)", "a debugger or profiler watches rankguard itself"),
    ],
)
def test_what_the_interpreter_does_at_its_start(auto: Warm, text: str, because: str) -> None:
    """`sitecustomize`, as monitoring and coverage use it."""
    auto.package("sitecustomize", text)

    start, said = run(auto, PRINTS)

    assert (start, because in said) == ("exec", True), said


def test_a_package_that_imports_what_lies_beside_the_program(auto: Warm) -> None:
    """`datasets` beside a script hides the installed one from everybody, as it does when the script is executed."""
    auto.package("shadowed", "where = 'installed'")
    (auto.ranks.folder / "shadowed.py").write_text("where = 'own'")
    begin(
        auto, "import shadowed, sys, __main__\nwhere = shadowed.where, sys.argv[0], getattr(__main__, '__file__', None)"
    )
    told = {}
    for start in ("exec", "auto"):
        ended = auto.run(
            2, PRINTS + "import shadowed, sys\nprint(*big.where, shadowed.where, sys.path[:2])", start=start
        )
        assert ended.status == 0, ended.stderr
        assert ended.verdict["start"] == ("warm" if start == "auto" else "exec"), notes(ended)
        told[start] = sorted(ended.stdout.splitlines())

    assert told["auto"] == told["exec"]


def test_a_module_by_its_name(auto: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = auto.ranks.folder / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("import big")
    (pack / "train.py").write_text("import big.part0, sys\nprint(__spec__.name, sys.argv[1:], sys.path[0])")
    monkeypatch.chdir(auto.ranks.folder)
    told = {}
    for start in ("exec", "auto"):
        ended = auto.ranks.words(["-n", "2", "--start", start, "-m", "pack.train", "x"], env=auto.env)
        assert ended.status == 0, ended.stderr
        assert ended.verdict["start"] == ("warm" if start == "auto" else "exec"), notes(ended)
        told[start] = sorted(ended.stdout.splitlines()), ended.stderr.count("Warning")

    assert told["auto"] == told["exec"]


def test_a_function(auto: Warm) -> None:
    caller = auto.ranks.folder / "caller.py"
    caller.write_text(
        "import big\nimport rankguard\n"
        "def work(rank):\n    rank.ready(big.__name__)\n"
        "if __name__ == '__main__':\n"
        "    with rankguard.launch(work, nprocs=2) as job:\n"
        "        print(job.wait_ready(timeout=30), job.wait().start)\n"
    )
    ended = subprocess.run([sys.executable, str(caller)], env=auto.env, capture_output=True, text=True, check=False)

    assert ended.stdout == "['big', 'big'] warm\n", ended.stderr


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize(("answer", "start"), [(3, "warm"), (0, "exec")])
def test_the_cuda_driver_is_asked(auto: Warm, answer: int, start: str) -> None:
    """A library of the driver's name: 3 is CUDA_ERROR_NOT_INITIALIZED, 0 the count's success."""
    library = auto.packages / "libcuda.so.1"
    source = auto.packages / "cuda.c"
    source.write_text(f"int cuDeviceGetCount(int *count) {{ *count = 1; return {answer}; }}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)], check=True)
    begin(auto, f"import ctypes\nlibrary = ctypes.CDLL({str(library)!r})")

    found, said = run(auto, PRINTS)

    assert found == start, said
    assert ("after importing big the CUDA driver is initialised" in said) is (start == "exec")


def test_a_thread_that_a_fork_begins(auto: Warm) -> None:
    """Code that runs at a fork (`os.register_at_fork`) is looked after, too: the ranks after it are executed."""
    begin(
        auto,
        "import os, threading\n"
        "def begin(): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "os.register_at_fork(after_in_parent=begin)\n",
    )

    ended = auto.run(3, PRINTS, start="auto")

    assert ended.status == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3
    assert "unable to fork: there are 2 threads" in notes(ended)


def test_programs_that_use_multiprocessing(auto: Warm) -> None:
    text = (
        "import big, multiprocessing as mp\n"
        "def work(queue, x): queue.put((x, big.__name__))\n"
        "if __name__ == '__main__':\n"
        "    for method in ('fork', 'spawn', 'forkserver'):\n"
        "        context = mp.get_context(method)\n"
        "        queue = context.Queue()\n"
        "        child = context.Process(target=work, args=(queue, method))\n"
        "        child.start(); print(*queue.get()); child.join()\n"
    )
    ended = auto.run(2, text, start="auto")

    assert ended.verdict["start"] == "warm", notes(ended)
    assert ended.status == 0, ended.stderr
    assert sorted(ended.stdout.splitlines()) == sorted(
        f"[{rank}] {method} big" for rank in (0, 1) for method in ("fork", "spawn", "forkserver")
    )


def test_the_journal_says_it_to_whoever_asks(auto: Warm) -> None:
    ended = auto.run(2, "import json", "-v", start="auto")

    assert "ranks are executed, each anew: the program begins with no import" in ended.stderr
    assert Path(ended.folder / "verdict.json").exists()


def test_who_asks_for_it_gets_it(auto: Warm) -> None:
    """With nothing to import a fork still costs less than an interpreter."""
    ended = auto.run(2, "print('here')", start="warm")

    assert (ended.verdict["start"], "has imported nothing" in notes(ended)) == ("warm", True)


def test_a_module_may_make_a_temporary_file(auto: Warm) -> None:
    """tempfile looks at the process id to notice a fork."""
    begin(auto, "import tempfile\ntempfile.gettempdir()")

    start, said = run(auto, PRINTS)

    assert start == "warm", said


@pytest.mark.parametrize(
    ("uses", "preloaded"),
    [
        ("torch.ones", False),
        ("torch.optim.SGD", True),
        ("torch.optim.SGD, os.environ.setdefault('TORCHDYNAMO_DISABLE', '1')", False),
        ("torch.optim.SGD, os.environ.setdefault('TORCH_LOGS', 'all')", False),
    ],
)
def test_what_torch_imports_when_it_is_used(auto: Warm, uses: str, preloaded: bool) -> None:
    """Before the program has said how: then it is left to the ranks."""
    shutil.copytree(auto.packages / "big", auto.packages / "torch")
    (auto.packages / "torch/_dynamo").mkdir()
    (auto.packages / "torch/_dynamo/__init__.py").write_text("")

    start, said = run(auto, f"import torch\ndef train():\n    {uses}\n")

    assert (start, "torch._dynamo" in said) == ("warm", preloaded)
