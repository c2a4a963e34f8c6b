"""Functions and their arguments travel to ranks as they do with `multiprocessing.Process`, and change nothing here."""

import array
import base64
import functools
import gc
import io
import json
import multiprocessing
import os
import pickle
import queue
import socket
import sys
import textwrap
import threading
from multiprocessing import managers, shared_memory

import pytest
from tests.inside import harness
from tests.inside.harness import SRC, environment, python, start_function

from rankguard import errors
from rankguard.errors import UsageError
from rankguard.launchers.function import Shipment, pack, ship, unpack

spawn = multiprocessing.get_context("spawn")


def run(target, *args, supervisor=None, ranks=1, **kwargs):
    """Ships once, runs in `ranks` processes at the same time; the outcomes."""
    with ship(target, args, kwargs) as shipment:
        started = [start_function(shipment, supervisor, RANK=str(number)) for number in range(ranks)]
    done = [one.wait() for one in started]
    return done[0] if ranks == 1 else done


def ran(target, *args, **kwargs):
    done = run(target, *args, **kwargs)
    for one in done if isinstance(done, list) else [done]:
        assert (one.returncode, one.stderr) == (0, "")
    return done


# ── Targets: in a module of their own name, which the ranks import ──────────────────────────────────────────────


def say(rank, *args, **kwargs):
    print(rank.rank, rank.world_size, args, kwargs)


def see(rank):
    import __main__

    process = multiprocessing.current_process()
    print(sys.argv, os.getcwd(), process.name, process.daemon, multiprocessing.get_start_method(allow_none=True))
    print(__main__.__name__, bytes(process.authkey).hex(), sys.path)


def use_queue(rank, q, event, lock):
    event.wait()
    with lock:
        q.put((rank.rank, os.getpid()))


def use_pipe(rank, reads, writes):
    writes.send(reads.recv() + 1)


def use_memory(rank, block, numbers, value):
    with value.get_lock():
        value.value += 1
    numbers[rank.rank] = rank.rank + 1
    block.buf[rank.rank] = 7
    block.close()


def use_barrier(rank, barrier, semaphore, condition, joinable):
    barrier.wait(60)
    semaphore.release()
    with condition:
        condition.notify_all()
    joinable.get(timeout=60)
    joinable.task_done()


def use_socket(rank, sock):
    sock.sendall(b"from a rank")


def use_manager(rank, table, items):
    table[rank.rank] = os.getpid()
    items.append(rank.rank)


def raise_value_error(rank, text):
    raise ValueError(text)


def leave(rank, code):
    print("leaving")
    sys.exit(code)


def interrupt(rank):
    raise KeyboardInterrupt


def end_late(rank):
    import atexit

    atexit.register(lambda: print("atexit"))
    threading.Thread(target=lambda: (threading.main_thread().join(), print("thread"))).start()
    sys.stdout.write("no newline; ")


def start_children(rank, q):
    for method in ("spawn", "fork"):
        child = multiprocessing.get_context(method).Process(target=q.put, args=(method,))
        child.start()
        child.join()
        print(child.exitcode)


def list_descriptors(rank, *_):
    links = {
        name: os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
    }
    print(
        any("rankguard-function" in link for link in links.values()),
        links["4"].startswith("socket:"),
        os.get_inheritable(4),
    )


def total(rank, data):
    print(sum(data))


def look(rank):
    import traceback

    import rankguard.inside

    print(
        rankguard.inside.importing_main,
        hasattr(multiprocessing.current_process(), "_inheriting"),
        len(traceback.extract_stack()),
    )


class Carrier:
    def __init__(self, value):
        self.value = value

    def method(self, rank):
        print("method", self.value, rank.rank)

    def __call__(self, rank):
        print("called", self.value, rank.rank)


class Unpicklable:
    def __init__(self):
        self.inner = {"lock": threading.Lock()}


class FailsOnArrival:
    def __reduce__(self):
        return fail_on_arrival, ()


def fail_on_arrival():
    raise OSError("broken on arrival")


# ── What travels ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_function_and_plain_arguments():
    done = ran(say, 1, [2, "é"], a={"b": b"c"}, ranks=3)

    assert [one.stdout for one in done] == [f"{rank} 8 (1, [2, 'é']) {{'a': {{'b': b'c'}}}}\n" for rank in range(3)]


