import asyncio
import contextlib
import gc
import logging
import multiprocessing as mp
import os
import queue
import select
import signal
import subprocess
import sys
import threading

import pytest
from tests.adopt import programs
from tests.adopt.programs import METHODS, Ranks

import rankguard

CULPRIT = 5


def readable(fd, timeout=10.0):
    return bool(select.select([fd], [], [], timeout)[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_death_in_the_block(method):
    with Ranks(method) as ranks:
        with pytest.raises(rankguard.RankFailed) as raised, rankguard.guard(ranks.processes) as guard:
            assert guard.verdict() is None
            ranks.order(CULPRIT, "kill", signal.SIGKILL)
            assert readable(guard.fileno())
            assert guard.verdict().culprit.rank == CULPRIT
            assert guard.future.result(10) is guard.verdict()
        verdict = raised.value.verdict
        assert (verdict.culprit.rank, verdict.culprit.cause.kind, verdict.culprit.phase) == (
            CULPRIT,
            "killed",
            "running",
        )
        ranks.processes[CULPRIT].join()
        assert ranks.processes[CULPRIT].exitcode == -9


def test_a_death_that_nobody_had_time_to_see():
    with Ranks() as ranks, pytest.raises(rankguard.RankFailed) as raised, rankguard.guard(ranks.processes):
        ranks.order(CULPRIT, "exit", 0)
        ranks.processes[CULPRIT].join()
    assert raised.value.verdict.culprit.rank == CULPRIT


def test_a_death_before_the_block():
    with Ranks() as ranks:
        ranks.order(CULPRIT, "kill", signal.SIGKILL)
        ranks.processes[CULPRIT].join()
        told = queue.SimpleQueue()
        with rankguard.guard(ranks.processes, on_failure=told.put):
            assert told.get(timeout=10).culprit.rank == CULPRIT
        assert told.empty()


def test_a_death_between_the_guard_and_its_block():
    with Ranks() as ranks:
        guard = rankguard.guard(ranks.processes)
        ranks.order(CULPRIT, "exit", 4)
        ranks.processes[CULPRIT].join()
        with pytest.raises(rankguard.RankFailed) as raised, guard:
            pass
        assert raised.value.verdict.culprit.ending.code == 4


def test_all_goes_well():
    with Ranks(count=2) as ranks:
        with rankguard.guard(ranks.processes) as guard:
            pass
        assert guard.verdict() is None
        assert guard.future.result(0) is None
        assert guard.fileno() == -1
        assert guard.stopping() is None  # too late to matter, and no error


def test_stopping():
    with Ranks(count=3) as ranks:
        endings = []
        with rankguard.guard(ranks.processes, on_ending=lambda *told: endings.append(told)) as guard:
            guard.stopping()
            guard.stopping()
            ranks.order(0, "exit", 0)
            ranks.order(1, "exit", 3)
            ranks.processes[2].kill()
            for process in ranks.processes:
                process.join()
        assert guard.verdict() is None
        names = {process.name for process in ranks.processes}
        assert ({name for name, _ in endings}, len(endings)) == (names, 3)
        assert {ending.code for _, ending in endings} == {0, 3, None}


def test_stopping_does_not_hide_what_came_before():
    with Ranks(count=3) as ranks:
        with pytest.raises(rankguard.RankFailed), rankguard.guard(ranks.processes) as guard:
            ranks.order(1, "exit", 0)
            ranks.processes[1].join()
            guard.stopping()
        guard = rankguard.guard(ranks.processes[::2])
        guard.stopping()  # before the block begins
        with guard:
            ranks.order(2, "exit", 1)
            ranks.processes[2].join()


def test_callbacks():
    """Each death once, the first one's verdict once, on our own thread; what they raise is logged."""
    with Ranks(count=4) as ranks:
        told = queue.SimpleQueue()

        def on_ending(name, ending):
            told.put((threading.current_thread().name, name, ending.code))
            raise LookupError("of on_ending")

        def on_failure(verdict):
            told.put((threading.current_thread().name, verdict.culprit.rank))
            raise SystemExit("of on_failure")

        records = []
        handler = logging.Handler()
        handler.emit = records.append
        logging.getLogger("rankguard").addHandler(handler)
        try:
            names = ["a", None, "c", "d"]
            with rankguard.guard(ranks.processes, names=names, on_failure=on_failure, on_ending=on_ending) as guard:
                ranks.order(2, "exit", 7)
                assert told.get(timeout=10) == ("rankguard-guard", "c", 7)
                assert told.get(timeout=10) == ("rankguard-guard", 2)
                ranks.order(0, "exit", 8)
                assert told.get(timeout=10) == ("rankguard-guard", "a", 8)
                ranks.order(1, "exit", 9)
                assert told.get(timeout=10) == ("rankguard-guard", ranks.processes[1].name, 9)
                assert guard.verdict().culprit.name == "c"
        finally:
            logging.getLogger("rankguard").removeHandler(handler)
        assert told.empty()
        assert [record.exc_info[0] for record in records] == [LookupError, SystemExit, LookupError, LookupError]


def test_on_failure_may_use_the_guard():
    with Ranks(count=3) as ranks:
        done = threading.Event()

        def on_failure(verdict):
            guard.stopping()
            guard.forget(ranks.processes[0])
            assert guard.verdict() is verdict
            done.set()

        with rankguard.guard(ranks.processes, on_failure=on_failure) as guard:
            ranks.order(2, "kill", signal.SIGKILL)
            assert done.wait(10)


ENDS_ITSELF = """
import os, sys
import rankguard
from tests.adopt.programs import Ranks
ranks = Ranks(count=2)
with rankguard.guard(ranks.processes, on_failure=lambda verdict: (ranks.processes[0].kill(), os._exit(40 + verdict.culprit.rank))):
    ranks.order(1, "exit", 1)
    ranks.processes[0].join()
    sys.stdin.read()
"""


def test_on_failure_may_end_the_process():
    path = os.pathsep.join([os.getcwd(), *sys.path])
    run = subprocess.Popen(
        [sys.executable, "-c", ENDS_ITSELF], stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    assert run.wait(30) == 41
    run.stdin.close()


def test_an_error_of_the_block():
    """It is the context of the failure: what it met was most likely that. Requests to end are obeyed."""
    with Ranks(count=2) as ranks:
        ranks.order(1, "exit", 1)
        ranks.processes[1].join()
        with pytest.raises(rankguard.RankFailed) as raised, rankguard.guard(ranks.processes):
            raise BrokenPipeError("peer")
        assert isinstance(raised.value.__context__, BrokenPipeError)
        with pytest.raises(KeyboardInterrupt) as raised, rankguard.guard(ranks.processes):
            raise KeyboardInterrupt
        assert "exit code 1" in raised.value.__notes__[0]
        outer, inner = rankguard.guard(ranks.processes), rankguard.guard(ranks.processes)
        with pytest.raises(rankguard.RankFailed) as raised, outer, inner:
            pass
        assert raised.value.verdict is inner.verdict()
        with pytest.raises(BrokenPipeError), rankguard.guard(ranks.processes, on_failure=lambda verdict: None):
            raise BrokenPipeError("peer")


# ── Members ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_add():
    with Ranks(count=2) as ranks, Ranks(count=2) as more:
        with pytest.raises(rankguard.RankFailed) as raised, rankguard.guard(ranks.processes) as guard:
            guard.add(more.processes[0], name="late")
            guard.add(more.processes[1].pid)
            more.order(0, "exit", 3)
            assert readable(guard.fileno())
        verdict = raised.value.verdict
        assert (verdict.culprit.rank, verdict.culprit.name, verdict.world_size) == (2, "late", 4)


def test_add_one_that_has_ended():
    with Ranks(count=2) as ranks:
        ranks.order(1, "exit", 3)
        ranks.processes[1].join()
        told = queue.SimpleQueue()
        with rankguard.guard(ranks.processes[:1], on_failure=told.put) as guard:
            guard.add(ranks.processes[1])
            assert told.get(timeout=10).culprit.ending.code == 3


def test_add_to_nothing_and_after_a_failure():
    with Ranks(count=3) as ranks:
        told = queue.SimpleQueue()
        with rankguard.guard([], on_failure=told.put, on_ending=lambda *a: told.put(a)) as guard:
            guard.add(ranks.processes[0])
            ranks.order(0, "exit", 1)
            assert told.get(timeout=10)[1].code == 1
            assert told.get(timeout=10).culprit.rank == 0
            guard.add(ranks.processes[1])
            ranks.order(1, "exit", 2)
            assert told.get(timeout=10)[1].code == 2
            guard.stopping()
            guard.add(ranks.processes[2])
            ranks.order(2, "exit", 3)
            assert told.get(timeout=10)[1].code == 3
        assert told.empty()
        with pytest.raises(rankguard.UsageError):
            guard.add(ranks.processes[0])


def test_what_is_no_function_is_told_before_there_is_a_failure_to_tell():
    with pytest.raises(rankguard.UsageError, match="on_failure must be a function, not 5"):
        rankguard.guard([os.getppid()], on_failure=5)


def test_forget():
    with Ranks(count=3) as ranks:
        endings = []
        with rankguard.guard(ranks.processes, on_ending=lambda *told: endings.append(told)) as guard:
            guard.forget(ranks.processes[1])
            guard.forget(ranks.processes[0].pid)
            with pytest.raises(rankguard.UsageError):
                guard.forget(ranks.processes[1])
            for number in (0, 1):
                ranks.order(number, "exit", 1)
                ranks.processes[number].join()
        assert endings == []
        with pytest.raises(rankguard.RankFailed) as raised, rankguard.guard(ranks.processes[2:]) as guard:
            guard.add(ranks.processes[0])  # it comes back, dead
        assert (raised.value.verdict.culprit.rank, raised.value.verdict.world_size) == (1, 2)


def test_a_verdict_without_the_forgotten():
    failure = pytest.raises(rankguard.RankFailed)
    with Ranks(count=4) as ranks, failure as raised, rankguard.guard(ranks.processes) as guard:
        guard.forget(ranks.processes[1])
        ranks.order(3, "exit", 1)
        assert readable(guard.fileno())
    verdict = raised.value.verdict
    assert (verdict.culprit.rank, verdict.world_size) == (3, 3)
    assert [row.rank for row in verdict.ranks] == [0, 2, 3]


def test_a_restart_is_no_failure():
    """Elastic: forget the old one, end it, add the new one."""
    with Ranks(count=2) as ranks, Ranks(count=1) as new, rankguard.guard(ranks.processes) as guard:
        guard.forget(ranks.processes[1])
        rankguard.stop([ranks.processes[1]])
        guard.add(new.processes[0])
        assert guard.verdict() is None


# ── Kept by wait_ready ───────────────────────────────────────────────────────────────────────────────────────────────


def test_kept():
    with Ranks(delivered=range(8)) as ranks:
        infos, guard = rankguard.wait_ready(ranks.processes, ranks.readers, timeout=30, keep=True)
        assert [info["rank"] for info in infos] == list(range(8))
        ranks.order(CULPRIT, "exit", 0)
        assert readable(guard.fileno())  # it is armed already
        with pytest.raises(rankguard.RankFailed) as raised, guard:
            pass
        culprit = raised.value.verdict.culprit
        assert (culprit.rank, culprit.was_ready, culprit.phase, culprit.cause.kind) == (
            CULPRIT,
            True,
            "ready",
            "exit-code",
        )


def test_kept_and_closed():
    before = threading.active_count()
    with Ranks(count=2, delivered=range(2)) as ranks:
        _infos, guard = rankguard.wait_ready(ranks.processes, ranks.readers, keep=True)
        guard.close()
        guard.close()
        ranks.order(0, "exit", 0)
        assert guard.verdict() is None
    assert threading.active_count() == before


# ── The host ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_asyncio():
    async def serve(ranks):
        with rankguard.guard(ranks.processes, on_failure=lambda _verdict: None) as guard:
            loop = asyncio.get_running_loop()
            news = loop.create_future()
            loop.add_reader(guard.fileno(), news.set_result, None)
            with pytest.raises(asyncio.TimeoutError):  # giving up on one wait must not end the future for others
                await asyncio.wait_for(asyncio.wrap_future(guard.future), 0.001)
            ranks.order(CULPRIT, "kill", signal.SIGKILL)
            await asyncio.wait_for(news, 10)
            loop.remove_reader(guard.fileno())
            return await asyncio.wait_for(asyncio.wrap_future(guard.future), 10)

    with Ranks() as ranks:
        assert asyncio.run(serve(ranks)).culprit.rank == CULPRIT


def forked_child(guard, told):
    """What a forked child finds: the guard does nothing, and its files are closed."""
    anonymous = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of listdir itself
            link = os.readlink(f"/proc/self/fd/{fd}")
            anonymous += [link] if "pidfd" in link or "eventpoll" in link or "eventfd" in link else []
    try:
        with guard:
            guard.stopping()
            guard.forget(0)
    except BaseException as error:
        told.send(repr(error))
    guard.close()
    gc.collect()
    told.send(anonymous)


@pytest.mark.parametrize("failed", [False, True])
def test_a_child_forked_while_a_guard_lives(failed):
    with Ranks(count=2) as ranks:
        reader, told = mp.Pipe(duplex=False)
        with rankguard.guard(ranks.processes, on_failure=lambda _verdict: None) as guard:
            if failed:
                ranks.order(0, "exit", 1)
                assert readable(guard.fileno())
            process = mp.Process(target=forked_child, args=(guard, told))
            process.start()
            assert reader.recv() == []
            process.join()
            assert process.exitcode == 0
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    forked_child(guard, told)
                    code = 0
                finally:
                    os._exit(code)
            assert reader.recv() == []
            assert os.waitpid(pid, 0)[1] == 0
            # … and nothing that it did has reached us.
            ranks.order(1, "exit", 2)
            assert guard.future.result(10).culprit.rank == (0 if failed else 1)
        reader.close()
        told.close()


def test_a_forked_child_may_guard_for_itself():
    with Ranks(count=2) as ranks, rankguard.guard(ranks.processes, on_failure=lambda _verdict: None):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with rankguard.guard(ranks.processes[:1], on_failure=lambda _verdict: None) as own:
                    ranks.order(0, "exit", 3)
                    code = 10 * own.future.result(10).culprit.ending.code
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 30 << 8


def test_many_guards_leak_nothing():
    with Ranks(count=3) as ranks:
        for round_ in range(105):
            if round_ == 5:
                before = (programs.open_fds(), threading.active_count())
            with rankguard.guard(ranks.processes) as guard:
                guard.forget(ranks.processes[0])
                guard.add(ranks.processes[0])
            rankguard.guard(ranks.processes)  # never entered
        assert (programs.open_fds(), threading.active_count()) == before


def test_stopping_beside_deaths():
    """Whatever the order of the two in time, there is no error and no failure after it returned."""
    for _ in range(30):
        with Ranks(count=2) as ranks:
            failures = []
            with rankguard.guard(ranks.processes, on_failure=failures.append) as guard:
                ranks.order(0, "exit", 0)
                guard.stopping()
                known = list(failures), guard.verdict()
                ranks.order(1, "exit", 0)
                ranks.processes[1].join()
            assert known[1] is guard.verdict()
