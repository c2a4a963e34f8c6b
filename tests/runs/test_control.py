"""The control socket: what it answers, and that no client costs the job anything."""

import contextlib
import json
import os
import selectors
import socket
import stat
import struct
from pathlib import Path

import pytest
from tests.runs.jobs import TELL, Jobs, Live, until

from rankguard.runs.live import NotLive, ask
from rankguard.supervisor.control import Control
from rankguard.wire import Wire

WAITS = f"r, w = os.pipe()\n{TELL}; os.read(r, 1)"


@pytest.fixture
def live(jobs: Jobs) -> Live:
    return jobs.start(2, WAITS)


@pytest.fixture
def address(live: Live) -> str:
    return os.readlink(live.folder / "control")


def connected(address: str) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.connect(address)
    end.settimeout(100)  # a hang
    return end


def packed(body: bytes, size: int | None = None, fds: int = 0) -> bytes:
    return struct.pack(">IB", len(body) if size is None else size, fds) + body


def cut_off(end: socket.socket) -> bool:
    """The other end has let go."""
    try:
        while end.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_it_is_for_its_user_alone(live: Live, address: str) -> None:
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(address)).st_mode) == 0o700
    assert len(address) < 60


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_another_user_is_not_listened_to(live: Live, address: str) -> None:
    os.chmod(os.path.dirname(address), 0o777)  # as with an abstract name, which has no mode
    os.chmod(address, 0o777)
    end, ours = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        try:
            other = connected(address)
            other.send(packed(b'{"do":"report"}'))
            end.send(b"cut" if other.recv(10) == b"" else b"answered")
        except ConnectionError:
            end.send(b"cut")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert ours.recv(10) == b"cut"
    end.close()
    ours.close()


def test_report_tells_what_is_known(live: Live, address: str) -> None:
    told = ask(address, {"do": "report"}, 10)

    assert (told["verdict"]["outcome"], told["verdict"]["world_size"]) == ("running", 2)
    assert [rank["pid"] for rank in told["verdict"]["ranks"]] == [live.pid(0), live.pid(1)]


@pytest.mark.parametrize("what", ["stop", "signal", "expect", None, ["x"], {"do": 1}, "x" * 1000])
def test_nothing_can_be_changed_here(address: str, live: Live, what: object) -> None:
    told = ask(address, {"do": what, "signal": 9, "timeout": 0}, 10)

    assert told["is"] == "error"
    assert live.process.poll() is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 5000,
        packed(b"not json"),
        packed(b"[1, 2]"),
        packed(b'"text"'),
        packed(b"\xff\xfe"),
        packed(b"[" * 4000),
        packed(b"", size=2**32 - 1) + b"x" * 8000,
        packed(b'{"do": "report"}', fds=3),
        packed(b'{"do": "report", "x": NaN}') * 50,
    ],
)
def test_garbage_is_cut_off(live: Live, address: str, data: bytes) -> None:
    with connected(address) as end:
        try:
            end.sendall(data)
            end.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        assert cut_off(end)
    assert ask(address, {"do": "progress"}, 10)["is"] == "progress"


def test_descriptors_are_not_taken(live: Live, address: str) -> None:
    supervisor = live.ours()[2]
    before = _nulls(supervisor)
    with connected(address) as end, open("/dev/null") as null:
        for n in range(20):  # a message that goes on for long
            socket.send_fds(end, [packed(b"", size=4000) if n == 0 else b" "], [null.fileno()] * 100)
        assert ask(address, {"do": "progress"}, 10)["is"] == "progress"
        assert _nulls(supervisor) == before


def _nulls(pid: int) -> int:
    """How often it holds /dev/null. (Its other files come and go: it looks at memory, and writes.)"""
    found = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/null"
    return found


def test_one_that_asks_and_does_not_read_is_cut_off(live: Live, address: str) -> None:
    with connected(address) as end:
        try:
            for _ in range(100_000):
                end.sendall(packed(b'{"do": "report"}'))
        except ConnectionError:
            pass
        else:
            pytest.fail("it took 100,000 asks and nobody read an answer")

    assert ask(address, {"do": "progress"}, 10)["is"] == "progress"