def test_the_rank_finds_the_callers_surroundings(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["prog", "--arg"])

    done = ran(see)

    first, second = done.stdout.splitlines()
    assert first == f"['prog', '--arg'] {tmp_path} rank-0 False {multiprocessing.get_start_method(allow_none=True)}"
    assert second.split(" ", 2)[1:] == [bytes(multiprocessing.current_process().authkey).hex(), str(sys.path)]


def test_queue_event_and_lock():
    q, event, lock = spawn.Queue(), spawn.Event(), spawn.Lock()
    with ship(use_queue, (q,), {"event": event, "lock": lock}) as shipment:
        started = [start_function(shipment, RANK=str(number)) for number in range(3)]
    event.set()
    said = {q.get(timeout=harness.HANGS) for _ in started}

    assert [one.wait().stderr for one in started] == ["", "", ""]
    assert said == {(number, one.pid) for number, one in enumerate(started)}


def test_pipes():
    ours, theirs = multiprocessing.Pipe()
    reads, writes = multiprocessing.Pipe(duplex=False)
    with ship(use_pipe, (theirs, writes), {}) as shipment:
        started = start_function(shipment)
    theirs.close()
    writes.close()
    ours.send(41)

    assert reads.recv() == 42
    assert started.wait().returncode == 0
    with pytest.raises(EOFError):
        reads.recv()  # nobody else holds the end that was shipped
    reads.close()
    ours.close()


def test_the_caller_may_close_its_ends_as_soon_as_it_is_shipped():
    reads, writes = multiprocessing.Pipe(duplex=False)
    back, answer = multiprocessing.Pipe(duplex=False)
    shipment = ship(use_pipe, (reads, answer), {})
    reads.close()
    answer.close()
    with shipment:
        started = start_function(shipment)
    writes.send(1)

    assert back.recv() == 2
    assert started.wait().stderr == ""
    writes.close()
    back.close()


def test_shared_memory_arrays_and_values():
    block = shared_memory.SharedMemory(create=True, size=16)
    numbers, value = spawn.Array("i", 4), spawn.Value("q", 10)
    try:
        ran(use_memory, block, numbers, value, ranks=3)

        assert bytes(block.buf[:4]) == b"\7\7\7\0"
        assert list(numbers) == [1, 2, 3, 0]
        assert value.value == 13
        assert os.path.exists(f"/dev/shm/{block.name}")  # a rank's own tracker would have removed it
    finally:
        block.close()
        block.unlink()


def test_barrier_semaphore_condition_and_joinable_queue():
    barrier, semaphore, condition, joinable = (
        spawn.Barrier(3),
        spawn.Semaphore(0),
        spawn.Condition(),
        spawn.JoinableQueue(),
    )
    for number in range(2):
        joinable.put(number)
    with ship(use_barrier, (barrier, semaphore, condition, joinable), {}) as shipment:
        started = [start_function(shipment, RANK=str(number)) for number in range(2)]
    barrier.wait(harness.HANGS)
    joinable.join()

    assert [one.wait().returncode for one in started] == [0, 0]
    assert semaphore.get_value() == 2


def test_sockets():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ran(use_socket, theirs)
        assert ours.recv(100) == b"from a rank"


def test_manager_proxies():
    manager = managers.SyncManager(ctx=spawn)
    manager.start()
    with manager:
        table, items = manager.dict(), manager.list()
        ran(use_manager, table, items, ranks=2)

        assert sorted(table.keys()) == sorted(items) == [0, 1]


def test_methods_partials_and_callable_objects():
    assert ran(Carrier(5).method).stdout == "method 5 0\n"
    assert ran(Carrier(6)).stdout == "called 6 0\n"
    assert ran(functools.partial(say, b=1)).stdout == "0 8 () {'b': 1}\n"


def test_the_same_object_twice_is_one_object():
    reads, writes = multiprocessing.Pipe(duplex=False)
    with ship(say, (writes, [writes]), {}) as shipment:
        assert len(shipment.fds) == 1 + (multiprocessing.resource_tracker._resource_tracker._fd is not None)
    reads.close()
    writes.close()


