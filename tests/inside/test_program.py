"""A rank's program finds what plain `python` would have given it: each probe is run both ways and compared."""

import compileall
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.inside import harness
from tests.inside.harness import BOOTSTRAP, HANGS, Supervisor, environment, outcome, python, rank

SEE = """
import sys, os, __main__
names = {k: v for k, v in vars(__main__).items() if k not in ('sys', 'os', '__builtins__', '__loader__', '__spec__')}
print(list(vars(__main__)))
print(names)
print(__builtins__ is sys.modules['builtins'], type(__loader__).__module__, type(__loader__).__name__)
print(getattr(__loader__, 'path', None), getattr(__loader__, 'name', None))
print(__spec__ and (__spec__.name, __spec__.origin, __spec__.parent, __spec__.cached))
print(sys.argv, sys.path, sys.flags, os.getcwd(), __name__)
print(__main__ is sys.modules['__main__'], vars(__main__) is globals())
print(sorted(sys._xoptions.items()), sys.warnoptions, sys.getrecursionlimit(), sys.gettrace(), sys.excepthook)
"""

SCRIPTS = {
    "see": SEE,
    "docstring": '"""The doc."""\nprint(__doc__, __annotations__)',
    "annotated": "x: int = 1\nprint(__annotations__)",
    "future": "print(eval('1')); import sys\ndef f(a: undefined): pass" if sys.version_info >= (3, 14) else "print(1)",
    "exit_none": "import sys; sys.exit()",
    "exit_7": "import sys; sys.exit(7)",
    "exit_300": "import sys; sys.exit(300)",
    "exit_text": "import sys; print('out'); sys.exit('went wrong')",
    "exit_object": "raise SystemExit({'a': 1})",
    "os_exit": "import os; os._exit(9)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupted": "raise KeyboardInterrupt",
    "interrupted_subclass": "class Mine(KeyboardInterrupt): pass\nraise Mine",
    "ctrl_c": "import os, signal, threading\nos.kill(os.getpid(), signal.SIGINT)\nthreading.Event().wait()",
    "interrupted_hook": "import sys, atexit\nsys.excepthook = h = lambda *a: print('hook', a)\n"
    "atexit.register(lambda: print(sys.excepthook is h, sys.last_type, sys.last_traceback.tb_next))\nraise KeyboardInterrupt",
    "raises": "def inner():\n    return 1 / 0\ndef outer():\n    inner()\n\nouter()",
    "raises_chained": "try:\n    {}['a']\nexcept KeyError as e:\n    raise OSError(2, 'gone') from e",
    "raises_in_except": "try:\n    {}['a']\nexcept KeyError as e:\n    [][1]",
    "raises_group": "raise ExceptionGroup('two', [ValueError('a'), ExceptionGroup('deep', [OSError(5, 'io')])])",
    "raises_base": "class Mine(BaseException): pass\nraise Mine('x')",
    "raises_notes": "e = ValueError('a'); e.add_note('note'); raise e",
    "raises_bad_str": "class Mine(Exception):\n    def __str__(self): raise ValueError\nraise Mine",
    "raises_no_tb": "e = ValueError('a')\nraise e.with_traceback(None)",
    "raises_in_library": "import json\njson.loads('{')",
    "raises_import": "import no_such_module_anywhere",
    "raises_generator_exit": "raise GeneratorExit",
    "raises_stop": "next(iter(()))",
    "stdout_first": "import sys\nsys.stdout.write('partial'); print('e', file=sys.stderr); 1/0",
    "recursion": "def f(): f()\nf()",
    "syntax": "x = = 1\n",
    "syntax_indent": "if 1:\nprint(2)\n",
    "syntax_tab": "if 1:\n\tx\n        y\n",
    "syntax_in_import": "import bad_syntax",
    "syntax_unclosed": "f(\n",
    "syntax_nonlocal": "def f():\n  nonlocal x\n",
    "syntax_unicode": "print('é' ?)",
    "syntax_warning": "x = '\\d'\nprint(x is 1)\n",
    "latin1": "# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))".encode("latin-1"),
    "bom": b"\xef\xbb\xbfprint(ascii('\xc3\xa9'))",
    "crlf": b"print(1)\r\nprint('''a\r\nb''')\r\n",
    "no_newline": "print(1)",
    "empty": "",
    "hook": "import sys\ndef hook(t, v, tb): print('hook', t, v, tb.tb_frame.f_code.co_name, tb.tb_lineno)\nsys.excepthook = hook\n1/0",
    "hook_deleted": "import sys\ndel sys.excepthook\n1/0",
    "hook_exits": "import sys\nsys.excepthook = lambda *a: sys.exit(5)\n1/0",
    "hook_none": "import sys\nsys.excepthook = None\n1/0",
    "last": "import sys, atexit\natexit.register(lambda: print(sys.last_type, sys.last_value, sys.last_traceback.tb_lineno,"
    " getattr(sys, 'last_exc', None), sys.last_traceback.tb_frame.f_code.co_filename == sys.argv[0]))\n1/0",
    "atexit": "import atexit, __main__\natexit.register(lambda: print(sorted(vars(__main__))))\nprint('end')",
    "atexit_raises": "import atexit\natexit.register(lambda: 1/0)\nprint('end')",
    "atexit_after_error": "import atexit, __main__\natexit.register(lambda: print(sorted(vars(__main__))))\n1/0",
    "atexit_after_exit": "import atexit, __main__\natexit.register(lambda: print(sorted(vars(__main__))))\nraise SystemExit(3)",
    "thread": "import threading\nt = threading.Thread(target=lambda: (threading.main_thread().join(), print('late')))\nt.start()\nprint('end')",
    "thread_error": "import threading\nt = threading.Thread(target=lambda: 1/0, name='T'); t.start(); t.join()\nprint('on')",
    "thread_after_error": "import threading\nt = threading.Thread(target=lambda: (threading.main_thread().join(), print('late')))\nt.start()\n1/0",
    "closed_stdout": "import sys; sys.stdout.close(); print('x', file=sys.stderr)",
    "closed_stderr": "import sys; sys.stderr.close(); 1/0",
    "no_stderr": "import sys; sys.stderr = None; 1/0",
    "source": "import inspect, __main__\ndef f():\n    return 1\nclass C:\n    a = 1\nprint(inspect.getsource(f), inspect.getsource(C), inspect.getsource(__main__), inspect.getfile(C))",
    "pickled": "import pickle\nclass C: pass\ndef f(): pass\nprint(pickle.dumps(f), type(pickle.loads(pickle.dumps(C()))))",
    "warning": "import warnings\ndef f(): warnings.warn('old', DeprecationWarning, stacklevel=2)\nf()",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nprint(A(1), __annotations__)",
    "signals": "import signal\nprint([signal.getsignal(s) for s in (2, 15, 13, 25)], signal.pthread_sigmask(0, []))",
    "fds": "import os\nprint(os.open('/dev/null', 0), [f for f in os.listdir('/proc/self/fd') if int(f) < 64])",
    "import_main": "import __main__, sys\nprint(__main__.__file__ == sys.argv[0], __main__.sys is sys)",
    "typing": "import typing\nclass A:\n    b: 'B'\nclass B: pass\nprint(typing.get_type_hints(A))",
    "unittest": "import unittest\nclass T(unittest.TestCase):\n    def test(self): pass\nprint(unittest.main(exit=False).result)",
    "doctest": "'''\n>>> f()\n1\n'''\nimport doctest\ndef f(): return 1\nprint(doctest.testmod())",
    "subprocess": "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout)",
    "modules": "import sys, __main__\nprint([m for m in ('runpy', 're', 'json', 'socket', 'traceback', 'importlib.util', 'rankguard') if m in sys.modules])",
}  # fmt: skip

