"""Who is let in, and what everybody else can cost: strangers on either side, with real sockets."""

import os
import re
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from tests.nodes.loops import Loop

from rankguard._version import __version__
from rankguard.nodes import dialing as dialing_module
from rankguard.nodes import tcp
from rankguard.nodes.door import AT_ONCE
from rankguard.nodes.joining import PROVE_S, UNPROVEN_BYTES
from rankguard.nodes.link import Dialing, Door, address_of
from rankguard.nodes.proof import COORDINATOR, nonce, prove
from rankguard.testing.clock import Clock
from rankguard.wire import Wire, packed


def untimed(error: str) -> str:
    """Without the seconds, which are the machine's; with a clock that is moved they are told exactly (below)."""
    return re.sub(r" \(tried for \d+ s\)$", "", error)


@pytest.fixture
def stranger(loop: Loop):
    """Connects to a port and does as it likes."""

    def connect(port: int) -> socket.socket:
        end = loop.closing(socket.create_connection(("127.0.0.1", port)))
        end.settimeout(20)
        return end

    return connect


def answered(loop: Loop, end: socket.socket) -> dict:
    """The next message that a stranger is told."""
    wire = Wire(end, frame=UNPROVEN_BYTES)
    found: list = []

    def heard() -> bool:
        if not found and (said := wire.receive_one()) is not None:
            found.append(said)
        return bool(found) or wire.closed

    loop.selector.register(end, 1, (0, lambda _now: None))
    loop.until(heard)
    loop.selector.unregister(end)
    return found[0] if found else {}


# ── Agents that are none of the job's ────────────────────────────────────────────────────────────────────────────


def test_another_token_is_turned_away_and_tried_again(loop: Loop) -> None:
    """Not for good: a job that has just ended may hold the port of the next one for a moment."""
    listening = loop.listen()
    door, links = loop.door(listening, "mine")
    where = f"127.0.0.1:{address_of(listening)[1]}"
    dialing = loop.dial(address_of(listening)[1], "theirs")
    loop.until(lambda: door.turned_away >= 2)

    assert (dialing.link, dialing.refused, links) == (None, None, [])
    assert untimed(dialing.last_error) == f"{where} turns us away: its token is not the job's"
    assert door.last_error == "127.0.0.1: its token is not the job's"
    right = loop.dial(address_of(listening)[1], "mine")
    loop.until(lambda: right.link and links)


@pytest.mark.parametrize("tokens", [("", "x"), ("x", ""), ("x", "y"), ("é", "e")])
def test_tokens_that_differ(loop: Loop, tokens: tuple[str, str]) -> None:
    listening = loop.listen()
    door, links = loop.door(listening, tokens[0])
    dialing = loop.dial(address_of(listening)[1], tokens[1])
    loop.until(lambda: door.turned_away)

    assert (dialing.link, links) == (None, [])


def test_without_a_token_both_still_speak_of_the_same(loop: Loop) -> None:
    listening = loop.listen()
    _door, links = loop.door(listening, "")
    dialing = loop.dial(address_of(listening)[1], "")
    loop.until(lambda: dialing.link and links)


def test_a_hello_is_good_once(loop: Loop, stranger) -> None:
    """A stranger that has read all of a connection can play it back, and is asked with another nonce."""
    listening = loop.listen()
    port = address_of(listening)[1]
    door, links = loop.door(listening)
    tapped = loop.listen()
    dialing = loop.dial(address_of(tapped)[1])
    seen = bytearray()
    ours = stranger(port)

    def tap(_now: float) -> None:
        """A stranger in the middle that passes on the challenge, and keeps the hello."""
        end = loop.closing(tapped.accept()[0])
        loop.selector.unregister(tapped)
        challenge = ours.recv(4096)
        end.sendall(challenge)
        loop.selector.register(end, 1, (0, lambda _now: seen.extend(end.recv(4096))))

    loop.selector.register(tapped, 1, (0, tap))
    loop.until(lambda: door.waiting)
    loop.until(lambda: seen.endswith(b"}"))
    again = stranger(port)
    assert answered(loop, again)["is"] == "challenge"
    again.sendall(seen)

    assert answered(loop, again)["statement"] == "its token is not the job's"
    assert (links, dialing.link) == ([], None)