def test_a_large_argument_is_read_by_all_ranks_at_once():
    data = array.array("q", range(1 << 20))

    done = ran(total, data, ranks=4)

    assert {one.stdout for one in done} == {f"{sum(data)}\n"}


def test_numpy_arrays():
    numpy = pytest.importorskip("numpy")
    assert ran(total, numpy.arange(100)).stdout == "4950\n"


def test_descriptors_in_the_rank():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = ran(list_descriptors, theirs)

    assert done.stdout == "False True False\n"


def test_the_stack_of_a_target_is_short():
    assert ran(look).stdout == "False False 4\n"


# ── How it ends ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exception_is_reported_without_our_frames(supervisor):
    done = run(raise_value_error, "wörds", supervisor=supervisor)
    found = supervisor.exception()

    assert done.returncode == 1
    assert (found["type"], found["message"]) == ("ValueError", "wörds")
    assert found["traceback"] == done.stderr
    assert len(found["frames"]) == 1
    assert found["frames"][0].endswith(" raise_value_error")
    assert "rankguard/" not in done.stderr.replace(__file__, "")


@pytest.mark.parametrize(("code", "status", "stderr"), [(None, 0, ""), (5, 5, ""), ("words", 1, "words\n")])
def test_system_exit(supervisor, code, status, stderr):
    done = run(leave, code, supervisor=supervisor)

    assert (done.returncode, done.stdout, done.stderr) == (status, "leaving\n", stderr)
    told = [json.loads(data.partition(b"=")[2]) for data, _fds in supervisor.datagrams()]
    assert [(each["type"], each["code"]) for each in told] == ([("SystemExit", status)] if status else [])


def test_an_interrupt(supervisor):
    done = run(interrupt, supervisor=supervisor)

    assert done.returncode == -2
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert supervisor.datagrams() == []


def test_the_interpreter_ends_as_usual():
    assert ran(end_late).stdout == "no newline; thread\natexit\n"


def test_a_rank_starts_processes_of_its_own():
    q = spawn.Queue()
    done = ran(start_children, q)

    assert done.stdout == "0\n0\n"
    assert {q.get(timeout=harness.HANGS) for _ in range(2)} == {"spawn", "fork"}


def test_an_argument_that_fails_on_arrival(supervisor):
    done = run(say, FailsOnArrival(), supervisor=supervisor)

    assert done.returncode == 1
    found = supervisor.exception()
    assert (found["type"], found["message"]) == ("OSError", "broken on arrival")
    assert [frame.rpartition(" ")[2] for frame in found["frames"]] == ["fail_on_arrival"]


# ── Nothing of the caller's is changed ───────────────────────────────────────────────────────────────────────────


