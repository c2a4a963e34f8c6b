"""Who is found below a process, and what is learnt of each end: real trees, real kills."""

import os
import resource
import signal
import time

import pytest
from tests.linux._trees import Loop, Tree

from rankguard.linux import census as census_module
from rankguard.linux import exitstatus
from rankguard.linux import roster as roster_module
from rankguard.linux.census import Census, stat_of
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.foreign import UNKNOWN
from rankguard.linux.roster import Roster, title_of
from rankguard.linux.signals import name
from rankguard.model import Ending

KILLED = Ending("signal", signal=name(9), number=9)


@pytest.fixture
def tree():
    made = Tree()
    yield made
    made.close()


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


class Told:
    """A roster and what it has told."""

    def __init__(self, loop, census, **options):
        self.seen, self.titles, self.ends, self.notes, self.at = {}, [], {}, [], {}
        self.roster = Roster(
            loop.selector,
            census,
            on_seen=lambda entry, now: self.seen.update({entry.pid: entry}),
            on_title=lambda entry, now: self.titles.append((entry.pid, entry.title)),
            on_end=self._on_end,
            note=self.notes.append,
            **options,
        )
        loop.parts.append(self.roster)

    def _on_end(self, entry, ending, now):
        self.ends[entry.pid] = ending
        self.at[entry.pid] = time.monotonic()


@pytest.fixture
def watched(tree, loop):
    return Told(loop, Census(tree.root, heir=os.getpid(), spare=tree.others))


@pytest.mark.parametrize("source", ["_by_children", "_by_listing"])
def test_everybody_below_by_each_source(tree, source):
    census = Census(tree.root, heir=os.getpid(), spare=tree.others)
    assert census.look((), 0.0) == []
    census._sources = [getattr(census, source)]
    deep = tree.fork("a")
    for above, below in (("a", "b"), ("b", "c")):
        deep = tree.fork(below, by=above)
    assert tree.tell("c", "session") == "done"
    orphan = tree.fork("d", by="b")
    spared = os.fork()
    if spared == 0:
        signal.pause()
    os.kill(tree.pids["b"], signal.SIGKILL)
    assert tree.tell("a", "reap", str(tree.pids["b"])) == "9"
    census._spare = lambda: {spared, *tree.others()}

    found = census.look((), 1.0)

    os.kill(spared, signal.SIGKILL)
    os.waitpid(spared, 0)
    assert {stat.pid for stat in found} == {tree.pids["a"], deep, orphan}
    assert found[0].pid == tree.pids["a"]
    assert {stat.ppid for stat in found} == {tree.root, os.getpid()}
    assert census.look([stat.pid for stat in found], 2.0) == []


def test_a_kernel_that_does_not_tell_children(tree, monkeypatch):
    """Everybody of the machine is asked once for a parent, and then those that are new."""
    first = tree.fork("b", by=(tree.fork("a"), "a")[1])
    monkeypatch.setattr(census_module, "tells_children", lambda: False)
    census = Census(tree.root, heir=os.getpid(), spare=tree.others)

    known = {stat.pid for stat in census.look((), 0.0)}
    second = tree.fork("c", by="b")

    assert known == {tree.pids["a"], first}
    assert [stat.pid for stat in census.look(known, 100.0)] == [second]


def test_a_number_that_was_somebody_else_s(tree):
    """Where numbers come round, one that was none of ours may be one of ours when it is looked at again."""
    census = Census(tree.root)
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
    assert census.look((), 0.0) == []
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)
    try:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(stranger - 1))
    except OSError:
        pytest.skip("may not say which number comes next")
    if tree.fork("a") != stranger:
        pytest.skip("somebody else has that number now")
    census._sources = [census._by_listing]

    assert [stat.pid for stat in census.look((), 10.0)] == [stranger]


def test_a_group_of_the_job_is_asked(tree):
    """Membership is all that counts there: also of one whose parent is somebody else."""
    groups = JobGroups.create(f"census-{os.getpid()}", 1)
    for fd in groups.join_fds(0):
        os.close(fd)
    path = groups.memory_group(0)
    if path is None:
        groups.remove()
        pytest.skip("; ".join(groups.missing))
    census = Census(tree.root, groups=(path,))
    assert census.look((), 0.0) == []
    stranger = os.fork()
    if stranger == 0:
        signal.pause()
    try:
        with open(f"{path}/cgroup.procs", "w") as file:
            file.write(str(stranger))
        census._sources = [census._by_groups]

        assert [stat.pid for stat in census.look((), 0.1)] == [stranger]
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
        groups.remove()


