"""What a rank reports of an uncaught exception, and that it does so before it prints it."""

import ast
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
from tests.inside.harness import BOOTSTRAP, Supervisor, environment, python, rank


def run(tmp_path, supervisor, script, *, name="script.py", flags=(), **more):
    (tmp_path / name).write_text(script)
    return rank(name, cwd=tmp_path, flags=flags, env=environment(supervisor, **more))


def reported(tmp_path, supervisor, script, **more):
    done = run(tmp_path, supervisor, script, **more)
    found = supervisor.exception()
    assert list(found)[:7] == ["type", "message", "module", "traceback", "frames", "chain", "raised_at"]
    return done, found


def test_an_exception(tmp_path, supervisor):
    before = time.clock_gettime(time.CLOCK_MONOTONIC)

    done, found = reported(
        tmp_path, supervisor, "def inner():\n    1 / 0\n\n\ndef outer():\n    inner()\n\n\nouter()\n"
    )

    assert done.returncode == 1
    assert before < found.pop("raised_at") < time.clock_gettime(time.CLOCK_MONOTONIC)
    assert found == {
        "type": "ZeroDivisionError",
        "message": "division by zero",
        "module": "builtins",
        "traceback": done.stderr,
        "frames": [
            f"{tmp_path}/script.py:9 <module>",
            f"{tmp_path}/script.py:6 outer",
            f"{tmp_path}/script.py:2 inner",
        ],
        "chain": [],
    }


def test_it_is_reported_before_it_is_printed(tmp_path, supervisor):
    script = "import sys, os\nsys.excepthook = lambda *a: os.read(0, 1)\nraise ValueError('x')"
    (tmp_path / "script.py").write_text(script)
    reads, writes = os.pipe()
    child = subprocess.Popen(
        [sys.executable, BOOTSTRAP, "script.py"], stdin=reads, cwd=tmp_path, env=environment(supervisor)
    )
    os.close(reads)
    supervisor.socket.settimeout(60)
    data = supervisor.socket.recv(1 << 20)
    assert child.poll() is None
    os.write(writes, b"x")
    os.close(writes)

    assert b'"message":"x"' in data
    assert child.wait() == 1


