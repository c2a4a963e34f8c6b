"""The order in which exits began: of real processes, where the kernel tells it at all."""

import os
import select
import signal
import threading
import time

import pytest

from rankguard.linux.exitorder import ExitOrder

SETTLED_S = 60


@pytest.fixture
def order():
    made = ExitOrder()
    if made.why_not is not None:
        pytest.skip(made.why_not)
    yield made
    made.close()


def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def test_a_large_process_began_before_the_small_one_that_lost_it(order):
    """Its connection closes when its memory has been given back, which the other's whole exit may overtake."""
    gone, held = os.pipe()
    ready, told = os.pipe()

    def large():
        memory = bytearray(300 << 20)
        os.write(told, b"x")
        signal.pause()
        assert memory

    def small():
        os.close(held)
        os.write(told, b"x")
        os.read(gone, 1)
        os._exit(3)

    small_pid, large_pid = child(small), child(large)
    os.close(held)
    assert len(os.read(ready, 1) + os.read(ready, 1)) == 2

    os.kill(large_pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(small_pid, 0)[1]) == 3
    os.waitpid(large_pid, 0)

    assert [(pid, place) for pid, place, _lived in order.take()] == [(large_pid, 0), (small_pid, 1)]
    assert list(order.take()) == []
    for fd in (gone, ready, told):
        os.close(fd)


def test_only_main_threads_of_own_children(order):
    def threads():
        for _ in range(20):
            one = threading.Thread(target=str)
            one.start()
            one.join()
        grandchild = child(lambda: os._exit(0))
        os.waitpid(grandchild, 0)
        os._exit(0)

    before = time.monotonic()
    pid = child(threads)
    os.waitpid(pid, 0)
    lived = time.monotonic() - before

    ((told, place, lived_s),) = order.take()
    assert (told, place) == (pid, 0)
    assert 0 < lived_s <= lived


def test_many_at_once_are_in_one_order(order):
    start, go = os.pipe()

    def waits():
        os.close(go)
        os.read(start, 1)
        os._exit(0)

    pids = [child(waits) for _ in range(50)]
    os.close(go)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(start)

    told = list(order.take())
    assert [place for _pid, place, _lived in told] == list(range(50))
    assert {pid for pid, _place, _lived in told} == set(pids)


def test_nothing_stays_when_it_is_closed(order):
    order.close()
    os.waitpid(child(lambda: os._exit(0)), 0)
    assert list(order.take()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_a_user_without_the_right_is_told_so():
    receive, send = os.pipe()

    def ask():
        os.setgid(65534)
        os.setuid(65534)
        made = ExitOrder()
        os.write(send, f"{made.why_not}, {list(made.take())}".encode())
        os._exit(0)

    os.waitpid(child(ask), 0)
    assert select.select([receive], [], [], SETTLED_S)[0]
    assert os.read(receive, 1000).decode() == "the order of exits is not known: Operation not permitted, []"
    os.close(receive)
    os.close(send)