def test_many_clients_the_oldest_gives_way(live: Live, address: str) -> None:
    idle = [connected(address) for _ in range(30)]

    assert ask(address, {"do": "progress"}, 10)["is"] == "progress"
    assert cut_off(idle[0])
    for end in idle:
        end.close()
    until(lambda: len(os.listdir(f"/proc/{live.ours()[2]}/fd")) < 60)


def test_an_ask_may_come_a_byte_at_a_time(live: Live, address: str) -> None:
    with connected(address) as end:
        for byte in packed(b'{"do": "progress"}'):
            end.send(bytes([byte]))
        wire = Wire(end)
        answers: list[object] = []
        until(lambda: answers.extend(wire.receive()) or answers)
    assert answers[0][0]["is"] == "progress"  # type: ignore[index]  # a message


def test_it_goes_with_the_job(live: Live, address: str) -> None:
    live.process.terminate()
    live.process.communicate()

    assert not os.path.lexists(os.path.dirname(address))
    assert not os.path.lexists(live.folder / "control")
    with pytest.raises(NotLive):
        ask(address, {"do": "report"}, 1)


def test_it_goes_with_a_supervisor_that_is_killed(live: Live, address: str) -> None:
    os.kill(live.ours()[2], 9)
    live.process.communicate()

    assert not os.path.lexists(os.path.dirname(address))


@pytest.mark.slow
def test_a_supervisor_that_is_stopped_holds_nobody_up(live: Live, address: str, jobs: Jobs) -> None:
    os.kill(live.ours()[2], 19)

    told = jobs.ask("report")  # in a minute at most
    os.kill(live.ours()[2], 18)

    assert (told.returncode, told.stdout.splitlines()[0]) == (0, "running: 2 ranks running")
    assert "it does not" in told.stdout


def test_no_descriptor_is_free(jobs: Jobs) -> None:
    """A supervisor that has none left turns callers away, and goes on."""
    live = jobs.start(1, WAITS)
    supervisor, address = live.ours()[2], os.readlink(live.folder / "control")
    import resource

    used = len(os.listdir(f"/proc/{supervisor}/fd"))
    soft, hard = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{supervisor}/fd")))
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (highest + 1, hard))
    idle = [connected(address) for _ in range(highest + 2 - used + 8)]
    ticks = _cpu_ticks(supervisor)
    assert cut_off(idle[-1])
    for end in idle:
        end.close()
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (soft, hard))

    assert ask(address, {"do": "report"}, 10)["verdict"]["world_size"] == 1
    assert _cpu_ticks(supervisor) - ticks < 100  # it did not spin on the caller that waits


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_front_s_own_wire_is_another(live: Live, address: str) -> None:
    """What a terminal asks does not reach the front's stderr, nor the journal as a fact."""
    for rank in (0, 1):
        live.pid(rank)  # the journal has all of the start
    facts = len(live.facts)
    for _ in range(3):
        ask(address, {"do": "report"}, 10)

    assert len(live.facts) == facts
    live.process.terminate()
    _out, err = live.process.communicate()
    assert "report" not in json.dumps(err.splitlines()[:1])


def test_where_no_folder_can_be_made_its_name_is_abstract() -> None:
    with selectors.EpollSelector() as selector:
        control = Control(f"@rankguard-test-{os.getpid()}", selector, lambda ask, now, reply: reply({"is": ask["do"]}))
        with connected("\0" + control.address[1:]) as end:
            end.sendall(packed(b'{"do": "progress"}'))
            wire = Wire(end)
            answers: list[object] = []
            while not answers:
                for key, _events in selector.select(5):
                    key.data[1](0.0)
                answers += wire.receive()
        control.close()

        assert answers == [({"is": "progress"}, [])]
        assert not selector.get_map()


def test_an_answer_that_comes_when_its_client_is_gone(jobs: Jobs) -> None:
    """Stacks take a while; whoever asked need not wait for them."""
    live = jobs.start(8, WAITS)
    address = os.readlink(live.folder / "control")
    for _ in range(5):
        with connected(address) as end:
            end.sendall(packed(b'{"do": "stacks"}'))

    assert ask(address, {"do": "stacks", "rank": 0}, 30)["is"] == "stacks"
    assert live.process.poll() is None


@pytest.mark.parametrize("rank", [-1, 2, True, "0", 1.5, [0]])
def test_stacks_of_no_rank(live: Live, address: str, rank: object) -> None:
    assert ask(address, {"do": "stacks", "rank": rank}, 10)["is"] == "error"