@pytest.mark.parametrize(
    "script",
    ["import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt", "import os; os._exit(1)", "pass",
     "import threading; t = threading.Thread(target=lambda: 1/0); t.start(); t.join()",
     "import atexit; atexit.register(lambda: 1/0)",
     "try:\n    1/0\nexcept ZeroDivisionError:\n    pass",
     "import os\nif os.fork() == 0:\n    1/0\nos.wait()",
     "import multiprocessing\np = multiprocessing.get_context('fork').Process(target=divmod, args=(1, 0)); p.start(); p.join()",
     "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
)  # fmt: skip
def test_what_is_no_exception_of_the_main_program(tmp_path, supervisor, script):
    run(tmp_path, supervisor, script)

    assert supervisor.datagrams() == []


def test_a_module_and_a_missing_one(tmp_path, supervisor):
    (tmp_path / "mod.py").write_text("def f(): raise ValueError('in module')\nf()")

    missing = rank("-m", "not_there", cwd=tmp_path, env=environment(supervisor))
    assert (missing.returncode, supervisor.exception()["code"]) == (1, 1)

    done = rank("-m", "mod", cwd=tmp_path, env=environment(supervisor))
    found = supervisor.exception()
    assert found["frames"] == [f"{tmp_path}/mod.py:2 <module>", f"{tmp_path}/mod.py:1 f"]
    assert found["traceback"] == done.stderr
    assert "<frozen runpy>" in done.stderr


def test_runpy_is_no_frame_of_the_program_however_it_was_loaded(tmp_path, supervisor):
    (tmp_path / "mod.py").write_text("1/0")
    rank("-m", "mod", cwd=tmp_path, flags=["-X", "frozen_modules=off"], env=environment(supervisor))

    assert supervisor.exception()["frames"] == [f"{tmp_path}/mod.py:1 <module>"]


def test_a_syntax_error(tmp_path, supervisor):
    done, found = reported(tmp_path, supervisor, "x = = 1\n")

    assert found["type"] == "SyntaxError"
    assert found["frames"] == []
    assert found["traceback"] == done.stderr
    assert found["message"] == "invalid syntax (script.py, line 1)"


def test_types_are_qualified(tmp_path, supervisor):
    _, found = reported(tmp_path, supervisor, "class A:\n    class B(Exception): pass\nraise A.B('x')")
    assert (found["type"], found["module"]) == ("__main__.A.B", "__main__")

    _, found = reported(tmp_path, supervisor, "import json\njson.loads('[')")
    assert (found["type"], found["module"]) == ("json.decoder.JSONDecodeError", "json.decoder")


def test_the_chain_has_the_root_last(tmp_path, supervisor):
    script = (
        "def a():\n    raise KeyError('root')\n"
        "def b():\n    try: a()\n    except KeyError: raise ConnectionResetError(104, 'reset')\n"
        "def c():\n    try: b()\n    except OSError as e: raise RuntimeError('top') from e\nc()"
    )
    done, found = reported(tmp_path, supervisor, script)

    assert found["chain"] == ["ConnectionResetError: [Errno 104] reset", "KeyError: 'root'"]
    assert found["type"] == "RuntimeError"
    assert "errno" not in found
    assert found["traceback"] == done.stderr


def test_a_suppressed_context_is_no_link(tmp_path, supervisor):
    _, found = reported(tmp_path, supervisor, "try: 1/0\nexcept ZeroDivisionError: raise OSError(5, 'io') from None")

    assert found["chain"] == []
    assert found["errno"] == 5


def test_the_root_of_a_long_chain_stays(tmp_path, supervisor):
    script = "e = OSError('root')\nfor n in range(500):\n    f = ValueError(str(n)); f.__cause__ = e; e = f\nraise e"
    _, found = reported(tmp_path, supervisor, script)

    assert len(found["chain"]) == 32
    assert (found["chain"][0], found["chain"][-1]) == ("ValueError: 498", "OSError: root")


def test_a_chain_that_bites_its_tail(tmp_path, supervisor):
    script = "a, b = ValueError('a'), ValueError('b')\na.__cause__, b.__cause__ = b, a\nraise a"
    _, found = reported(tmp_path, supervisor, script)

    assert found["chain"] == ["ValueError: b"]


def test_a_group_and_its_leaves(tmp_path, supervisor):
    script = (
        "leaf = OSError(28, 'full')\nleaf.__cause__ = KeyError('k')\n"
        "inner = ExceptionGroup('inner', [leaf, TypeError('t')])\n"
        "raise BaseExceptionGroup('outer', [ValueError('v'), inner, KeyboardInterrupt()]) from EOFError('root')"
    )
    done, found = reported(tmp_path, supervisor, script)

    assert found["type"] == "BaseExceptionGroup"
    assert found["message"] == "outer (3 sub-exceptions)"
    leaves = ["ValueError: v", "OSError: [Errno 28] full", "KeyError: 'k'", "TypeError: t", "KeyboardInterrupt"]
    assert found["chain"] == [*leaves, "EOFError: root"]
    assert found["traceback"] == done.stderr


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E", "<exception str() failed>"),
        ("class E(Exception):\n    def __str__(self): return 5\nraise E", "<exception str() failed>"),
        ("class E(Exception):\n    def __str__(self): raise SystemExit(4)\nraise E", "<exception str() failed>"),
        ("raise ValueError('a' * 5000)", "a" * 2000),
        ("raise ValueError('é\\n\\t\"\\\\\\x00\\U0001f600')", 'é\n\t"\\\x00\U0001f600'),
        ("raise ValueError('\\udc80')", "\udc80"),
        ("raise ValueError('\\u2028\\x85')", "\u2028\x85"),
        ("raise ValueError", ""),
        ("class E(Exception):\n    __module__ = None\nraise E('x')", "x"),
        ("class E(Exception):\n    with_traceback = None\nraise E('x')", "x"),
        ("class E(OSError):\n    errno = property(lambda s: 1/0)\nraise E('x')", "x"),
        ("class E(OSError):\n    errno = 'text'\nraise E('x')", "x"),
    ],
)
def test_messages_of_all_sorts(tmp_path, supervisor, script, message):
    (tmp_path / "script.py").write_text(script)
    rank("script.py", cwd=tmp_path, env=environment(supervisor))

    assert supervisor.exception()["message"] == message


def test_a_recursion_error(tmp_path, supervisor):
    _, found = reported(tmp_path, supervisor, "def f(n):\n    return f(n + 1)\nf(0)")

    assert found["type"] == "RecursionError"
    assert len(found["frames"]) == 64
    assert "frames more]" in found["traceback"]
    assert "in <module>" in found["traceback"]


