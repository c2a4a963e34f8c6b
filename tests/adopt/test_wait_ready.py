import contextlib
import errno
import multiprocessing as mp
import os
import pickle
import signal
import subprocess
import sys
import threading

import pytest
from tests.adopt import programs
from tests.adopt.programs import METHODS, Ranks

import rankguard
from rankguard.adopted import readers as readers_module
from rankguard.adopted import watch as watch_module

CULPRIT = 5


def failed(ranks, error=rankguard.RankFailed, **options):
    with pytest.raises(error) as raised:
        rankguard.wait_ready(ranks.processes, ranks.readers, **options)
    verdict = raised.value.verdict
    assert verdict.outcome == "failed"
    assert str(raised.value)
    assert rankguard.Verdict.from_dict(verdict.to_dict()) == verdict
    assert pickle.loads(pickle.dumps(raised.value)).verdict == verdict
    return verdict


# ── The seed: rank 0 is silent, and a later one dies ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("order", "kind", "ending"),
    [
        (("kill", signal.SIGKILL), "killed", ("signal", "SIGKILL", 9)),
        (("kill", signal.SIGSEGV), "crash", ("signal", "SIGSEGV", 11)),
        (("exit", 3), "exit-code", ("exit", 3)),
        (("exit", 0), "exit-before-ready", ("exit", 0)),
        (("raise", "no kernel image"), "exit-code", ("exit", 1)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_later_rank_dies(method, order, kind, ending):
    with Ranks(method, delivered=(1, 2, 3)) as ranks:
        ranks.order(CULPRIT, *order)
        verdict = failed(ranks)
        culprit = verdict.culprit
        assert (culprit.rank, culprit.cause.kind, culprit.pid) == (CULPRIT, kind, ranks.processes[CULPRIT].pid)
        shown = ("signal", culprit.ending.signal, culprit.ending.number)
        assert (shown if culprit.ending.kind == "signal" else ("exit", culprit.ending.code)) == ending
        assert (culprit.phase, culprit.was_ready) == ("starting", False)
        assert verdict.world_size == 8
        assert [row.ending.kind for row in verdict.ranks].count("alive") == 7
        assert verdict.ranks[0].memory.rss_bytes > 0
        # What is theirs stays theirs: the status is still there to be collected.
        ranks.processes[CULPRIT].join()
        assert ranks.processes[CULPRIT].exitcode == (-ending[2] if ending[0] == "signal" else ending[1])
        assert all(each.is_alive() for each in ranks.processes if each is not ranks.processes[CULPRIT])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [("kill", signal.SIGKILL), ("exit", 0)], ids=["killed", "exit-0"])
def test_one_that_has_delivered_dies(method, order):
    with Ranks(method, delivered=(2, CULPRIT)) as ranks:
        ranks.order(CULPRIT, *order)
        culprit = failed(ranks).culprit
        assert (culprit.rank, culprit.was_ready, culprit.phase) == (CULPRIT, True, "ready")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("duplex", [False, True])
def test_one_is_killed_in_the_middle_of_its_message_and_we_hold_its_writer(method, duplex):
    with Ranks(method, duplex=duplex) as ranks:
        ranks.order(CULPRIT, "half and die")
        verdict = failed(ranks)
        assert (verdict.culprit.rank, verdict.culprit.ending.signal) == (CULPRIT, "SIGKILL")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("duplex", [False, True])
def test_all_deliver(method, duplex):
    with Ranks(method, count=4, delivered=range(4), duplex=duplex) as ranks:
        infos = rankguard.wait_ready(ranks.processes, ranks.readers, timeout=30)
        assert infos == [{"rank": number, "status": "ready"} for number in range(4)]


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exactly_one_message_is_taken():
    with Ranks(count=2) as ranks:
        for number in range(2):
            for word in ("first", "second", "x" * 3_000_000):
                ranks.order(number, "send", word)
        assert rankguard.wait_ready(ranks.processes, ranks.readers) == ["first", "first"]
        assert [reader.recv() for reader in ranks.readers] == ["second", "second"]
        assert rankguard.wait_ready(ranks.processes, ranks.readers) == ["x" * 3_000_000] * 2
        assert all(os.get_blocking(reader.fileno()) for reader in ranks.readers)


def test_a_pipe_ends_while_its_process_lives():
    with Ranks(close_writers=True) as ranks:
        ranks.order(CULPRIT, "close")
        culprit = failed(ranks).culprit
        assert (culprit.rank, culprit.cause.kind, culprit.ending.kind) == (CULPRIT, "protocol-error", "alive")
        assert "ended before a message came, and it lives" in culprit.cause.statement


def test_a_pipe_ends_because_its_process_does():
    with Ranks(close_writers=True) as ranks:
        ranks.order(CULPRIT, "close")
        ranks.order(CULPRIT, "exit", 7)
        culprit = failed(ranks).culprit
        assert (culprit.rank, culprit.cause.kind, culprit.ending.code) == (CULPRIT, "exit-code", 7)


def test_a_pipe_ends_within_a_message():
    with Ranks(close_writers=True) as ranks:
        ranks.order(CULPRIT, "write", (1000).to_bytes(4, "big") + b"abc")
        ranks.order(CULPRIT, "close")
        culprit = failed(ranks).culprit
        assert culprit.cause.kind == "protocol-error"
        assert "after 3 of 1000 bytes" in culprit.cause.statement


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xff\xff\xfe", "no message of multiprocessing"),
        ((5).to_bytes(4, "big") + b"hello", "cannot be unpickled"),
        (b"\0\0\0\0", "cannot be unpickled"),
    ],
)
def test_something_else_comes(data, says):
    with Ranks() as ranks:
        ranks.order(CULPRIT, "write", data)
        culprit = failed(ranks).culprit
        assert (culprit.rank, culprit.cause.kind) == (CULPRIT, "protocol-error")
        assert says in culprit.cause.statement