SPAWN = """
import multiprocessing, sys
TABLE = {'x': 1}
def work(q, n):
    import __main__
    q.put((n, __name__, __main__.__name__, __main__.TABLE, sys.argv, sys.path[0], __main__.__file__))
if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        context = multiprocessing.get_context(method)
        q = context.Queue()
        p = context.Process(target=work, args=(q, method))
        p.start(); print(q.get()); p.join(); print(p.exitcode)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        print(pool.map(len, ['ab']))
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        print(pool.submit(divmod, 7, 2).result())
"""


def both(arguments, cwd, *, flags=(), **more):
    """The outcome of plain Python and of the rank."""
    with Supervisor() as supervisor:
        env = environment(supervisor)
        done = (
            python(*flags, *arguments, cwd=cwd, env=env, **more),
            rank(*arguments, cwd=cwd, flags=flags, env=env, **more),
        )
    return [{key: _without_chance(value) for key, value in outcome(one).items()} for one in done]


def _without_chance(value):
    """Addresses, reference counts, times, and how often `recursion` fits: three frames less with ours below."""
    if isinstance(value, str):
        return re.sub(r"0x[0-9a-f]+|(?<=refcount : )\d+|(?<=repeated )\d+|(?<=test in )[\d.]+", "N", value)
    return value


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bad_syntax.py").write_text("def f(:\n")
    (tmp_path / "other").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_as_under_python(folder, name):
    text = SCRIPTS[name]
    script = folder / "script.py"
    script.write_bytes(text if isinstance(text, bytes) else text.encode())

    plain, ours = both([script, "a", "-b", "--c"], folder)

    assert ours == plain


@pytest.mark.parametrize(
    "flags",
    [["-P"], ["-I"], ["-S"], ["-E"], ["-s"], ["-u"], ["-O"], ["-OO"], ["-B"], ["-b"], ["-q"], ["-X", "dev"], ["-W", "error"],
     ["-X", "utf8"], ["-X", "faulthandler"], ["-X", "no_debug_ranges"], ["-X", "frozen_modules=off"]],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("how", ["script", "module", "folder"])
def test_flags_of_the_interpreter(folder, flags, how):
    (folder / "script.py").write_text(SEE)
    (folder / "dir").mkdir()
    (folder / "dir" / "__main__.py").write_text(SEE)
    what = {"script": ["script.py"], "module": ["-m", "script"], "folder": ["dir"]}[how]

    plain, ours = both(what, folder, flags=flags)

    assert ours == plain


@pytest.mark.parametrize(
    "spelling",
    [
        "s.py",
        "./s.py",
        "././s.py",
        ".//s.py",
        "other/../s.py",
        "{}/s.py",
        "link.py",
        "other/link.py",
        "other/deep/s.py",
    ],
)
def test_spellings_of_the_script(folder, spelling):
    (folder / "s.py").write_text(SEE + "\n1/0")
    (folder / "link.py").symlink_to("s.py")
    (folder / "other" / "link.py").symlink_to(folder / "link.py")
    (folder / "other" / "deep").symlink_to(folder)

    plain, ours = both([spelling.format(folder)], folder)

    assert plain["returncode"] == 1
    assert ours == plain


def package(folder):
    (folder / "pack" / "sub").mkdir(parents=True)
    (folder / "pack" / "__init__.py").write_text("import sys; print('init', sys.argv)")
    (folder / "pack" / "__main__.py").write_text(SEE)
    (folder / "pack" / "mod.py").write_text("from . import other\n" + SEE)
    (folder / "pack" / "other.py").write_text("x = 1")
    (folder / "pack" / "raises.py").write_text("def f(): 1/0\nf()")
    (folder / "pack" / "bad.py").write_text("def (")
    (folder / "pack" / "interrupted.py").write_text("raise KeyboardInterrupt")
    (folder / "pack" / "leaves.py").write_text("raise SystemExit(4)")
    (folder / "pack" / "sub" / "__init__.py").write_text("")
    (folder / "space").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "__init__.py").write_text("1/0")


@pytest.mark.parametrize(
    "module",
    ["pack", "pack.mod", "pack.raises", "pack.bad", "pack.interrupted", "pack.leaves", "pack.sub", "pack.missing", "missing",
     "space", "broken", "broken.x", "pack.mod.py", ".pack", "timeit", "json.tool", "this", "__main__"],
)  # fmt: skip
def test_a_module_runs_as_under_python(folder, module):
    package(folder)

    plain, ours = both(["-m", module, "1", "-m", "x"], folder)

    assert ours == plain


@pytest.mark.parametrize("content", [SEE, "1/0", "raise KeyboardInterrupt", "import sys; sys.exit('no')", "x ="])
@pytest.mark.parametrize("how", ["directory", "directory/", "zip", "zip.py"])
def test_a_directory_or_archive_with_a_main(folder, how, content):
    if how.startswith("directory"):
        (folder / "app").mkdir()
        (folder / "app" / "__main__.py").write_text("import beside\n" + content)
        (folder / "app" / "beside.py").write_text("")
        name = how.replace("directory", "app")
    else:
        name = how.replace("zip", "app.zip", 1)
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("__main__.py", "import beside\n" + content)
            archive.writestr("beside.py", "")

    plain, ours = both([name, "x"], folder)

    assert ours == plain


def test_an_executable_archive(folder):
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(SEE)
    python("-m", "zipapp", "app", "-p", "/usr/bin/env python3", cwd=folder)

    plain, ours = both(["app.pyz"], folder)

    assert ours == plain


@pytest.mark.parametrize("name", ["missing.py", "no/such.py", "other", "secret.py", "s.py/x", "é.py"])
def test_a_script_that_is_not_there(folder, name):
    (folder / "s.py").write_text("")

    plain, ours = both([name], folder)

    assert plain["returncode"] in (1, 2)
    assert ours == plain


@pytest.mark.parametrize("name", ["script.pyc", "script.bin", "broken.pyc"])
def test_byte_code(folder, name):
    (folder / "script.py").write_text(SEE + "\n1/0")
    compileall.compile_file(folder / "script.py", legacy=True, quiet=1)
    if name == "broken.pyc":
        (folder / name).write_bytes(b"not byte code")
    elif name != "script.pyc":
        (folder / "script.pyc").rename(folder / name)

    plain, ours = both([name], folder)

    assert ours == plain


def test_a_script_from_a_pipe(folder):
    results = []
    for run in (python, rank):
        reads, writes = os.pipe()
        os.write(writes, b"print(1); 1/0")
        os.close(writes)
        results.append(outcome(run(f"/dev/fd/{reads}", cwd=folder, pass_fds=[reads])))
        os.close(reads)

    plain, ours = results
    assert plain["returncode"] == 1
    assert ours["stderr"].replace("/dev/fd/", "") == plain["stderr"].replace("/dev/fd/", "")
    assert ours["stdout"] == plain["stdout"]


@pytest.mark.parametrize("how", ["script", "module"])
def test_multiprocessing_inside(folder, how):
    (folder / "script.py").write_text(SPAWN)

    plain, ours = both(["script.py", "arg"] if how == "script" else ["-m", "script", "arg"], folder)

    assert plain["returncode"] == 0
    assert "__mp_main__" in plain["stdout"]
    assert ours == plain


def test_an_installation_of_links(folder, monkeypatch):
    """uv and others put symbolic links into site-packages; Python takes the directory of what they lead to."""
    (folder / "links").mkdir()
    for file in Path(BOOTSTRAP).parent.glob("*.py"):
        (folder / "links" / file.name).symlink_to(file)
    (folder / "script.py").write_text(SEE + "import line")
    monkeypatch.setattr(harness, "BOOTSTRAP", str(folder / "links" / "bootstrap.py"))

    plain, ours = both(["script.py"], folder)

    assert "No module named 'line'" in plain["stderr"]
    assert ours == plain


def test_the_working_directory_is_gone(folder):
    (folder / "script.py").write_text("import sys; print(sys.argv, sys.path[0])")
    gone = folder / "gone"
    results = []
    for tool in ([sys.executable], [sys.executable, BOOTSTRAP]):
        gone.mkdir()
        command = [*tool, str(folder / "script.py")]
        shell = ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(gone), *command]
        results.append(outcome(subprocess.run(shell, env=environment(), capture_output=True, text=True, timeout=HANGS)))

    assert results[0]["returncode"] == 0
    assert results[1] == results[0]