def test_a_very_deep_traceback_costs_little(tmp_path, supervisor):
    script = "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    if n: f(n - 1)\n    else: 1/0\n"
    script += "sys.excepthook = lambda *a: None\nf(60_000)"
    _, found = reported(tmp_path, supervisor, script)

    assert found["type"] == "ZeroDivisionError"
    assert len(found["traceback"]) <= 16 << 10


def test_a_recursion_limit_that_leaves_no_room(tmp_path, supervisor):
    _, found = reported(tmp_path, supervisor, "import sys\nsys.setrecursionlimit(25)\ndef f(): f()\nf()")

    assert found["type"] == "RecursionError"


def test_the_head_and_the_tail_of_a_long_traceback(tmp_path, supervisor):
    script = "e = ValueError('first')\nfor n in range(200):\n    f = ValueError('é' * 300); f.__cause__ = e; e = f\nraise e from ValueError('x' * 50)"
    _, found = reported(tmp_path, supervisor, script)
    script = "try: raise ValueError('first')\nexcept ValueError: raise KeyError('é' * 90000)"
    _, found = reported(tmp_path, supervisor, script)

    assert len(found["traceback"].encode()) <= 16 << 10
    assert "ValueError: first" in found["traceback"]
    assert "bytes more]" in found["traceback"]
    assert found["traceback"].endswith("é'\n")


def test_a_datagram_is_never_too_long(tmp_path, supervisor):
    script = "try: raise ValueError('\U0001f600' * 9000)\nexcept ValueError: raise KeyError('\U0001f600' * 90000)"
    (tmp_path / "script.py").write_text(script)
    rank("script.py", cwd=tmp_path, env=environment(supervisor))

    [(data, _)] = supervisor.datagrams()
    assert len(data) <= 100_000
    assert json.loads(data.partition(b"=")[2])["message"].startswith("'\U0001f600")


EXHAUSTED = """
import os
kept = []
try:
    while True: kept.append(os.open('/dev/null', os.O_RDONLY))
except OSError as error:
    pass
raise OSError(24, 'no more')
"""


def limit(number):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


def test_no_descriptor_left(tmp_path, supervisor):
    (tmp_path / "script.py").write_text(EXHAUSTED)

    done = rank("script.py", cwd=tmp_path, env=environment(supervisor), preexec_fn=limit(150))

    found = supervisor.exception()
    assert found["errno"] == 24
    assert found["frames"] == [f"{tmp_path}/script.py:8 <module>"]
    assert done.returncode == 1


@pytest.mark.parametrize("lowered", ["", "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"])
def test_no_descriptor_left_under_a_low_limit(tmp_path, supervisor, lowered):
    (tmp_path / "script.py").write_text(lowered + EXHAUSTED)

    rank("script.py", cwd=tmp_path, env=environment(supervisor), preexec_fn=limit(200 if lowered else 20))

    assert supervisor.exception()["errno"] == 24


def test_no_memory_left(tmp_path, supervisor):
    script = (
        "import resource\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * 4096\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (32 << 20),) * 2)\n"
        "def fill():\n    kept = []\n    block = 16 << 20\n"
        "    while True:\n"
        "        try: kept.append(bytes(block))\n"
        "        except MemoryError:\n"
        "            if block < 64: raise\n"
        "            block //= 2\n"
        "fill()"
    )
    done, found = reported(tmp_path, supervisor, script)

    assert found["type"] == "MemoryError"
    assert found["frames"] == [f"{tmp_path}/script.py:12 <module>", f"{tmp_path}/script.py:8 fill"]
    assert done.returncode == 1


def test_all_descriptors_closed(tmp_path, supervisor):
    _, found = reported(tmp_path, supervisor, "import os\nos.closerange(3, 1000)\n1/0")

    assert found["type"] == "ZeroDivisionError"


def test_our_descriptor_used_for_something_else(tmp_path, supervisor):
    script = (
        "import os, socket\nos.closerange(3, 1000)\n"
        "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "for n in range(3, 200):\n    if n not in (a.fileno(), b.fileno()): os.dup2(a.fileno(), n)\n"
        "b.setblocking(False)\n"
        "def hook(*_):\n    try: print(b.recv(100))\n    except BlockingIOError: print('nothing')\n"
        "import sys; sys.excepthook = hook\n1/0"
    )
    done, found = reported(tmp_path, supervisor, script)

    assert found["type"] == "ZeroDivisionError"
    assert done.stdout == "nothing\n"