def test_unpickling_raises():
    with Ranks() as ranks:
        ranks.order(CULPRIT, "write", frame(pickle.dumps(programs.Poison())))
        culprit = failed(ranks).culprit
        assert culprit.cause.kind == "protocol-error"
        assert "LookupError: no such class here" in culprit.cause.statement


def frame(data):
    return len(data).to_bytes(4, "big") + data


def sends_a_connection(writer, up, life, then):
    """Receiving it connects back to this process."""
    other, _kept = mp.Pipe()
    writer.send(other)
    up.send(os.getpid())
    if then is not None:
        os.kill(os.getpid(), then)
    life.recv()


@contextlib.contextmanager
def connecting_back(then):
    pipes = [mp.Pipe(duplex=False) for _ in range(3)]
    (reader, writer), (up, up_writer), (life, _life_writer) = pipes
    process = mp.Process(target=sends_a_connection, args=(writer, up_writer, life, then), daemon=True)
    process.start()
    try:
        up.recv()
        yield process, reader
    finally:
        let_go(process, [end for pipe in pipes for end in pipe])


def let_go(process, ends):
    process.kill()
    process.join()
    for end in ends:
        end.close()


def test_a_message_that_connects_back():
    with connecting_back(None) as (process, reader):
        [connection] = rankguard.wait_ready([process], [reader], timeout=30)
        connection.close()


def test_a_message_that_connects_back_to_a_dead_sender():
    with connecting_back(signal.SIGKILL) as (process, reader):
        programs.until(lambda: programs.state(process.pid) == "Z")  # until then it may well answer
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready([process], [reader])
    assert raised.value.verdict.culprit.ending.signal == "SIGKILL"


def test_a_message_that_connects_back_to_a_sender_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(readers_module, "FETCH", 0.1)
    threads = threading.active_count()
    with connecting_back(signal.SIGSTOP) as (process, reader):
        programs.until(lambda: programs.state(process.pid) == "T")
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready([process], [reader])
    culprit = raised.value.verdict.culprit
    assert culprit.cause.kind == "protocol-error"
    assert "its sender did not answer for 0.1 s" in culprit.cause.statement
    programs.until(lambda: threading.active_count() <= threads)