def test_a_tree_of_somebody_else_keeps_those_that_were_known(tree):
    census = Census(tree.pids["root"])
    first, second = tree.fork("a"), tree.fork("b", by="a")
    known = {stat.pid for stat in census.look((), 0.0)}
    assert known == {first, second}
    os.kill(first, signal.SIGKILL)
    assert tree.tell("root", "reap", str(first)) == "9"
    third = tree.fork("c", by="b")

    assert [stat.pid for stat in census.look({second}, 0.1)] == [third]
    assert [stat.pid for stat in census.look({second}, 100.0)] == [third]


@pytest.mark.parametrize("end", [KILLED, Ending("exit", code=7), Ending("exit", code=0)])
def test_how_a_grandchild_ended_that_its_parent_reaps(tree, loop, watched, end):
    pid = tree.fork("b", by=(tree.fork("a"), "a")[1])
    loop.until(lambda: pid in watched.seen)
    if end.number:
        os.kill(pid, end.number)
    else:
        tree.order("b", "exit", str(end.code))
    tree.tell("a", "reap", str(pid))

    loop.until(lambda: pid in watched.ends)

    # Before Linux 6.15 the kernel tells of a stranger only until it is reaped, which has happened here, or by statistics.
    assert watched.ends == {pid: end if not exitstatus.wanted() or told_of_exits() else UNKNOWN}


def test_where_only_statistics_tell_how_it_ended(tree, loop, monkeypatch):
    """As on kernels before 6.15, with a parent that reaps at once."""
    if not told_of_exits():
        pytest.skip("the statistics of exits are not sent to us")
    monkeypatch.setattr(exitstatus, "wanted", lambda: True)
    monkeypatch.setattr(roster_module, "ending_of", lambda *_: None)
    told = Told(loop, Census(tree.root, heir=os.getpid()))
    pids = [tree.fork(node, by=(tree.fork(f"above {node}"), f"above {node}")[1]) for node in ("a", "b", "c")]
    loop.until(lambda: set(pids) <= told.seen.keys())
    os.kill(pids[0], signal.SIGKILL)
    tree.order("b", "exit", "7")
    tree.order("c", "exit", "0")
    for node, pid in zip(("a", "b", "c"), pids, strict=True):
        tree.tell(f"above {node}", "reap", str(pid))
    loop.until(lambda: set(pids) <= told.ends.keys())

    assert told.ends == {pids[0]: KILLED, pids[1]: Ending("exit", code=7), pids[2]: Ending("exit", code=0)}


def told_of_exits():
    statuses = exitstatus.ExitStatuses()
    listening = statuses.listening
    statuses.close()
    return listening


def test_a_zombie_that_nobody_reaps_and_an_orphan_of_ours(tree, loop, watched):
    above = tree.fork("a")
    zombie, orphan = tree.fork("b", by="a"), tree.fork("c", by="a")
    loop.until(lambda: {above, zombie, orphan} <= watched.seen.keys())

    tree.order("b", "exit", "5")
    loop.until(lambda: zombie in watched.ends)
    assert stat_of(zombie).state == "Z"
    os.kill(above, signal.SIGKILL)
    loop.until(lambda: above in watched.ends)
    assert tree.tell("root", "reap", str(above)) == "9"
    loop.until(lambda: stat_of(orphan).ppid == os.getpid())
    os.kill(orphan, signal.SIGUSR1)
    loop.until(lambda: orphan in watched.ends)

    assert watched.ends == {
        zombie: Ending("exit", code=5),
        above: KILLED,
        orphan: Ending("signal", signal=name(10), number=10),
    }


def test_titles_change_in_place_and_by_exec(tree, loop, watched):
    pid = tree.fork("a")
    loop.until(lambda: pid in watched.seen)
    before = watched.seen[pid].title
    assert "pytest" in before

    tree.tell("a", "title", "sglang::scheduler_TP1")
    loop.until(lambda: watched.titles)
    tree.tell("a", "exec", "VLLM::Worker_TP0")
    loop.until(lambda: len(watched.titles) == 2)

    assert watched.titles == [(pid, "sglang::scheduler_TP1"), (pid, "VLLM::Worker_TP0")]


def test_only_the_variables_that_are_asked_for_are_read(tree, loop):
    told = Told(loop, Census(tree.root, heir=os.getpid(), spare=tree.others), variables=("RANK", "PMI_RANK"))
    pid = tree.fork("a")
    loop.until(lambda: pid in told.seen)
    assert told.seen[pid].env == {}

    tree.tell("a", "exec", "RANK=3", "SECRET_RANK=x", "LONG=" + "y" * 500, "PMI_RANK=" + "1" * 500, "worker")
    loop.until(lambda: told.titles)

    assert told.seen[pid].env == {"RANK": "3", "PMI_RANK": "1" * 200}