def test_the_log_of_multiprocessing_is_as_in_the_caller(tmp_path):
    (tmp_path / "job.py").write_text(
        f"import sys, multiprocessing\nsys.path.append({TESTS!r})\n"
        "from rankguard.launchers.function import ship\n"
        "from tests.inside.harness import start_function\n"
        "def target(rank): multiprocessing.get_logger().info('said in the rank')\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.log_to_stderr(20)\n"
        "    print(start_function(ship(target, (), {})).wait().stderr)"
    )
    done = python("job.py", cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert "[INFO/rank-3] said in the rank\n" in done.stdout


def test_nothing_global_is_changed(tmp_path):
    script = """
        import sys, os, threading
        def target(rank): pass
        if __name__ == '__main__':
            before = set(os.listdir('/proc/self/fd')), threading.active_count()
            from rankguard.launchers.function import ship
            import multiprocessing, multiprocessing.context as context
            from multiprocessing import resource_tracker
            with ship(target, (multiprocessing.Pipe(),), {}) as shipment:
                print(len(shipment.fds), all(not os.get_inheritable(fd) for fd in [shipment.memfd, *shipment.fds]))
            shipment.close()
            print(multiprocessing.get_start_method(allow_none=True), context.get_spawning_popen())
            print(resource_tracker._resource_tracker._fd, threading.active_count() == before[1])
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(script))

    done = python("script.py", cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert (done.stdout, done.stderr) == ("2 True\nNone None\nNone True\n", "")


def test_no_descriptor_is_left_behind():
    ours, theirs = multiprocessing.Pipe()
    gc.collect()  # pipes of tests before this one are closed now, and not in its middle
    before = os.listdir("/proc/self/fd")
    ship(say, (ours, theirs), {}).close()
    with pytest.raises(UsageError):
        ship(say, (ours, threading.Lock()), {})
    with pytest.raises(UsageError):
        ship(5, (), {})

    assert os.listdir("/proc/self/fd") == before
    ours.close()
    theirs.close()


def test_a_shipment_keeps_its_cargo_alive():
    """The name of a semaphore goes with the caller's object; the ranks open it by name."""
    shipment = ship(use_queue, (spawn.Queue(), spawn.Event(), spawn.Lock()), {})
    [event] = [one for one in shipment._cargo[1] if hasattr(one, "set")]
    event.set()
    del event
    started = start_function(shipment)
    shipment.close()

    done = started.wait()
    assert (done.returncode, done.stderr) == (0, "")


def test_the_spawning_slot_of_another_pickling_is_given_back():
    from multiprocessing import context

    context.set_spawning_popen("theirs")
    try:
        ship(say, (), {}).close()
        assert context.get_spawning_popen() == "theirs"
    finally:
        context.set_spawning_popen(None)


# ── What cannot travel ───────────────────────────────────────────────────────────────────────────────────────────


FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize(
    ("args", "kwargs", "statement", "hint"),
    [
        ((1, queue.Queue()), {}, "args[1] (queue.Queue) cannot travel to the ranks", "get_context('spawn').Queue()"),
        ((queue.SimpleQueue(),), {}, "args[0] (_queue.SimpleQueue)", "get_context('spawn').Queue()"),
        ((), {"lock": threading.Lock()}, "kwargs['lock'] (_thread.lock)", "get_context('spawn').Lock()"),
        ((), {"e": threading.Event()}, "kwargs['e'] (threading.Event)", "get_context('spawn').Event()"),
        ((FORK.Queue(),), {}, "args[0] (multiprocessing.queues.Queue)", "get_context('spawn').Queue()"),
        ((FORK.Event(),), {}, "args[0] (multiprocessing.synchronize.Event)", "get_context('spawn').Event()"),
        ((FORK.Lock(),), {}, "args[0] (multiprocessing.synchronize.Lock)", "get_context('spawn').Lock()"),
        ((FORK.Value("i"),), {}, "args[0] (multiprocessing.sharedctypes.Synchronized)", "get_context('spawn').Value()"),
        ((FORK.Array("i", 2),), {}, "args[0] (multiprocessing.sharedctypes.SynchronizedArray)", "get_context('spawn').Array()"),
        (([1, {"a": (threading.RLock(),)}],), {}, "args[0][1]['a'][0] (_thread.RLock)", "get_context('spawn').RLock()"),
        ((Unpicklable(),), {}, "args[0].inner['lock'] (_thread.lock)", "get_context('spawn').Lock()"),
        ((open(os.devnull),), {}, "args[0] (_io.TextIOWrapper)", "open it in the rank"),  # noqa: SIM115
        (((n for n in ()),), {}, "args[0] (generator)", None),
        ((sys,), {}, "args[0] (module)", None),
        ((multiprocessing.current_process().authkey,), {}, None, None),
    ],
)  # fmt: skip
def test_what_cannot_travel_is_named(monkeypatch, args, kwargs, statement, hint):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    if statement is None:
        ship(say, args, kwargs).close()
        return
    with pytest.raises(UsageError) as caught:
        ship(say, args, kwargs)

    assert statement in caught.value.statement
    if hint is None:
        assert caught.value.hint is None
    else:
        assert hint in caught.value.hint
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), errors.UsageError)
    for value in args:
        if isinstance(value, io.IOBase):
            value.close()


def test_a_target_that_is_no_function():
    with pytest.raises(UsageError, match="target is a str, not a function"):
        ship("name", (), {})


@pytest.mark.parametrize("make", [lambda: lambda rank: None, lambda: functools.partial(lambda rank: None)])
def test_a_lambda_without_cloudpickle(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)

    with pytest.raises(UsageError, match=r"target.*cannot travel to the ranks.*pip install cloudpickle"):
        ship(make(), (), {})