# ── Not ready, not in time ───────────────────────────────────────────────────────────────────────────────────────────


def test_it_says_that_it_is_not_ready():
    with Ranks(delivered=(1, 2)) as ranks:
        ranks.order(CULPRIT, "send", {"status": "error", "reason": "no such model", "api_key": "hunter2secret"})
        verdict = failed(ranks, is_ready=lambda message: message["status"] == "ready")
        culprit = verdict.culprit
        assert (culprit.rank, culprit.cause.kind, verdict.exit_code) == (CULPRIT, "reported-failure", 1)
        assert "no such model" in culprit.cause.statement
        assert "hunter2secret" not in verdict.to_json()


def test_it_says_that_it_is_not_ready_and_ends():
    with Ranks(delivered=(1, 2), close_writers=True) as ranks:
        ranks.order(CULPRIT, "send", {"status": "no such model"})
        ranks.order(CULPRIT, "exit", 1)
        ranks.processes[CULPRIT].join()
        culprit = failed(ranks, is_ready=lambda message: message["status"] == "ready").culprit
        assert (culprit.rank, culprit.cause.kind, culprit.ending.code) == (CULPRIT, "reported-failure", 1)


def test_is_ready_raises():
    with Ranks(count=2, delivered=(1,)) as ranks, pytest.raises(KeyError) as raised:
        rankguard.wait_ready(ranks.processes, ranks.readers, is_ready=lambda message: message["state"] == "ready")
    assert "process 1" in raised.value.__notes__[0]


def test_timeout_names_who_is_late():
    with Ranks(delivered=set(range(8)) - {3, CULPRIT}) as ranks:
        verdict = failed(ranks, rankguard.ReadyTimeout, timeout=0.05)
        assert verdict.culprit.cause.kind == "ready-timeout"
        assert {verdict.culprit.rank, *verdict.either} == {3, CULPRIT}
        assert verdict.exit_code == 124
        with pytest.raises(TimeoutError):
            rankguard.wait_ready(ranks.processes[:1], ranks.readers[3:4], timeout=0)


def test_what_is_there_already_is_in_time():
    with Ranks(count=2, delivered=(0, 1)) as ranks:
        assert len(rankguard.wait_ready(ranks.processes, ranks.readers, timeout=0)) == 2


# ── Numbers and kinds of processes ───────────────────────────────────────────────────────────────────────────────────


def test_more_processes_than_readers():
    with Ranks(count=4, delivered=(0, 1)) as ranks:
        assert len(rankguard.wait_ready(ranks.processes, ranks.readers[:2])) == 2
    with Ranks(count=4, delivered=(0,)) as ranks:
        ranks.order(3, "exit", 4)
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready(ranks.processes, ranks.readers[:2])
        assert raised.value.verdict.culprit.rank == 3
    with Ranks(count=4, delivered=(0,)) as ranks:
        with pytest.raises(rankguard.ReadyTimeout) as raised:
            rankguard.wait_ready(ranks.processes, ranks.readers[:2], timeout=0.01)
        assert (raised.value.verdict.culprit.rank, raised.value.verdict.either) == (1, ())


def test_more_readers_than_processes():
    with Ranks(count=4, delivered=range(4)) as ranks:
        assert len(rankguard.wait_ready(ranks.processes[:1], ranks.readers)) == 4
    with Ranks(count=4, delivered=range(3)) as ranks:
        with pytest.raises(rankguard.ReadyTimeout) as raised:
            rankguard.wait_ready(ranks.processes[:1], ranks.readers, timeout=0.01)
        assert raised.value.verdict.culprit.rank == 0


def test_no_readers():
    with Ranks(count=2) as ranks:
        assert rankguard.wait_ready(ranks.processes, []) == []
        ranks.order(1, "exit", 0)
        ranks.processes[1].join()
        with pytest.raises(rankguard.RankFailed):
            rankguard.wait_ready(ranks.processes, [])