def test_a_hello_that_was_altered_on_its_way(loop: Loop, stranger) -> None:
    listening = loop.listen()
    _door, links = loop.door(listening)
    end = stranger(address_of(listening)[1])
    challenge = answered(loop, end)["nonce"]
    mine, text = nonce(), '{"node":1}'
    hello = {"is": "hello", "nonce": mine, "rankguard": __version__, "hello": '{"node":2}'}
    end.sendall(packed(hello | {"proof": prove("t", "rankguard link 1 agent", challenge, mine, text)}))

    assert answered(loop, end)["statement"] == "its token is not the job's"
    assert links == []


def test_another_version_is_told_by_one_that_knows_the_token(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing_module, "__version__", "9.9.9")
    listening = loop.listen()
    door, _links = loop.door(listening)
    dialing = loop.dial(address_of(listening)[1])
    loop.until(lambda: dialing.refused)

    assert dialing.refused == f"it has rankguard 9.9.9, and the coordinator has {__version__}"
    assert dialing.hint == "install the same version on every node"
    assert (dialing.link, dialing.next_wake(), door.turned_away) == (None, None, 1)


def test_what_the_coordinator_itself_refuses(loop: Loop) -> None:
    listening = loop.listen()
    loop.door(
        listening, accept=lambda joining, hello: joining.refuse("node 3 has joined already", "look at --node-rank")
    )
    dialing = loop.dial(address_of(listening)[1])
    loop.until(lambda: dialing.refused)

    assert (dialing.refused, dialing.hint) == ("node 3 has joined already", "look at --node-rank")


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "oversized": struct.pack(">IB", UNPROVEN_BYTES + 1, 0),
    "no JSON": struct.pack(">IB", 3, 0) + b"abc",
    "deep": struct.pack(">IB", 60_000, 0) + b"[" * 60_000,
    "no object": packed([1]),  # type: ignore[arg-type]
    "no hello": packed({"is": "go"}),
    "odd nonce": packed({"is": "hello", "nonce": "x", "proof": "", "hello": "{}"}),
    "odd proof": packed({"is": "hello", "nonce": nonce(), "proof": 7, "hello": "{}", "rankguard": __version__}),
    "odd hello": packed({"is": "hello", "nonce": nonce(), "proof": "\udc80", "hello": 7, "rankguard": __version__}),
    "descriptors": struct.pack(">IB", 2, 3) + b"{}",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_cut_off_and_costs_the_job_nothing(loop: Loop, stranger, what: str) -> None:
    listening = loop.listen()
    door, links = loop.door(listening)
    end = stranger(address_of(listening)[1])
    end.sendall(GARBAGE[what])
    loop.until(lambda: door.turned_away)

    assert (door.waiting, links) == (0, [])
    dialing = loop.dial(address_of(listening)[1])
    loop.until(lambda: dialing.link and links)


def test_half_a_hello_and_gone(loop: Loop, stranger) -> None:
    listening = loop.listen()
    door, _links = loop.door(listening)
    end = stranger(address_of(listening)[1])
    end.sendall(packed({"is": "hello"})[:-3])
    end.close()
    loop.until(lambda: door.turned_away)

    assert door.last_error == "127.0.0.1: it went without a hello"


def test_a_hello_of_single_bytes_is_a_hello(loop: Loop, stranger) -> None:
    listening = loop.listen()
    _door, links = loop.door(listening)
    end = stranger(address_of(listening)[1])
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    challenge = answered(loop, end)["nonce"]
    mine = nonce()
    hello = {"is": "hello", "nonce": mine, "rankguard": __version__, "hello": "{}"}
    hello["proof"] = prove("t", "rankguard link 1 agent", challenge, mine, "{}")
    for each in packed(hello):
        end.send(bytes([each]))

    welcome = answered(loop, end)
    assert welcome == {"is": "welcome", "proof": prove("t", COORDINATOR, challenge, mine, "{}\n")}
    assert len(links) == 1