def test_an_exec_of_the_same_command_line_is_seen_by_its_environment(tree, loop):
    """A program that starts itself again, as Lightning does: what was forked just now has the title that it will have."""
    told = Told(loop, Census(tree.root, heir=os.getpid(), spare=tree.others), variables=("LOCAL_RANK",))
    pid = tree.fork("a")
    tree.tell("a", "title", "worker")
    loop.until(lambda: pid in told.seen and told.seen[pid].title == "worker")
    told.titles.clear()

    tree.tell("a", "exec", "LOCAL_RANK=1", "worker")
    loop.until(lambda: told.titles)

    assert told.titles == [(pid, "worker")]
    assert told.seen[pid].env == {"LOCAL_RANK": "1"}


def test_those_that_come_and_go_are_never_told(tree, loop, watched):
    pid = tree.fork("a")
    loop.until(lambda: pid in watched.seen)

    assert tree.tell("a", "burst", "100") == "done"
    last = tree.fork("b")
    loop.until(lambda: last in watched.seen)

    assert watched.seen.keys() == {pid, last}
    assert watched.ends == {}


def test_too_few_descriptors_for_all(tree, loop):
    told = Told(loop, Census(tree.root, heir=os.getpid(), spare=tree.others), budget=2)
    pids = [tree.fork(f"a{number}") for number in range(4)]
    loop.until(lambda: set(pids) <= told.seen.keys())
    assert [told.seen[pid].pidfd >= 0 for pid in pids] == [True, True, False, False]

    told.roster.keep(told.seen[pids[3]])  # the youngest of the others makes room
    assert [told.seen[pid].pidfd >= 0 for pid in pids] == [True, False, False, True]
    os.kill(pids[1], signal.SIGKILL)
    loop.until(lambda: pids[1] in told.ends)
    tree.order("a3", "exit", "4")
    loop.until(lambda: pids[3] in told.ends)
    loop.until(lambda: told.seen[pids[2]].pidfd >= 0)  # and there is room again
    tree.order("a2", "exit", "6")
    loop.until(lambda: pids[2] in told.ends)

    assert told.ends == {
        pids[1]: KILLED,  # a zombie still, since nobody reaps it here
        pids[3]: Ending("exit", code=4),
        pids[2]: Ending("exit", code=6),
    }
    said = "the end of some processes is seen late, and how they ended is not known: "
    assert told.notes == [said + "2 processes are held, as many as the limit on open files allows"]


def test_nobody_is_gone_because_no_file_can_be_opened(tree, loop):
    told = Told(loop, Census(tree.root, heir=os.getpid()), budget=0)
    pid = tree.fork("a")
    loop.until(lambda: pid in told.seen)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        told.roster.look(time.monotonic())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert told.ends == {}
    told.roster.look(time.monotonic())
    assert told.ends == {}
    assert pid in told.roster.processes


def test_one_that_is_not_held_and_was_reaped_ended_somehow(tree, loop):
    told = Told(loop, Census(tree.root, heir=os.getpid(), spare=tree.others), budget=0)
    pid = tree.fork("a")
    loop.until(lambda: pid in told.seen)
    os.kill(pid, signal.SIGKILL)
    tree.tell("root", "reap", str(pid))
    loop.until(lambda: pid in told.ends)

    assert told.ends == {pid: UNKNOWN}


def test_a_hostile_title(tree):
    pid = tree.fork("a")
    tree.tell("a", "title", "\\x1b[2J\\nrankguard:\\xff\\x07ok\\x00\\x00--token")

    assert (
        title_of(pid)
        == "\N{REPLACEMENT CHARACTER}[2J rankguard:\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}ok --token"
    )
    assert title_of(2**22 + 1) == ""


def test_a_look_costs_at_most_its_share(tree, loop, watched):
    for number in range(30):
        tree.fork(f"a{number}")
    loop.until(lambda: len(watched.seen) == 30)
    for _ in range(5):
        watched.roster.look(time.monotonic())

    at_least = 0.999 * roster_module.SHARE * watched.roster.cost_s
    assert watched.roster.next_wake() - watched.roster._looked_at >= at_least
    watched.roster.news()
    assert watched.roster.next_wake() - watched.roster._looked_at >= at_least