def test_names():
    with Ranks(count=2, names=True) as ranks:
        ranks.order(1, "exit", 2)
        assert failed(ranks).culprit.name == "scheduler-1"
        verdict = failed(ranks, names=["tokenizer", None])
        assert [row.name for row in verdict.ranks] == ["tokenizer", "scheduler-1"]


POPEN = "import os; r = os.fdopen(int(os.environ['LIFE'])); print(flush=True); r.read(); os._exit(9)"


def popen(code=POPEN):
    life, life_writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[life], env=os.environ | {"LIFE": str(life)}
    )
    os.close(life)
    process.stdout.readline()
    return process, life_writer


def test_popen_and_its_pid():
    process, life = popen()
    reader, writer = mp.Pipe(duplex=False)
    os.close(life)
    for watched in (process, process.pid):
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready([watched], [reader])
        assert raised.value.verdict.culprit.ending.code == 9
        assert process.returncode is None  # nobody has looked for it
    assert process.wait() == 9
    with pytest.raises(rankguard.RankFailed) as raised:  # reaped before we came: its owner still knows
        rankguard.wait_ready([process], [reader])
    assert raised.value.verdict.culprit.ending.code == 9
    with pytest.raises(rankguard.RankFailed) as raised:  # … and of a bare pid nobody does
        rankguard.wait_ready([process.pid], [reader])
    assert (raised.value.verdict.culprit.ending.kind, raised.value.verdict.culprit.ending.code) == ("exit", None)
    process.stdout.close()
    reader.close()
    writer.close()


def parent_of(up, life, reap):
    """A grandchild of the test, which its parent reaps or leaves as a zombie."""
    child_life, child_life_writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(child_life_writer)
        os.read(child_life, 1)
        os._exit(11)
    up.send(pid)
    life.recv()
    os.close(child_life_writer)
    if reap:
        os.waitpid(pid, 0)
    life.recv()


@pytest.mark.parametrize("reap", [True, False])
def test_a_grandchild_by_its_pid(reap):
    up, up_writer = mp.Pipe(duplex=False)
    life, life_writer = mp.Pipe(duplex=False)
    reader, writer = mp.Pipe(duplex=False)
    parent = mp.Process(target=parent_of, args=(up_writer, life, reap), daemon=True)
    parent.start()
    there, there_writer = mp.Pipe(duplex=False)
    there_writer.send("the parent is ready")

    def watched(message):
        """Both are held by now, so that the end of the grandchild is news though somebody reaps it."""
        life_writer.send(None)
        return True

    try:
        with pytest.raises(rankguard.RankFailed) as raised:
            rankguard.wait_ready([parent, up.recv()], [there, reader], is_ready=watched)
        culprit = raised.value.verdict.culprit
        assert (culprit.rank, culprit.ending.code, culprit.name) == (1, 11, None)
    finally:
        let_go(parent, [up, up_writer, life, life_writer, reader, writer, there, there_writer])


def test_what_cannot_be_watched():
    reader, writer = mp.Pipe(duplex=False)
    on_disk = open(__file__)  # noqa: SIM115  # closed below
    process = mp.Process(target=print)
    for processes, readers, options in [
        ([], [reader], {}),
        ([process], [reader], {}),
        ([os.getpid()], [reader], {}),
        (["x"], [reader], {}),
        ([True], [reader], {}),
        ([os.getppid()], [writer], {}),
        ([os.getppid()], [reader, reader], {}),
        ([os.getppid()], [7], {}),
        ([os.getppid()], [reader], {"timeout": -1}),
        ([os.getppid()], [reader], {"timeout": float("nan")}),
        ([os.getppid()], [reader], {"names": []}),
        ([os.getppid()], [reader], {"names": [1]}),  # its verdict could not be printed
        ([os.getppid()], [on_disk], {}),
    ]:
        before = programs.open_fds()
        with pytest.raises(rankguard.UsageError):
            rankguard.wait_ready(processes, readers, **options)
        assert programs.open_fds() == before
    reader.close()
    on_disk.close()
    with pytest.raises(rankguard.UsageError):
        rankguard.wait_ready([os.getppid()], [reader])
    writer.close()


