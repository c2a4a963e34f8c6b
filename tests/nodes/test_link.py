"""A link between two ends that have proven themselves: what arrives, in what order, and what never waits."""

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.nodes.loops import Loop, received

from rankguard._version import __version__
from rankguard.nodes import ends
from rankguard.nodes.link import Dialing, Link, address_of, listen, part
from rankguard.wire import Wire, packed


@pytest.fixture
def pair(loop: Loop) -> tuple[Link, Link]:
    return loop.linked()


def raw(link: Link) -> socket.socket:
    """The socket below a link."""
    return link._wire._socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_both_families_and_every_address(loop: Loop, host: str) -> None:
    coordinator, agent = loop.linked(host)

    expected = host or "127.0.0.1"
    assert (coordinator.peer, coordinator.local, agent.peer, agent.local) == (expected,) * 4
    coordinator.send({"is": "go"})
    agent.send({"is": "facts", "text": "\udc80 é"})
    assert (received(agent), received(coordinator)) == ([{"is": "go"}], [{"is": "facts", "text": "\udc80 é"}])


def test_every_address_of_this_machine_is_both_families(loop: Loop) -> None:
    listening = loop.listen("")
    _door, links = loop.door(listening)
    dialings = [loop.dial(address_of(listening)[1], host=host) for host in ("127.0.0.1", "::1", "localhost")]
    loop.until(lambda: all(each.link for each in dialings) and len(links) == 3)

    assert [each.link.peer for each in dialings[:2]] == ["127.0.0.1", "::1"]
    assert min(each.peer for each in links) == "127.0.0.1"  # and not ::ffff:127.0.0.1


def test_what_the_hello_says_arrives_and_no_descriptor_is_inherited(loop: Loop) -> None:
    heard = []
    listening = loop.listen()
    loop.door(listening, accept=lambda joining, hello: heard.append((joining.accept(), hello)))
    dialing = loop.dial(address_of(listening)[1], hello={"node": 3, "name": "ü"})
    loop.until(lambda: dialing.link and heard)

    link, hello = heard[0]
    assert (hello.message, hello.version, hello.peer) == ({"node": 3, "name": "ü"}, __version__, "127.0.0.1")
    assert [os.get_inheritable(each.fileno()) for each in (listening, link, dialing.link)] == [False] * 3
    assert raw(link).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    loop.closing(link)
    loop.closing(dialing.link)


def test_a_frame_that_is_squeezed_arrives_as_it_was(pair: tuple[Link, Link]) -> None:
    coordinator, agent = pair
    verdict = {"ranks": [{"rank": rank, "node": "host-a", "relation": "stopped"} for rank in range(5000)]}
    frame = packed(verdict, squeezed=True)
    assert len(frame) * 5 < len(packed(verdict))
    coordinator.send_packed(frame)
    coordinator.send({"is": "next"})

    assert received(agent, 2) == [verdict, {"is": "next"}]


def test_a_cut_that_is_over_is_noticed_soon(pair: tuple[Link, Link]) -> None:
    """The pause before a packet is sent again does not double beyond a second (where the kernel can be told)."""
    for link in pair:
        try:
            most = raw(link).getsockopt(socket.IPPROTO_TCP, 44)  # TCP_RTO_MAX_MS
        except OSError:
            pytest.skip("needs Linux 6.15")
        assert (most, raw(link).getsockopt(socket.IPPROTO_TCP, 16)) == (1000, 1)  # TCP_THIN_LINEAR_TIMEOUTS


def test_an_address_that_is_taken_says_so(loop: Loop) -> None:
    port = address_of(loop.listen(""))[1]

    for host in ("", "127.0.0.1"):
        with pytest.raises(OSError, match="in use"):
            listen(host, port)