def test_a_thousand_that_say_nothing_keep_nobody_out(loop: Loop) -> None:
    listening = loop.listen()
    door, links = loop.door(listening)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    try:
        silent = []
        for _each in range(1000):
            end = loop.closing(socket.socket())
            end.setblocking(False)
            end.connect_ex(listening.getsockname())
            silent.append(end)
        dialing = loop.dial(address_of(listening)[1])
        loop.until(lambda: dialing.link and links and door.turned_away >= 1000 - AT_ONCE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert door.waiting <= AT_ONCE
    assert door.last_error == "127.0.0.1: it had to give way to the next"


def test_all_nodes_of_a_large_job_may_come_at_once(loop: Loop) -> None:
    listening = loop.listen()
    count = AT_ONCE + 20
    links: list = []
    door = loop.closing(
        Door(listening, "t", loop.selector, 0, lambda joining, _hello: links.append(joining.accept()), at_once=count)
    )
    dialings = [loop.closing(Dialing("127.0.0.1", address_of(listening)[1], "t", {})) for _each in range(count)]
    for each in dialings:  # they connect, and none says a word yet
        each.wake(each.next_wake())
    loop.until(lambda: door.waiting == count)
    loop.dialings += dialings
    for each in dialings:
        each.watch(loop.selector, (0, each.wake))
    loop.until(lambda: len(links) == count and all(each.link for each in dialings))
    for each in links:
        each.close()

    assert door.turned_away == 0


def test_one_that_says_nothing_is_dropped_in_time(loop: Loop, stranger) -> None:
    clock = Clock(100.0)
    listening = loop.listen()
    door = loop.closing(Door(listening, "t", loop.selector, 0, lambda joining, hello: None, clock))
    end = stranger(address_of(listening)[1])
    loop.until(lambda: door.waiting)
    assert door.next_wake() == 100.0 + PROVE_S
    door.wake(clock.advance(PROVE_S - 0.001))
    assert door.waiting == 1
    door.wake(clock.advance(0.001))

    assert (door.waiting, door.next_wake()) == (0, None)
    assert door.last_error == "127.0.0.1: it said nothing for 10 s"
    end.recv(4096)  # the challenge
    assert end.recv(1) == b""


def test_without_a_free_descriptor_callers_are_turned_away_and_the_loop_does_not_spin() -> None:
    """In a process of its own, since it takes every descriptor that there is."""
    program = """
        import os, resource, selectors, socket, time
        from rankguard.nodes.link import Dialing, Door, address_of, listen
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        selector, listening, links = selectors.DefaultSelector(), listen("127.0.0.1", 0), []
        door = Door(listening, "t", selector, 0, lambda joining, hello: links.append(joining.accept()))
        callers = [socket.socket() for _each in range(3)]
        for each in callers:
            each.setblocking(False)
        dialing = Dialing("127.0.0.1", address_of(listening)[1], "t", {})
        held = []
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        def turn(most=20.0):
            wake = door.next_wake()
            ready = selector.select(most if wake is None else max(0, min(most, wake - time.monotonic())))
            for key, _events in ready:
                key.data[1](time.monotonic())
            if wake is not None and time.monotonic() >= wake:
                door.wake(time.monotonic())
            return len(ready)
        callers[0].connect_ex(listening.getsockname())
        while not door.turned_away:
            turn()
        os.close(door._spare)
        door._spare = -1
        held.append(os.open("/dev/null", os.O_RDONLY))  # and the spare one, too, is somebody else's
        callers[1].connect_ex(listening.getsockname())
        turns, until = 0, time.monotonic() + 0.5
        while time.monotonic() < until:
            turn(until - time.monotonic())
            turns += 1
        assert turns < 20, turns
        for fd in held:
            os.close(fd)
        while dialing.link is None or not links:
            dialing.wake(time.monotonic())
            turn(0.001)
        print(door.last_error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout, done.returncode) == ("a connection was turned away: Too many open files\n", 0), done.stderr


# ── Coordinators that are none ───────────────────────────────────────────────────────────────────────────────────


def false_coordinator(loop: Loop, *said: bytes, gone: bool = False) -> tuple[int, list[socket.socket]]:
    """Listens, and says what it likes to everybody. Its port, and the ends of those that came."""
    listening = loop.listen()
    ends: list[socket.socket] = []

    def on_caller(_now: float) -> None:
        end = loop.closing(listening.accept()[0])
        for each in said:
            end.sendall(each)
        if gone:
            end.close()
        ends.append(end)

    loop.selector.register(listening, 1, (0, on_caller))
    return address_of(listening)[1], ends


CHALLENGE = {"is": "challenge", "nonce": nonce(), "rankguard": __version__}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "is no coordinator of rankguard"),
        ([packed({"is": "welcome", "proof": ""})], "is no coordinator of rankguard"),
        ([packed({"is": "welcome", "proof": prove("t", COORDINATOR, "", "", "")})], "is no coordinator of rankguard"),
        ([packed(CHALLENGE), packed({"is": "welcome", "proof": "0" * 64})], "is no coordinator of rankguard"),
        ([packed(CHALLENGE), packed({"is": "welcome"})], "is no coordinator of rankguard"),
        ([packed(CHALLENGE), packed(CHALLENGE)], "is no coordinator of rankguard"),
        ([packed(CHALLENGE | {"nonce": 7})], "is no coordinator of rankguard"),
        ([packed([])], "is no coordinator of rankguard"),  # type: ignore[arg-type]
        ([packed({"is": "refused", "statement": "go \x1b[31maway", "hint": ""})], "turns us away: go ?[31maway"),
        (
            [packed(CHALLENGE), packed({"is": "refused", "statement": "no", "hint": "", "proof": "0"})],
            "turns us away: no",
        ),
        ([struct.pack(">IB", UNPROVEN_BYTES + 1, 0)], "is no coordinator of rankguard"),
    ],
)
def test_whoever_does_not_know_the_token_is_not_believed(loop: Loop, said: list[bytes], error: str) -> None:
    port, ends = false_coordinator(loop, *said)
    dialing = loop.dial(port)
    loop.until(lambda: len(ends) >= 2)  # it dials again

    assert untimed(dialing.last_error) == f"127.0.0.1:{port} {error}"
    assert (dialing.link, dialing.refused) == (None, None)


def test_an_agents_own_proof_is_no_proof_of_the_coordinator(loop: Loop) -> None:
    """Reflected by whoever asked for it."""
    port, ends = false_coordinator(loop, packed(CHALLENGE))
    dialing = loop.dial(port)
    loop.until(lambda: ends)
    hello = answered(loop, ends[0])
    assert hello["is"] == "hello"
    ends[0].sendall(packed({"is": "welcome", "proof": hello["proof"]}))
    loop.until(lambda: dialing.last_error)

    assert dialing.link is None


def test_one_that_closes_at_once(loop: Loop) -> None:
    port, ends = false_coordinator(loop, gone=True)
    dialing = loop.dial(port)
    loop.until(lambda: len(ends) >= 2)

    assert untimed(dialing.last_error) == f"127.0.0.1:{port} closed the connection"


# ── Dialing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def step(dialing: Dialing, clock: Clock, until) -> None:
    """Let it go on while its clock stands still: only the kernel is waited for."""
    hang = time.monotonic() + 20
    while not until():
        assert time.monotonic() < hang
        dialing.wake(clock())


def test_pauses_double_to_a_second(loop: Loop) -> None:
    clock = Clock(100.0)
    nobody = loop.listen()
    port = address_of(nobody)[1]
    nobody.close()
    dialing = loop.closing(Dialing("127.0.0.1", port, "t", {}, clock))
    pauses = []
    for _each in range(7):
        step(dialing, clock, lambda: dialing._try is None and (dialing.next_wake() or 0) > clock())
        pauses.append(round(dialing.next_wake() - clock(), 3))
        clock.move_to(dialing.next_wake())

    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    clock.move_to(112.0)
    assert dialing.last_error == f"connection refused by 127.0.0.1:{port} (tried for 12 s)"


def test_a_coordinator_that_comes_late(loop: Loop) -> None:
    nobody = loop.listen()
    port = address_of(nobody)[1]
    nobody.close()
    dialing = loop.dial(port)
    loop.until(lambda: dialing.last_error)
    listening = loop.closing(tcp.listen("127.0.0.1", port))
    _door, links = loop.door(listening)
    loop.until(lambda: dialing.link and links)

    links[0].send({"is": "go", "text": "x" * (1 << 20)})
    loop.selector.register(links[0], 3, (0, lambda _now: links[0].flush()))
    loop.until(lambda: not links[0].pending or dialing.link.receive())


def test_one_that_takes_the_connection_and_says_nothing(loop: Loop) -> None:
    clock = Clock(100.0)
    port = address_of(loop.listen())[1]  # the kernel accepts for it
    dialing = loop.closing(Dialing("127.0.0.1", port, "t", {}, clock))
    step(dialing, clock, lambda: dialing.next_wake() == 100.0 + PROVE_S)
    dialing.wake(clock.advance(PROVE_S))

    assert dialing.last_error == f"127.0.0.1:{port} takes the connection and says nothing (tried for 10 s)"
    assert dialing.next_wake() == 110.05


def test_one_that_does_not_even_answer(loop: Loop) -> None:
    """A queue of connections that is full: the kernel drops what comes then, as a firewall does."""
    full = loop.closing(socket.socket())
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    for _each in range(3):
        loop.closing(socket.socket()).setblocking(False)
        loop._open[-1].connect_ex(full.getsockname())
    clock = Clock(100.0)
    dialing = loop.closing(Dialing("127.0.0.1", address_of(full)[1], "t", {}, clock))
    dialing.wake(clock())
    dialing.wake(clock.advance(dialing_module.CONNECT_S))

    assert dialing.last_error == f"no answer from 127.0.0.1:{address_of(full)[1]} (tried for 5 s)"


def test_every_address_of_a_name_is_tried(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = loop.listen()
    _door, links = loop.door(listening)
    port = address_of(listening)[1]
    found = [
        (socket.AF_INET, ("255.255.255.255", port)),
        (socket.AF_INET6, ("::1", port)),
        (socket.AF_INET, ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(tcp, "_found", lambda host, port, flags: found)
    dialing = loop.dial(port, host="head")
    loop.until(lambda: dialing.link and links)

    assert dialing.last_error.startswith(f"connection refused by [::1]:{port}")


def test_a_resolver_that_takes_its_time_stops_nobody(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    listening = loop.listen()
    _door, links = loop.door(listening)
    port = address_of(listening)[1]
    may, slow = threading.Event(), tcp._found

    def found(host: str, port: int, flags: int) -> list:
        if flags == 0:
            may.wait(20)
            host = "127.0.0.1"
        return slow(host, port, flags)

    monkeypatch.setattr(tcp, "_found", found)
    clock = Clock(time.monotonic())
    dialing = loop.closing(Dialing("head", port, "t", {}, clock))
    loop.dialings.append(dialing)
    dialing.watch(loop.selector, (0, lambda _now: dialing.wake(clock())))
    dialing.wake(clock())
    dialing.wake(clock.advance(6.0))
    assert dialing.last_error == "no answer to what the address of `head` is (tried for 6 s)"
    assert dialing.next_wake() is None  # one question at a time: its answer wakes us
    may.set()
    loop.until(lambda: dialing.link and links)


def lookups() -> list[threading.Thread]:
    """Threads that look up a name."""
    return [each for each in threading.enumerate() if each.name == "rankguard-lookup"]


def test_giving_up_leaves_no_descriptor_and_no_thread(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    may, slow = threading.Event(), tcp._found

    def found(host: str, port: int, flags: int) -> list:
        if flags == 0:
            may.wait(20)
        return slow(host, port, flags)

    monkeypatch.setattr(tcp, "_found", found)
    for each in lookups():  # of tests before this one: the answer is there a moment before the thread has ended
        each.join()
    before = set(os.listdir("/proc/self/fd"))
    dialing = Dialing("head", 1, "t", {})
    dialing.watch(loop.selector, (0, dialing.wake))
    dialing.wake(time.monotonic())
    (thread,) = lookups()
    assert len(loop.selector.get_map()) == 1
    dialing.close()
    dialing.close()
    dialing.wake(time.monotonic())
    may.set()
    thread.join()

    assert set(os.listdir("/proc/self/fd")) == before
    assert not loop.selector.get_map()


def test_a_connection_to_itself_is_none() -> None:
    """Dialing a free port of one's own machine may be given that very port, and nobody else could have it then."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        end.connect(end.getsockname())
        assert tcp.met_itself(end)
    with socket.socket() as end:
        assert not tcp.met_itself(end)


def test_how_an_address_is_written() -> None:
    assert tcp.shown("10.0.0.1", 1) == "10.0.0.1:1"
    assert tcp.shown("::1", 1) == "[::1]:1"
    assert tcp.plain(("::ffff:10.0.0.1", 1, 0, 0)) == "10.0.0.1"
    assert tcp.plain(("::1", 1, 0, 0)) == "::1"