# ── Who was first ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("megabytes", [0, 400])
def test_victims_are_not_blamed(megabytes):
    pairs = [mp.Pipe() for _ in range(7)]
    up, up_writer = mp.Pipe(duplex=False)
    life, life_writer = mp.Pipe(duplex=False)
    args = ([own for own, _ in pairs], up_writer, life, megabytes)
    culprit = mp.Process(target=programs.cascade_culprit, args=args, daemon=True)
    culprit.start()
    for own, _theirs in pairs:
        own.close()
    victims = [
        mp.Process(target=programs.cascade_victim, args=(theirs, up_writer, life), daemon=True)
        for _own, theirs in pairs
    ]
    for victim in victims:
        victim.start()
    for _ in range(8):
        up.recv()
    reader, writer = mp.Pipe(duplex=False)
    processes = [*victims[:CULPRIT], culprit, *victims[CULPRIT:]]
    os.kill(culprit.pid, signal.SIGKILL)
    with pytest.raises(rankguard.RankFailed) as raised:
        rankguard.wait_ready(processes, [reader])
    verdict = raised.value.verdict
    assert (verdict.culprit.rank, verdict.culprit.cause.kind, verdict.either) == (CULPRIT, "killed", ())
    for process in processes:
        process.join()
    for end in (up, up_writer, life, life_writer, reader, writer, *(theirs for _own, theirs in pairs)):
        end.close()


def test_one_that_only_lost_its_peer_is_not_blamed():
    """Its report comes first; the verdict waits for a better culprit, for a moment."""
    with Ranks() as ranks:
        ranks.order(2, "send", {"status": "error", "reason": "ConnectionResetError: Connection reset by peer"})
        assert ranks.readers[2].poll(10)
        begin = watch_module.Watch.rehearse
        with pytest.MonkeyPatch.context() as patch:
            # The other one dies once the report can be read.
            patch.setattr(watch_module.Watch, "rehearse", lambda self: (begin(self), ranks.order(CULPRIT, "exit", 3)))
            verdict = failed(ranks, is_ready=lambda message: message["status"] == "ready")
        assert (verdict.culprit.rank, verdict.culprit.ending.code) == (CULPRIT, 3)
        assert verdict.ranks[2].relation == "collateral"


# ── The host ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_in_a_thread():
    with Ranks() as ranks:
        found = []

        def wait():
            try:
                rankguard.wait_ready(ranks.processes, ranks.readers)
            except rankguard.RankFailed as error:
                found.append(error.verdict.culprit.rank)

        thread = threading.Thread(target=wait)
        thread.start()
        ranks.order(CULPRIT, "kill", signal.SIGKILL)
        thread.join()
        assert found == [CULPRIT]


def test_an_interrupt_goes_through_and_leaves_nothing():
    with Ranks(count=2) as ranks:
        before = programs.open_fds()

        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        handler = signal.signal(signal.SIGALRM, stop)
        begin = watch_module.Watch.rehearse
        try:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
                # It comes while they are waited for, and not before.
                soon = (signal.ITIMER_REAL, 0.02)
                patch.setattr(watch_module.Watch, "rehearse", lambda self: (begin(self), signal.setitimer(*soon)))
                rankguard.wait_ready(ranks.processes, ranks.readers)
        finally:
            signal.signal(signal.SIGALRM, handler)
        assert programs.open_fds() == before
        ranks.order(0, "send", 1)
        ranks.order(1, "send", 2)
        assert rankguard.wait_ready(ranks.processes, ranks.readers) == [1, 2]


