"""Memory of real processes and the limit of real groups."""

import mmap
import os
import resource
import sys

import pytest
from tests.linux._evidence_helpers import MIB, hold, inside, inside_limit, job, limited_group

from rankguard.linux.glance import glance
from rankguard.linux.hierarchies import own_groups
from rankguard.linux.memory import HOST, MemoryDomain
from rankguard.model import Memory

LIMIT_FILE = "memory.limit_in_bytes" if "memory" in own_groups() else "memory.max"


def as_json(state):
    return [state.limit_bytes, state.used_bytes, state.limit_from, state.cache_bytes, state.peak_bytes]


def test_a_rank_s_memory_is_what_it_holds_until_it_ends():
    with job(nprocs=1) as (_, (rank,)):
        before = glance(rank.pid)[1]  # a fork of this test run holds its pages already
        rank.ask("hold 50")
        alive = glance(rank.pid)[1]
        os.kill(rank.pid, 9)
        rank.ended()
        zombie = glance(rank.pid)[1]
        rank.reap()
        gone = glance(rank.pid)[1]
    assert 50 * MIB <= alive.rss_bytes - before.rss_bytes < 60 * MIB
    assert alive.rss_bytes <= alive.peak_bytes
    assert (zombie, gone) == (Memory(), Memory())


def test_the_peak_outlasts_the_memory():
    memory = hold(40)
    full = glance(os.getpid())[1]
    memory.close()
    after = glance(os.getpid())[1]
    assert after.rss_bytes <= full.rss_bytes - 35 * MIB
    assert after.peak_bytes >= full.rss_bytes - 5 * MIB


def test_the_limit_of_our_own_group_applies():
    def work():
        kept = hold(30)
        return [*as_json(MemoryDomain().state(7)), MemoryDomain().state(7).ranks_bytes, len(kept)]

    limit, used, source, cache, peak, ranks, _ = inside_limit(100, work)

    assert (limit, ranks) == (100 * MIB, 7)
    assert 30 * MIB <= used <= 60 * MIB
    assert used <= peak + MIB
    assert source.startswith(f"{LIMIT_FILE} of /")
    assert "/rgtest-" in source
    assert cache < 10 * MIB


def test_the_smallest_of_all_ancestors_applies():
    with limited_group(100) as path:
        if LIMIT_FILE == "memory.max":
            with open(f"{path}/cgroup.subtree_control", "w") as control:
                control.write("+memory")
        inner = f"{path}/inner"
        os.mkdir(inner)
        try:
            unlimited = inside(inner, lambda: as_json(MemoryDomain().state()))
            with open(f"{inner}/{LIMIT_FILE}", "w") as file:
                file.write(str(60 * MIB))
            limited = inside(inner, lambda: as_json(MemoryDomain().state()))
        finally:
            os.rmdir(inner)
    assert unlimited[0] == 100 * MIB
    assert unlimited[2] == f"{LIMIT_FILE} of {path}"
    assert limited[0] == 60 * MIB
    assert limited[2] == f"{LIMIT_FILE} of {inner}"


def test_page_cache_is_told_apart(tmp_path):
    def work():
        with open(tmp_path / "big", "wb") as file:
            for _ in range(30):
                file.write(bytes(MIB))
            file.flush()
            os.fsync(file.fileno())
        return as_json(MemoryDomain().state())

    with limited_group(100) as path:
        _, used, _, cache, _ = inside(path, work)
        (tmp_path / "big").unlink()
    if cache < MIB:
        pytest.skip("files here have no page cache of their own (tmpfs, or active at once)")
    assert 25 * MIB <= cache <= used


def test_a_limit_of_the_process_is_named():
    def work():
        resource.setrlimit(resource.RLIMIT_AS, (512 * MIB, 512 * MIB))
        return as_json(MemoryDomain().state())

    assert inside(None, work) == [512 * MIB, None, "RLIMIT_AS", None, None]


def test_without_a_limit_the_machine_is_the_limit():
    domain = MemoryDomain({})
    state = domain.state()
    total = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    assert (state.limit_bytes, state.limit_from) == (total, HOST)
    assert 0 < state.used_bytes < total


def test_the_state_reads_a_few_small_files_for_each_limit():
    """It is read at the moment of a failure; `bench/sampling.py` has what that costs."""

    def work():
        domain = MemoryDomain()
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        domain.state()
        return [len(domain.limits), sorted(opened)]

    limits, opened = inside_limit(100, work)

    assert opened.count("/proc/meminfo") == 1
    assert 3 <= len(opened) <= 1 + 5 * limits
    assert len(set(opened)) == len(opened)
