"""What one rank holds: real processes, real children, real groups; files that stay open and files that do not."""

import mmap
import os

import pytest
from tests.linux._evidence_helpers import MIB, hold, inside, job, limited_group, wait_readable

from rankguard.linux.footprint import Footprint
from rankguard.linux.hierarchies import own_groups
from rankguard.linux.memory_news import MemoryNews


def looked(footprint):
    footprint.look_closer()
    assert footprint.read()
    return footprint.held


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "opened each time"])
def test_what_a_rank_holds_until_it_ends(keep):
    before = len(os.listdir("/proc/self/fd"))
    with job(nprocs=1) as (_, (rank,)):
        found = Footprint(rank.pid, keep=keep)
        empty = looked(found)
        rank.ask("hold 50")
        full = looked(found)
        os.kill(rank.pid, 9)
        rank.ended()
        at_end = found.read(), found.held
        rank.reap()
        assert (found.read(), found.held) == (False, full)  # whoever is given its pid is not asked
        found.close()
    assert 49 * MIB <= full - empty < 55 * MIB
    assert at_end == (False, full)
    assert found.peak >= full - MIB
    assert len(os.listdir("/proc/self/fd")) == before


def test_pages_that_ranks_share_are_nobodys_own():
    """Resident memory would count them for each."""
    shared = mmap.mmap(-1, 40 * MIB)
    shared[:: mmap.PAGESIZE] = b"x" * (40 * MIB // mmap.PAGESIZE)

    def touch(orders, answers):
        for offset in range(0, len(shared), mmap.PAGESIZE):
            shared[offset]
        os.write(answers, b"touched\n")
        os.read(orders, 1)

    with job(nprocs=1, body=touch) as (_, (rank,)):
        assert rank.answer() == "touched"
        found = Footprint(rank.pid)
        held = looked(found)
        assert found.rss - held > 35 * MIB
        found.close()


def test_children_count():
    def with_child(orders, answers):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(writer)
            kept = hold(30)
            os.write(answers, b"held\n")
            os.read(reader, 1)  # ends with its parent
            kept.close()
            os._exit(0)
        os.read(orders, 1)

    with job(nprocs=1, body=with_child) as (_, (rank,)):
        assert rank.answer() == "held"
        found = Footprint(rank.pid)
        assert looked(found) - found.own > 29 * MIB
        found.close()


def test_a_group_of_its_own_counts_all_but_page_cache(tmp_path):
    with job(nprocs=1) as (groups, (rank,)):
        group = groups.memory_group(0)
        if group is None:
            pytest.skip("; ".join(groups.missing))
        rank.ask("hold 1")  # it has joined
        found = Footprint(rank.pid, group)
        empty = looked(found)
        rank.ask("hold 40")
        full = looked(found)
        found.close()
    assert 39 * MIB <= full - empty < 50 * MIB
    assert empty < 30 * MIB  # what it shares with this process since its fork is charged to this one


def test_a_limit_that_a_rank_set_itself():
    def limited(orders, answers):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        os.write(answers, b"set\n")
        os.read(orders, 1)

    with job(nprocs=1, body=limited) as (_, (rank,)):
        assert rank.answer() == "set"
        found = Footprint(rank.pid)
        (name, used, limit), *others = found.limits()
        found.close()
    assert (name, limit, others) == ("RLIMIT_AS", 8 << 30, [])
    assert 0 < used < limit


def test_the_kernel_tells_of_an_oom_before_its_victim_has_ended():
    def work():
        groups = own_groups()
        from rankguard.linux.memory import MemoryDomain

        news = MemoryNews(groups, MemoryDomain(groups).limits)
        if not any("events" in told for told in news.told):
            return "; ".join(news.missing)
        with job(nprocs=1, own={}) as (_, (rank,)):
            quiet = news.read()[0]
            rank.tell("hold 200")
            assert wait_readable(news.fileno())
            ooms: list[str] = []
            while not ooms:
                assert wait_readable(news.fileno())
                ooms, look = news.read()
                news.look_done()
            rank.ended()
        news.close()
        return [quiet, len(set(ooms)), look]

    with limited_group(100) as path:
        told = inside(path, work)
    if isinstance(told, str):
        pytest.skip(told)
    assert told == [[], 1, True]


def test_with_few_descriptors_nothing_is_watched():
    news = MemoryNews(own_groups(), (), few_fds=True)
    assert (news.fileno(), news.read(), news.told) == (-1, ([], False), [])
    assert news.missing == ["no memory events: too few open files (`ulimit -n`)"]


def test_a_look_is_asked_for_once_until_it_is_done(tmp_path):
    """Pressure on the machine may come at any time in a test: what matters is that it is told once."""
    news = MemoryNews(own_groups(), ())
    news.watch_pressure()
    assert sum(news.read()[1] for _ in range(10)) <= len(news._look)
    pressure = [told for told in news.told if "pressure of" in told]
    assert len(pressure) == 1 or news.missing
    news.forget_pressure()
    news.look_done()
    news.watch_pressure()  # anew, as for the next attempt
    news.close()
    assert news.fileno() == -1