HOST = """
import multiprocessing as mp, os, signal, sys, threading
from tests.adopt.programs import Ranks
import rankguard
from rankguard.adopted.watch import Watch
if __name__ == "__main__":
    how, method = sys.argv[1:]
    if how == "ignore":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    ranks = Ranks(method)
    if how == "thief":
        def thief():
            while True:
                try: os.waitpid(-1, 0)
                except ChildProcessError: return
        threading.Thread(target=thief, daemon=True).start()
    begin = Watch.start
    def then_kill(watch):
        begin(watch)
        ranks.order(5, "kill", 9)
    Watch.start = then_kill
    try:
        rankguard.wait_ready(ranks.processes, ranks.readers)
    except rankguard.RankFailed as error:
        culprit = error.verdict.culprit
        print(culprit.rank, culprit.ending.kind, culprit.ending.number)
    sys.stdout.flush()
    for process in ranks.processes:
        os.kill(process.pid, 9) if process is not ranks.processes[5] else None
    os._exit(0)
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["ignore", "thief"])
def test_a_host_that_takes_the_statuses(how, method, tmp_path):
    """The failure is told at once. On Linux 6.15 and later so is the status."""
    script = tmp_path / "host.py"
    script.write_text(HOST)
    path = os.pathsep.join([os.getcwd(), *sys.path])
    run = subprocess.run(
        [sys.executable, script, how, method],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert run.stdout in ("5 signal 9\n", "5 exit None\n"), run.stderr
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15):
        assert run.stdout == "5 signal 9\n"


def test_what_nobody_knows_is_unknown(monkeypatch):
    monkeypatch.setattr("rankguard.adopted.process.reaped_ending", lambda _pidfd: None)
    with Ranks(count=2) as ranks:
        pid = ranks.processes[1].pid
        ranks.order(1, "exit", 3)
        pidfd = os.pidfd_open(pid)
        guard = rankguard.guard([ranks.processes[0], pid])  # it holds them from here on
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        ranks.processes[1]._popen.returncode = 3  # for its own clean-up: Process.close asks
        with pytest.raises(rankguard.RankFailed) as raised, guard:
            pass
        culprit = raised.value.verdict.culprit
        assert (culprit.rank, culprit.ending.kind, culprit.ending.code) == (1, "exit", None)
        assert culprit.cause.kind == "unknown"


def test_a_rank_that_was_dead_before_we_came():
    with Ranks() as ranks:
        ranks.order(CULPRIT, "kill", signal.SIGKILL)
        ranks.processes[CULPRIT].join()
        culprit = failed(ranks).culprit
        assert (culprit.rank, culprit.ending.signal) == (CULPRIT, "SIGKILL")
        # What the counters of OOM kills said before it died is not known.
        assert "no counter of OOM kills could be read" in [each.statement for each in culprit.cause.evidence]


@pytest.mark.parametrize("broken", ["selectors.DefaultSelector", "rankguard.adopted.watch.Witnesses", "os.pidfd_open"])
def test_no_file_is_left_when_files_run_out(broken):
    pidfd_open, first = os.pidfd_open, []

    def run_out(*args):
        if broken == "os.pidfd_open" and not first:
            first.append(pidfd_open(*args))
            return first[0]
        raise OSError(errno.EMFILE, "Too many open files")

    with Ranks(count=2) as ranks:
        before = programs.open_fds()
        for door in (lambda: rankguard.guard(ranks.processes), lambda: rankguard.wait_ready(ranks.processes, [])):
            first.clear()
            with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="Too many open files"):
                patch.setattr(broken, run_out)
                door()
        assert programs.open_fds() == before


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_nothing_leaks(method):
    context = mp.get_context(method)
    started = set()
    with Ranks(count=3) as others:
        for round_ in range(205):
            if round_ == 5:
                before = (programs.open_fds(), threading.active_count(), len(watch_module._live))
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=writer.send if round_ % 2 else os._exit, args=(round_ % 2,))
            process.start()
            started.add(process.pid)
            with pytest.raises(rankguard.RankFailed):
                rankguard.wait_ready([*others.processes, process], others.readers)
            assert [each.kind for each in rankguard.stop([process])] == ["exit"]
            process.close()
            reader.close()
            writer.close()
        assert programs.zombies() & started == set()  # there may be others: pytest is a subreaper
        assert (programs.open_fds(), threading.active_count(), len(watch_module._live)) == before