def test_a_name_of_several_addresses_is_taken_with_the_first_of_them(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `localhost` is with both families: whoever dials it meets the one that came first."""
    first = loop.listen("127.0.0.1")
    port = address_of(first)[1]
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_asked, **_how: found)

    with pytest.raises(OSError, match="in use"):
        listen("head", port)


def test_a_message_of_many_frames_of_the_network_and_many_turns(pair: tuple[Link, Link]) -> None:
    coordinator, agent = pair
    said = {"payload": "x" * (3 << 20)}
    agent.send(said)
    turns = 0
    found: list[dict] = []
    while not found:
        agent.flush()
        found = coordinator.receive(most=64 << 10)
        turns += 1

    assert found == [said]
    assert turns >= (3 << 20) // (64 << 10)


def test_one_nodes_flood_leaves_the_others_their_turn(pair: tuple[Link, Link]) -> None:
    """A turn reads no more than it was told to, and what is left wakes the loop again."""
    coordinator, agent = pair
    for number in range(2000):
        agent.send({"n": number, "text": "x" * 1000})

    found = [coordinator.receive(most=100_000)]
    while sum(map(len, found)) < 2000:
        agent.flush()
        found.append(coordinator.receive(most=100_000))
    assert [each["n"] for turn in found for each in turn] == list(range(2000))
    assert max(map(len, found)) <= 100


def test_news_overtake_output_and_the_last_word_does_not(pair: tuple[Link, Link]) -> None:
    coordinator, agent = pair
    sent = 0
    while agent.send_output({"out": sent, "text": "x" * 10_000}):
        sent += 1
    agent.send({"is": "news"})
    agent.send_behind({"is": "done"})

    found: list[dict] = []
    while {"is": "done"} not in found:
        agent.flush()
        found += coordinator.receive()
    place = found.index({"is": "news"})
    assert [each["out"] for each in found if "out" in each] == list(range(sent))
    assert found[-1] == {"is": "done"}
    assert place < sent - ends.OUTPUT_BYTES // 10_000 + 50  # before the four megabytes that waited
    assert agent.dropped_bytes == len(packed({"out": sent, "text": "x" * 10_000}))


def test_output_that_nobody_takes_is_dropped_and_counted(pair: tuple[Link, Link]) -> None:
    _coordinator, agent = pair
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = [agent.send_output({"text": "x" * 50_000}, size=50_000) for _each in range(2000)]  # 100 MB

    assert agent.pending_bytes < ends.OUTPUT_BYTES + ends.AHEAD_BYTES + 150_000
    assert agent.dropped_bytes == 50_000 * taken.count(False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 << 10  # KiB


def test_an_end_that_takes_no_news_is_given_up(pair: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "NEWS_BYTES", 8 << 20)
    _coordinator, agent = pair
    sent = 0
    while not agent.closed:
        agent.send({"text": "x" * 100_000})
        sent += 1
        assert sent < 1000

    assert agent.error is not None
    assert agent.error.startswith("it takes nothing: ")
    assert (agent.pending, agent.send_output({})) == (False, False)


@pytest.mark.parametrize(
    ("garbage", "error"),
    [
        (struct.pack(">IB", 3, 0) + b"abc", "Expecting value: line 1 column 1 (char 0)"),
        (struct.pack(">IB", 2, 0) + b"[]", "it said what is no message"),
        (struct.pack(">IB", 2, 7) + b"{}", "pop from an empty deque"),
        (struct.pack(">IB", 0xFFFFFFFF, 0), "a message of 4,294,967,295 bytes, and 167,772,160 are allowed"),
        (struct.pack(">IB", 50_000, 0) + b"[" * 50_000, "maximum recursion depth exceeded"),
        (struct.pack(">IB", 6, 0) + b'"\xff\xff\xff\xff"', "invalid start byte"),
        (struct.pack(">IB", 9000, 0) + b"9" * 9000, "integer string conversion"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a message of 1,195,725,856 bytes"),
        (struct.pack(">IB", 3, 255) + b"abc", "incorrect header check"),
        (struct.pack(">IB", 5, 255) + zlib.compress(b"{}")[:5], "or cut off"),
    ],
)
def test_a_malformed_frame_closes_the_link_and_says_why(
    loop: Loop, pair: tuple[Link, Link], garbage: bytes, error: str
) -> None:
    coordinator, agent = pair
    agent.send_packed(garbage)
    loop.selector.register(agent, 2, (0, lambda _now: agent.pending and agent.flush()))
    loop.selector.register(coordinator, 1, (0, lambda _now: coordinator.receive()))
    loop.until(lambda: coordinator.closed)

    assert error in (coordinator.error or "")
    assert coordinator.receive() == []


def test_little_that_would_become_much_is_refused(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "FRAME_BYTES", 1 << 20)
    coordinator, agent = loop.linked()
    agent.send_packed(packed({"text": "x" * (2 << 20)}, squeezed=True))
    assert received(coordinator) == []

    assert coordinator.error == "it said what is no message: a message of more than 1,048,576 bytes, or cut off"


def test_half_a_frame_and_then_the_end(pair: tuple[Link, Link]) -> None:
    coordinator, agent = pair
    agent.send({"is": "whole"})
    raw(agent).sendall(packed({"is": "half"})[:-1])
    agent.close()

    assert received(coordinator, 2) == [{"is": "whole"}]
    assert (coordinator.closed, coordinator.error) == (True, None)


def test_an_end_that_is_killed_is_known_by_its_connection(loop: Loop) -> None:
    """What it had said before arrives."""
    listening = loop.listen()
    _door, links = loop.door(listening)
    program = f"""
        import os, signal, sys, time
        from rankguard.nodes.link import Dialing
        dialing = Dialing("127.0.0.1", {address_of(listening)[1]}, "t", {{}})
        while dialing.link is None:
            dialing.wake(time.monotonic())
        dialing.link.send({{"is": "facts"}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    loop.until(lambda: links)

    assert received(links[0], 2) == [{"is": "facts"}]
    assert links[0].closed
    assert process.wait() == -9


def test_when_it_was_heard_last(loop: Loop) -> None:
    coordinator, agent = loop.linked()
    before = coordinator.last_heard
    assert coordinator.receive() == []
    assert coordinator.last_heard == before
    agent.send({})
    received(coordinator)
    heard = coordinator.last_heard
    assert heard > before
    agent.close()
    while not coordinator.closed:
        coordinator.receive()
    assert coordinator.last_heard == heard  # its end is no sign of life


def test_half_a_message_is_a_sign_of_life(pair: tuple[Link, Link]) -> None:
    """One of many megabytes may take longer to come than a node may be silent."""
    coordinator, agent = pair
    before = coordinator.last_heard
    raw(agent).sendall(packed({"text": "x" * 1000})[:500])
    while coordinator.last_heard == before:
        assert coordinator.receive() == []


def test_parting_brings_the_last_word_though_the_other_end_goes_on(loop: Loop) -> None:
    """A socket that is closed with something unread resets the connection, and the verdict would be lost."""
    links = [loop.linked() for _each in range(5)]
    for coordinator, agent in links:
        for _each in range(50):
            agent.send_output({"text": "x" * 1000})  # not read by the coordinator
        coordinator.send({"is": "finish"})
    agents = [agent for _coordinator, agent in links]
    threads = parting([coordinator for coordinator, _agent in links])
    heard = [received(agent, 2) for agent in agents]
    for agent in agents:
        agent.close()

    assert threads() == []
    assert heard == [[{"is": "finish"}]] * 5


def parting(links: list[Link]):
    pool = ThreadPoolExecutor(1)
    left = pool.submit(part, links, 20.0)

    def result() -> list[Link]:
        with pool:
            return left.result()

    return result


def test_parting_does_not_wait_for_one_that_never_goes(loop: Loop) -> None:
    (one, agent), (other, gone) = loop.linked(), loop.linked()
    one.send({"is": "finish"})
    gone.close()

    assert part([one, other], 0.05) == [one]
    assert (one.fileno(), other.fileno()) == (-1, -1)
    assert received(agent, 2) == [{"is": "finish"}]
    assert agent.closed


def test_parting_goes_on_for_as_long_as_something_is_taken(loop: Loop) -> None:
    """A verdict of many ranks to many nodes may take the network longer than the bound for one that takes nothing."""
    coordinator, agent = loop.linked()
    coordinator.send({"text": "x" * (8 << 20)})
    begun = coordinator.pending_bytes

    def clock() -> float:
        """A second for each MiB that was taken."""
        return (begun - coordinator.pending_bytes) / (1 << 20)

    def take() -> list[dict]:
        heard = received(agent)
        agent.close()
        return heard

    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(take)
        assert part([coordinator], 3.0, clock) == []
    assert [len(each["text"]) for each in found.result()] == [8 << 20]
    assert begun / (1 << 20) > 3.0


def test_parting_ends_when_nothing_is_taken(loop: Loop) -> None:
    coordinator, _agent = loop.linked()
    coordinator.send({"text": "x" * (10 << 20)})
    assert part([coordinator], 0.05) == [coordinator]


def test_flushing_waits_only_so_long(pair: tuple[Link, Link]) -> None:
    coordinator, agent = pair
    agent.send({"text": "x" * 100})
    assert agent.flush_within(0)
    agent.send({"text": "x" * (10 << 20)})
    assert not agent.flush_within(0.01)  # nobody reads
    coordinator.close()
    assert not agent.flush_within(20.0)  # and nobody ever will: no need to wait


def test_a_wire_reads_one_message_and_no_byte_more() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(packed({"n": 1}) + packed({"n": 2}))
        wire = Wire(theirs, frame=100)

        assert wire.receive_one() == {"n": 1}
        assert json.loads(theirs.recv(100)[5:]) == {"n": 2}
        assert wire.receive_one() is None


def test_a_name_that_has_no_address_is_tried_again(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_knows(*_asked: object, **_how: object) -> list:
        """A resolver that cannot reach its servers takes a minute for the same answer."""
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_knows)
    dialing = loop.closing(Dialing("no-such-host.invalid", 1, "t", {}))
    dialing.watch(loop.selector, (0, dialing.wake))
    loop.dialings.append(dialing)
    loop.until(lambda: "there is no address of `no-such-host.invalid`: " in dialing.last_error)
    first = dialing.next_wake()
    loop.until(lambda: (dialing.next_wake() or 0) > (first or 0))

    assert (dialing.link, dialing.refused) == (None, None)