def test_lambdas_and_closures_by_value():
    pytest.importorskip("cloudpickle")
    q, count = spawn.Queue(), 5

    ran(lambda rank, q: q.put((rank.rank, count)), q)

    assert q.get(timeout=harness.HANGS) == (0, 5)


def test_what_even_cloudpickle_cannot_pickle():
    pytest.importorskip("cloudpickle")
    lock = threading.Lock()

    with pytest.raises(UsageError, match=r"target cannot travel to the ranks: .*lock"):
        ship(lambda rank: lock, (), {})


# ── Main modules ─────────────────────────────────────────────────────────────────────────────────────────────────

CALLER = """
import os, sys, multiprocessing
sys.path.append({tests!r})
from tests.inside.harness import start_function
from rankguard.launchers.function import Shipment, pack, ship, unpack
from rankguard.errors import UsageError
import rankguard.inside

TABLE = {{"a": 1}}
print("imported as", __name__, rankguard.inside.importing_main, flush=True)

class Thing:
    value = 3

def target(rank, thing, q):
    import __main__
    print("in rank", rank.rank, __name__, thing.value, TABLE, type(thing).__module__, flush=True)
    q.put(rank.rank)

def main():
    q = multiprocessing.get_context("spawn").Queue()
    try:
        shipment = ship(target, (Thing(), q), {{}})
    except UsageError as error:
        print("UsageError:", error)
        return
    done = start_function(shipment).wait()
    print(done.returncode, done.stdout, done.stderr, sep="\\n")
    if done.returncode == 0:
        print(q.get(timeout=10))
"""
TESTS = str(harness.Path(__file__).parents[2])
IN_RANK = "0\nimported as __mp_main__ True\nin rank 3 __mp_main__ 3 {'a': 1} __mp_main__\n\n\n3\n"


def caller(guard="if __name__ == '__main__':\n    main()\n"):
    return CALLER.format(tests=TESTS) + guard


@pytest.mark.parametrize("how", ["script", "module", "submodule"])
def test_functions_of_the_main_module(tmp_path, how):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "job.py").write_text(caller())
    (tmp_path / "pack" / "job.py").write_text(caller())
    arguments = {"script": ["job.py"], "module": ["-m", "job"], "submodule": ["-m", "pack.job"]}[how]

    done = python(*arguments, cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert (done.stdout, done.stderr) == ("imported as __main__ False\n" + IN_RANK, "")


BY_VALUE = "0\nin rank 3 __main__ 3 {'a': 1} __main__\n\n\n3\n"


@pytest.mark.parametrize("how", ["-c", "stdin", "package", "directory"])
@pytest.mark.parametrize("cloudpickle", [True, False])
def test_a_main_module_that_ranks_cannot_import(tmp_path, how, cloudpickle):
    if cloudpickle:
        pytest.importorskip("cloudpickle")
    text = caller("main()\n")
    if not cloudpickle:
        text = "import sys; sys.modules['cloudpickle'] = None\n" + text
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "__main__.py").write_text(text)
    arguments = {"-c": ["-c", text], "stdin": ["-"], "package": ["-m", "pack"], "directory": ["pack"]}[how]
    more = {"input": text, "stdin": None} if how == "stdin" else {}

    done = python(*arguments, cwd=tmp_path, env=environment(PYTHONPATH=SRC), **more)

    assert done.stderr == ""
    heading = "imported as __main__ False\n"
    if cloudpickle:
        assert done.stdout == heading + BY_VALUE
    else:
        assert done.stdout.startswith(heading + "UsageError: target cannot travel to the ranks: target is defined in")
        assert "pip install cloudpickle" in done.stdout