def test_nothing_of_ours_can_be_imported_by_accident(folder):
    (folder / "script.py").write_text("import line, lastwords")

    plain, ours = both(["script.py"], folder)

    assert "No module named 'line'" in plain["stderr"]
    assert ours == plain


def test_faulthandler_is_on(folder):
    (folder / "script.py").write_text(
        "import faulthandler; print(faulthandler.is_enabled(), flush=True); faulthandler._sigsegv()"
    )

    done = rank("script.py", cwd=folder)

    assert done.returncode == -11
    assert done.stdout == "True\n"
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_all_signals_in_one_instant(folder):
    """Their handlers run on one stack, as faulthandler wants it; each begins before the one under it has done anything."""
    (folder / "script.py").write_text(
        "import os, signal\n"
        "some = [n for n in signal.valid_signals() - {9, 17, 19} if not 3 < n < 9 and n not in (11, 18, 31, 32, 33)]\n"
        "heard = []\n"
        "for n in some: signal.signal(n, lambda number, _frame: heard.append(number))\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, some)\n"
        "for n in some: os.kill(os.getpid(), n)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, some)\n"
        "print(sorted(heard) == sorted(some), len(some) > 40)"
    )

    plain, ours = both(["script.py"], folder)

    assert plain == {"returncode": 0, "stdout": "True True\n", "stderr": ""}
    assert ours == plain


def test_the_hook_that_fails_itself(folder):
    (folder / "script.py").write_text(
        "import sys\ndef hook(*a):\n    raise OSError('in hook')\nsys.excepthook = hook\n1/0"
    )

    plain, ours = both(["script.py"], folder)

    assert ours == plain


def test_an_audit_hook_sees_the_same(folder):
    (folder / "script.py").write_text(
        "import sys\nsys.addaudithook(lambda e, a: e == 'sys.excepthook' and print(e, a[1], a[3].tb_lineno))\n1/0"
    )

    plain, ours = both(["script.py"], folder)

    assert ours == plain


def test_the_tracebacks_of_a_live_program_are_its_own(folder):
    (folder / "script.py").write_text(
        "import traceback\ntry:\n    1/0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n"
        "import logging\ntry:\n    1/0\nexcept ZeroDivisionError:\n    logging.exception('x')"
    )

    plain, ours = both(["script.py"], folder)

    assert ours == plain