def test_settings_of_the_program_do_not_matter(tmp_path, supervisor):
    script = (
        "import socket, signal, sys, os\nsocket.setdefaulttimeout(0.001)\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "os.chdir('/')\nos.environ.clear()\nsys.modules.pop('traceback', None)\nsys.path.clear()\n"
        "sys.stdout = sys.stderr = None\n1/0"
    )
    _, found = reported(tmp_path, supervisor, script)

    assert found["type"] == "ZeroDivisionError"


def test_files_of_the_program_are_not_imported_by_us(tmp_path, supervisor):
    for name in ("traceback", "linecache", "json", "tokenize", "re", "select", "_socket", "fcntl", "runpy"):
        (tmp_path / f"{name}.py").write_text(f"print('imported {name}')")
    done, found = reported(tmp_path, supervisor, "raise ValueError('x')")

    assert done.stdout == ""
    assert "ValueError: x" in found["traceback"]


@pytest.mark.parametrize("module", ["encodings", "struct", "time"])
def test_builtin_modules_replaced_while_it_runs(tmp_path, supervisor, module):
    _, found = reported(
        tmp_path, supervisor, f"import sys\nsys.modules['{module}'] = None\nsys.modules['traceback'] = None\n1/0"
    )

    assert found["type"] == "ZeroDivisionError"
    assert "ZeroDivisionError: division by zero" in found["traceback"]


def test_nobody_listens(tmp_path):
    (tmp_path / "script.py").write_text("1/0")
    plain = python("script.py", cwd=tmp_path)
    for address in ("@nobody-is-here", f"{tmp_path}/no.sock", "x" * 200, "", "@", "relative.sock"):
        done = rank("script.py", cwd=tmp_path, env=environment(NOTIFY_SOCKET=address))
        assert (done.returncode, done.stderr, done.stdout) == (1, plain.stderr, "")