def test_a_main_module_without_a_guard(tmp_path):
    """The launch at its top would run again in each rank, which would launch again."""
    (tmp_path / "job.py").write_text(
        f"import sys\nsys.path.append({TESTS!r})\n"
        "import rankguard.inside\nfrom rankguard.launchers.function import ship\n"
        "from tests.inside.harness import start_function\n"
        "def target(rank): pass\n"
        "if rankguard.inside.importing_main: raise RuntimeError('refused')\n"
        "done = start_function(ship(target, (), {})).wait()\nprint(done.returncode, done.stderr)"
    )
    done = python("job.py", cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert done.stdout.startswith("1 Traceback")
    assert done.stdout.endswith("RuntimeError: refused\n\n")


def test_multiprocessing_refuses_to_start_while_the_main_module_is_imported(tmp_path):
    (tmp_path / "job.py").write_text(
        f"import sys, multiprocessing\nsys.path.append({TESTS!r})\n"
        "from rankguard.launchers.function import ship\n"
        "from tests.inside.harness import start_function\n"
        "def target(rank): pass\n"
        "if __name__ == '__mp_main__': multiprocessing.get_context('spawn').Process(target=print).start()\n"
        "else: print(start_function(ship(target, (), {})).wait().stderr)"
    )
    done = python("job.py", cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert "before the\n        current process has finished its bootstrapping phase" in done.stdout


def test_the_start_method_of_the_caller_is_the_ranks_default(tmp_path):
    (tmp_path / "job.py").write_text(
        f"import sys, multiprocessing\nsys.path.append({TESTS!r})\n"
        "from rankguard.launchers.function import ship\n"
        "from tests.inside.harness import start_function\n"
        "def target(rank): print(multiprocessing.get_start_method(allow_none=True))\n"
        "if __name__ == '__main__':\n"
        "    for method in (None, 'spawn', 'forkserver'):\n"
        "        multiprocessing.set_start_method(method, force=True)\n"
        "        print(start_function(ship(target, (), {})).wait().stdout, end='')"
    )
    done = python("job.py", cwd=tmp_path, env=environment(PYTHONPATH=SRC))

    assert (done.stdout, done.stderr) == ("None\nspawn\nforkserver\n", "")


def test_rankguard_is_found_where_the_callers_path_does_not_lead(monkeypatch):
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != SRC])

    assert ran(say).stdout == "0 8 () {}\n"


# ── To other machines ────────────────────────────────────────────────────────────────────────────────────────────


class Settings:
    def __init__(self, **values):
        self.__dict__.update(values)


def show(rank, settings, *more):
    print(rank.rank, settings.lr, more, bytes(multiprocessing.current_process().authkey) == json.loads("null"))


def test_values_travel_as_text_and_arrive_in_another_process():
    parcel = pack(show, (Settings(lr=0.1), {"a": (1, 2)}), {})
    text = json.loads(json.dumps(parcel.cargo))  # as in a JobSpec

    shipment = Shipment(unpack(text), [], None, parcel.path, parcel.files)
    with shipment:
        done = start_function(shipment, None, RANK="3").wait()

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 0.1 ({'a': (1, 2)},) False\n"


def test_what_the_caller_knows_of_its_own_machine_does_not_travel():
    body = base64.b64decode(pack(show, (Settings(lr=1),), {}).cargo)
    assert bytes(multiprocessing.current_process().authkey) not in body


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (spawn.Queue, "args[0] (multiprocessing.queues.Queue)"),
        (spawn.Lock, "args[0] (multiprocessing.synchronize.Lock)"),
        (lambda: spawn.Pipe()[0], "args[0] (multiprocessing.connection.Connection)"),
        (lambda: spawn.Value("i", 1), "args[0] (multiprocessing.sharedctypes.Synchronized)"),
        (lambda: Settings(inner=[spawn.Event()]), "args[0].inner[0] (multiprocessing.synchronize.Event)"),
        (threading.Lock, "args[0] (_thread.lock)"),
    ],
)
def test_what_is_of_one_machine_is_named_before_anything_starts(make, what):
    with pytest.raises(UsageError) as refused:
        pack(show, (make(),), {})

    statement, hint = refused.value.statement, refused.value.hint
    del refused
    gc.collect()  # the error's frames hold it, and whoever cleans up after its process is gone after this test
    assert statement.startswith(f"{what} cannot travel to the ranks: ")
    assert hint.startswith("give the ranks values")


def test_a_socket_is_of_one_machine():
    with socket.socket() as mine, pytest.raises(UsageError, match=r"args\[0\] \(socket.socket\) cannot travel"):
        pack(show, (mine,), {})


def test_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("rankguard.launchers.function.MOST", 1 << 20)
    pack(show, (b"x" * 500_000,), {})
    with pytest.raises(UsageError, match="the arguments have 1 MiB; at most 1 MiB travel to other machines"):
        pack(show, (b"x" * 1_100_000,), {})