def test_a_supervisor_that_has_gone(tmp_path, supervisor):
    (tmp_path / "script.py").write_text("import sys, socket\nprint('up', flush=True)\nsys.stdin.read(1)\n1/0")
    with subprocess.Popen(
        [sys.executable, BOOTSTRAP, "script.py"], cwd=tmp_path, env=environment(supervisor), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as child:  # fmt: skip
        child.stdout.readline()
        supervisor.socket.close()
        _, stderr = child.communicate("x")

    assert "ZeroDivisionError" in stderr
    assert child.returncode == 1


def test_a_full_queue_delays_the_end_by_a_second_at_most(tmp_path, supervisor):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        try:
            while True:
                filler.sendto(b"STATUS=x", "\0" + supervisor.address[1:])
        except BlockingIOError:
            pass
        # A profiler interrupts every wait; the second must not start again each time.
        script = "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\nsignal.setitimer(signal.ITIMER_REAL, .05, .05)\n"
        script += "import sys\nsys.excepthook = lambda *a: signal.setitimer(signal.ITIMER_REAL, 0)\n1/0"
        started = time.monotonic()
        done = run(tmp_path, supervisor, script)
        took = time.monotonic() - started

    assert done.returncode == 1
    assert took >= 1  # one that starts again each time never ends, and `run` does not wait for it
    assert all(b"EXCEPTION" not in data for data, _ in supervisor.datagrams())


def test_a_socket_in_the_file_system(tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Supervisor(f"{folder}/sock") as supervisor:
        _, found = reported(tmp_path, supervisor, "import os\nos.chdir('/')\n1/0")

    assert found["type"] == "ZeroDivisionError"


def test_the_descriptor_is_not_passed_on(tmp_path, supervisor):
    script = (
        "import os, subprocess\n"
        "def sockets(names): return [n for n in names if os.readlink(f'/proc/self/fd/{n}').startswith('socket:')]\n"
        "own = [n for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}') or True]\n"
        "links = {n: os.readlink(f'/proc/self/fd/{n}') for n in own if os.path.lexists(f'/proc/self/fd/{n}')}\n"
        "print([n for n, link in links.items() if link.startswith('socket:')])\n"
        "print(subprocess.run(['sh', '-c', 'ls -l /proc/self/fd | grep -c socket:'], close_fds=False, capture_output=True, text=True).stdout)"
    )
    done = run(tmp_path, supervisor, script)

    own, passed = done.stdout.split("\n", 1)
    assert ast.literal_eval(own) == ["100"]
    assert passed.strip() == "0"


# ── torchrun's error file ────────────────────────────────────────────────────────────────────────────────────────


def test_the_error_file(tmp_path, supervisor):
    path = tmp_path / "error.json"
    done = run(tmp_path, supervisor, "def f(): raise ValueError('é \"x\"')\nf()", TORCHELASTIC_ERROR_FILE=str(path))

    message = json.loads(path.read_text())["message"]
    assert list(json.loads(path.read_text())) == ["message"]
    assert message["message"] == 'ValueError: é "x"'
    assert message["extraInfo"]["py_callstack"] == done.stderr
    assert abs(int(message["extraInfo"]["timestamp"]) - time.time()) < 60
    assert sorted(os.listdir(tmp_path)) == ["error.json", "script.py"]


def test_an_error_file_that_is_there_stays(tmp_path, supervisor):
    (tmp_path / "error.json").write_text("torch's own")
    run(tmp_path, supervisor, "1/0", TORCHELASTIC_ERROR_FILE=str(tmp_path / "error.json"))

    assert (tmp_path / "error.json").read_text() == "torch's own"


@pytest.mark.parametrize(
    "script", ["pass", "raise SystemExit(2)", "raise KeyboardInterrupt", "import os\nif os.fork() == 0: 1/0"]
)
def test_no_error_file_without_an_exception(tmp_path, supervisor, script):
    run(tmp_path, supervisor, script, TORCHELASTIC_ERROR_FILE=str(tmp_path / "error.json"))

    assert os.listdir(tmp_path) == ["script.py"]


def test_an_error_file_when_no_descriptor_is_left(tmp_path, supervisor):
    (tmp_path / "script.py").write_text(EXHAUSTED)
    env = environment(supervisor, TORCHELASTIC_ERROR_FILE=str(tmp_path / "error.json"))

    done = rank("script.py", cwd=tmp_path, env=env, preexec_fn=limit(150))

    assert done.returncode == 1
    assert supervisor.exception()["errno"] == 24
    assert json.loads((tmp_path / "error.json").read_text())["message"]["message"] == "OSError: [Errno 24] no more"


def test_an_error_file_that_cannot_be_written(tmp_path, supervisor):
    done = run(tmp_path, supervisor, "1/0", TORCHELASTIC_ERROR_FILE=str(tmp_path / "no" / "such" / "error.json"))

    assert (done.returncode, supervisor.exception()["type"]) == (1, "ZeroDivisionError")


def test_a_signal_that_raises_while_it_is_reported(tmp_path, supervisor):
    """The program's own handler raises in the middle of our work: its exception must not come out of us."""
    script = (
        "import signal, os, sys\nclass E(Exception):\n    def __str__(self):\n        os.kill(os.getpid(), signal.SIGUSR1); return 'said'\n"
        "def handler(*_): raise KeyboardInterrupt\nsignal.signal(signal.SIGUSR1, handler)\nsys.excepthook = lambda *a: print('hook', a[0])\nraise E"
    )
    done = run(tmp_path, supervisor, script)

    assert done.stdout == "hook <class '__main__.E'>\n"
    assert supervisor.exception()["message"] == "<exception str() failed>"
    assert done.returncode == 1
    assert done.returncode != -signal.SIGINT


TOLD_TO_END = (
    "import os\n"
    "class E(Exception):\n"
    "    def __str__(self):\n"
    "        os.kill(os.getpid(), 15)\n"
    "        return 'asked to end in the middle of it'\n"
)


def test_sigterm_waits_until_it_has_told_why(tmp_path, supervisor):
    done, found = reported(tmp_path, supervisor, f"{TOLD_TO_END}raise E")

    assert found["message"] == "asked to end in the middle of it"
    assert done.returncode == -15


def test_a_programs_own_answer_to_sigterm_is_left_alone(tmp_path, supervisor):
    own = "import signal\nsignal.signal(15, lambda *_: os.write(2, b'heard\\n'))\n"
    done, found = reported(tmp_path, supervisor, f"{TOLD_TO_END}{own}raise E")

    assert found["message"] == "asked to end in the middle of it"
    assert done.returncode == 1
    assert "heard" in done.stderr


@pytest.mark.parametrize(("leaves", "code"), [("3", 3), ("-1", 255), ("'text'", 1), ("True", 1), ("2.5", 1)])
def test_that_it_leaves_with_a_code(tmp_path, supervisor, leaves, code):
    script = f"try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise SystemExit({leaves})"
    done, found = reported(tmp_path, supervisor, script)

    assert (done.returncode, found["type"], found["code"]) == (code, "SystemExit", code)
    assert found["chain"] == ["ZeroDivisionError: division by zero"]
