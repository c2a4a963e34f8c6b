"""Control groups for real: OOM kills below a limit, escapees, what is said where nothing can be made."""

import os
import select
import signal

import pytest
from tests.linux._evidence_helpers import (
    MIB,
    Rank,
    counts,
    hold,
    inside,
    inside_limit,
    job,
    limited_group,
    wait_readable,
)

from rankguard.linux.cgroup import JobGroups
from rankguard.linux.hierarchies import own_groups, parse_groups

V1 = "memory" in own_groups()
OWN_FILE = "memory.oom_control" if V1 else "memory.events"


def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")


# ── The kernel's counters ────────────────────────────────────────────────────────────────────────────────────────


def test_the_rank_that_is_killed_has_a_counter_of_its_own_that_rose():
    def work():
        with job() as (groups, ranks):
            ranks[1].ask("hold 10")
            ranks[0].tell("hold 200")
            ranks[0].ended()
            seen = [counts(groups, 0), counts(groups, 1), groups.missing]
            return [*seen, ranks[0].reap()]

    first, second, missing, status = inside_limit(100, work)

    assert first == [[[["rank-0", OWN_FILE], 0, 1, False]], True]
    assert second == [[], True]
    assert missing == []
    assert status == -signal.SIGKILL


def test_the_victim_need_not_be_the_one_that_grew():
    def work():
        with job() as (groups, ranks):
            ranks[0].ask("hold 65")
            grown = ranks[1].ask("hold 45")
            ranks[0].ended()
            return [counts(groups, 0), counts(groups, 1), grown, ranks[0].reap()]

    idle, grower, grown, status = inside_limit(100, work)

    assert idle == [[[["rank-0", OWN_FILE], 0, 1, False]], True]
    assert grower == [[], True]
    assert (grown, status) == ("held", -signal.SIGKILL)


def test_a_child_of_the_rank_counts_for_the_rank_which_lives():
    def work():
        with job() as (groups, ranks):
            told = ranks[1].ask("child 200")
            return [counts(groups, 0), counts(groups, 1), told, os.path.exists(f"/proc/{ranks[1].pid}")]

    other, own, told, alive = inside_limit(100, work)

    assert other == [[], True]
    assert own == [[[["rank-1", OWN_FILE], 0, 1, False]], True]
    assert (told, alive) == ("-9", True)


def test_a_kill_by_somebody_moves_no_counter():
    def work():
        with job() as (groups, ranks):
            ranks[0].ask("hold 10")
            os.kill(ranks[0].pid, signal.SIGKILL)
            ranks[0].ended()
            return counts(groups, 0)

    assert inside_limit(100, work) == [[], True]


def test_without_own_groups_the_counter_is_shared():
    def work():
        with job(run_id="a\nb") as (groups, ranks):  # a name that no group may have: nothing can be made
            ranks[0].tell("hold 200")
            ranks[0].ended()
            return [counts(groups, 0), counts(groups, 1), groups.missing, groups.paths, groups.can_kill]

    first, second, missing, paths, can_kill = inside_limit(100, work)

    assert [[before, after, shared] for _, before, after, shared in first[0]] == [[0, 1, True]]
    assert first == second
    assert len(missing) == 2
    assert all("Invalid argument" in sentence for sentence in missing)
    assert (paths, can_kill) == ([], False)


def test_a_rank_that_could_not_join_its_group_is_judged_by_the_shared_counter():
    def work():
        with job(join=False) as (groups, ranks):
            ranks[0].tell("hold 200")
            ranks[0].ended()
            return counts(groups, 0)

    rose, readable = inside_limit(100, work)

    assert readable
    assert [shared for *_, shared in rose] == [True]


def test_a_rank_that_is_started_again_starts_at_the_present_count():
    def work():
        with job(nprocs=1) as (groups, ranks):
            ranks[0].tell("hold 200")
            ranks[0].reap()
            again = Rank(groups, 0)
            again.ask("hold 1")
            seen = [counts(groups, 0)]
            again.tell("hold 200")
            again.reap()
            again.close()
            return [*seen, counts(groups, 0)]

    before, after = inside_limit(100, work)

    assert before == [[], True]
    assert after == [[[["rank-0", OWN_FILE], 1, 2, False]], True]


def test_a_kill_in_a_group_that_the_rank_made_itself_counts_for_the_rank():
    def nesting(orders, answers):
        own = next(
            path for path in (g.path for k, g in own_groups().items() if k in ("memory", "v2")) if "rank-" in path
        )
        os.mkdir(f"{own}/inner")
        if os.fork() == 0:
            with open(f"{own}/inner/cgroup.procs", "w") as procs:
                procs.write("0")
            hold(200)
        os.wait()
        os.write(answers, b"done\n")
        os.read(orders, 1)

    def work():
        with job(nprocs=1, body=nesting) as (groups, ranks):
            ranks[0].answer()
            return counts(groups, 0)

    rose, readable = inside_limit(100, work)

    assert readable
    assert [[before, after, shared] for _, before, after, shared in rose] == [[0, 1, False]]


def test_without_privilege_the_counter_of_our_own_group_still_tells():
    needs_root()

    def work():
        os.setuid(65534)
        with job() as (groups, ranks):
            ranks[0].tell("hold 200")
            ranks[0].ended()
            return [counts(groups, 0), groups.missing, groups.can_kill]

    (rose, readable), missing, can_kill = inside_limit(100, work)

    assert readable
    assert [[before, after, shared] for _, before, after, shared in rose] == [[0, 1, True]]
    assert len(missing) == 2
    assert all("denied" in sentence or "is not writable" in sentence for sentence in missing)
    assert not can_kill


def test_a_group_that_was_handed_to_us_is_as_good_as_root():
    needs_root()

    def work():
        os.setuid(65534)
        with job() as (groups, ranks):
            ranks[0].tell("hold 200")
            ranks[0].ended()
            return counts(groups, 0)

    with limited_group(100) as path:
        for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
            if os.path.exists(path + name):
                os.chown(path + name, 65534, 65534)
        seen = inside(path, work)

    assert seen == [[[["rank-0", OWN_FILE], 0, 1, False]], True]


@pytest.mark.skipif(V1, reason="the memory controller is v1's here")
def test_on_cgroup2_we_make_room_for_groups_with_memory_and_return():
    def where():
        with open("/proc/self/cgroup") as file:
            return file.read().strip().rpartition("/")[2]

    def controllers():
        with open(f"{own_groups()['v2'].path}/cgroup.subtree_control") as file:
            return file.read().split()

    def work():
        name, before = where(), own_groups()["v2"].path
        with job() as (groups, ranks):
            inside_job = where()
            for rank in ranks:
                rank.ask("hold 1")  # it has joined: the stroke ends what is in the group, not what is on its way
            groups.kill()
            statuses = [rank.reap() for rank in ranks]
            told = groups.paths[-1]
        return [
            name,
            inside_job,
            told == f"{before}/{inside_job}",
            statuses,
            where(),
            controllers(),
            os.listdir(before),
        ]

    name, inside_job, told, statuses, after, enabled, files = inside_limit(100, work)

    assert inside_job.startswith("rankguard-")
    assert inside_job.endswith(".sup")
    assert told
    assert statuses == [-signal.SIGKILL] * 2
    assert (after, enabled) == (name, [])
    assert not any("rankguard" in file for file in files)


@pytest.mark.skipif(V1, reason="the memory controller is v1's here")
def test_on_cgroup2_others_in_our_group_keep_it_as_it_is():
    def work():
        with job(ours=frozenset()) as (groups, ranks):
            ranks[0].tell("hold 200")
            ranks[0].ended()
            return [counts(groups, 0), groups.missing, groups.can_kill]

    (rose, readable), missing, can_kill = inside_limit(100, work)

    assert readable
    assert [shared for *_, shared in rose] == [True]
    (sentence,) = missing
    assert "holds processes that are not ours (1), so cgroup2 allows none" in sentence
    assert can_kill


# ── One stroke ───────────────────────────────────────────────────────────────────────────────────────────────────


def escaping(orders, answers):
    """A rank whose child leaves session and parent and ignores what can be ignored."""
    told, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(tell, f"{os.getpid()}\n".encode())
        signal.pause()
    os.wait()  # the one between is gone for good: two processes are left to look at
    os.write(answers, os.read(told, 20))
    os.read(orders, 1)


def storming(orders, answers):
    """A rank that is never the same process for long: fork, leave, end."""
    os.write(answers, b"storm\n")
    while True:
        if os.fork():
            os._exit(0)
        os.setsid()


def hierarchies(how):
    own = own_groups()
    if how == "freezer":
        own.pop("v2", None)
    if how == "cgroup.freeze":
        own.pop("freezer", None)
    wanted = "freezer" if how == "freezer" else "v2"
    if wanted not in own or not os.access(f"{own[wanted].path}/cgroup.procs", os.W_OK):
        pytest.skip(f"no {wanted} hierarchy that we can write to")
    return own


@pytest.mark.parametrize("how", ["cgroup.kill", "cgroup.freeze", "freezer"])
def test_the_stroke_ends_escapees_too(how):
    with job(own=hierarchies(how), body=escaping) as (groups, ranks):
        if how == "cgroup.freeze":  # as on a kernel before 5.14
            groups.kill_file = None
        escapees = [os.pidfd_open(int(rank.answer())) for rank in ranks]
        assert groups.can_kill
        assert groups.empty() is False
        assert groups.kill()
        for fd in (*escapees, *(rank.pidfd for rank in ranks)):
            assert wait_readable(fd), "a process outlived the stroke"
        assert [rank.reap() for rank in ranks] == [-signal.SIGKILL] * 2
        assert groups.empty() is True
        for fd in escapees:
            os.close(fd)


def test_the_stroke_ends_a_fork_storm():
    with job(nprocs=8, own=hierarchies("cgroup.kill"), body=storming) as (groups, ranks):
        for rank in ranks:
            rank.answer()
        events = os.open(f"{os.path.dirname(groups.kill_file)}/cgroup.events", os.O_RDONLY)
        assert groups.kill()
        while not groups.empty():
            assert wait_readable(events, select.POLLPRI), "the storm goes on"
            os.pread(events, 100, 0)
        os.close(events)


def test_a_fork_storm_ends_in_the_freezer_too():
    with job(nprocs=8, own=hierarchies("freezer"), body=storming) as (groups, ranks):
        for rank in ranks:
            rank.answer()
        assert groups.kill()
        for rank in ranks:
            rank.reap()
        for _ in range(1000):  # each try freezes, so it cannot take for ever
            if groups.empty():
                break
            groups.kill()
        assert groups.empty()


def test_forks_can_be_forbidden_where_there_is_a_pids_controller():
    def work():
        own = own_groups()
        if "pids" in own:  # v1: only where cgroup2 cannot be used
            own.pop("v2", None)
        with job(own=own, nprocs=1) as (groups, ranks):
            return [ranks[0].ask("fork"), groups.forbid_forks(), ranks[0].ask("fork")]

    before, forbidden, after = inside_limit(100, work)

    if not forbidden:
        pytest.skip("no pids controller that we can use")
    assert (before, after) == ("forked", "11")


def test_what_is_not_there_is_said_and_harms_nothing():
    groups = JobGroups("rankguard-none", 2, frozenset(), {})
    assert groups.join_fds(0) == []
    assert not groups.can_kill
    assert groups.kill() is False
    assert groups.forbid_forks() is False
    assert groups.empty() is None
    assert groups.paths == []
    assert groups.rank_of("/rankguard-none/rank-0") is None
    unseen = "no cgroup2 hierarchy is mounted where we can see it"
    assert groups.missing == [
        f"no group that ends all ranks in one stroke: {unseen}; no v1 freezer hierarchy is mounted where we can see it",
        f"no memory group for each rank, so OOM kills are counted together with others': {unseen}",
    ]
    groups.remove()


def test_the_counter_of_the_machine_is_the_last_resort():
    groups = JobGroups("rankguard-none", 2, frozenset(), {})
    groups.join_fds(0)
    before = groups.oom_counts(0)
    assert before == ((), True)
    inside_limit(50, lambda: [Rank(groups, 1).tell("hold 100"), os.wait()][0])
    (rise,), readable = groups.oom_counts(0)
    assert readable
    assert (rise.path, rise.shared) == ("/proc/vmstat oom_kill", True)
    assert rise.after > rise.before


# ── Directories ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_directories_are_told_at_once_and_removed():
    groups = JobGroups.create(f"p{os.getpid()}", 3)
    if not groups.paths:
        pytest.skip("; ".join(groups.missing))
    told = groups.paths
    for rank in range(3):
        for fd in groups.join_fds(rank):
            assert not os.get_inheritable(fd)
            os.close(fd)
    assert groups.paths == told
    made = [path for path in told if os.path.isdir(path)]
    assert made == told
    assert all(not any(other.startswith(f"{path}/") for other in made[i:]) for i, path in enumerate(made))
    groups.remove()
    assert [path for path in told if os.path.exists(path)] == []
    groups.remove()


def test_a_name_that_is_taken_is_not_shared():
    first, second = JobGroups.create(f"q{os.getpid()}", 1), JobGroups.create(f"q{os.getpid()}", 1)
    try:
        if not first.paths:
            pytest.skip("; ".join(first.missing))
        assert not set(first.paths) & set(second.paths)
    finally:
        first.remove()
        second.remove()


def test_a_group_of_the_kernel_log_is_a_rank_only_in_our_own():
    groups = JobGroups.create(f"r{os.getpid()}", 12)
    try:
        if not any("rank-0" in path for path in groups.paths):
            pytest.skip("; ".join(groups.missing))
        own = own_groups()["memory" if V1 else "v2"].name.rstrip("/")
        inside = f"{own}/rankguard-r{os.getpid()}/rank-"
        asked = [
            f"{inside}0",
            f"{inside}11",
            f"{inside}7/inner",
            f"{inside}12",
            f"{inside}x",
            own,
            f"/else{inside}0",
            "/",
        ]
        assert [groups.rank_of(path) for path in asked] == [0, 11, 7, None, None, None, None, None]
    finally:
        groups.remove()


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "expected"),
    [
        pytest.param(
            "0::/\n",
            "31 23 0:28 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n",
            {"v2": "/sys/fs/cgroup"},
            id="container with a cgroup namespace",
        ),
        pytest.param(
            "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
            "40 30 0:30 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
            "41 30 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
            {
                "memory": "/sys/fs/cgroup/memory",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
            },
            id="v1 container that sees its whole name",
        ),
        pytest.param(
            "0::/user.slice/a.scope\n",
            "31 23 0:28 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n",
            {"v2": "/sys/fs/cgroup/user.slice/a.scope"},
            id="host with cgroup2",
        ),
        pytest.param(
            "0::/a\n",
            "31 23 0:28 / /mnt/with\\040space rw - cgroup2 cgroup2 rw\n32 23 0:28 / /sys/fs/cgroup ro - cgroup2 x rw\n",
            {"v2": "/mnt/with space/a"},
            id="two mounts, one read-only",
        ),
        pytest.param(
            "0::/../b\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", {}, id="above the namespace"
        ),
        pytest.param("0::/ab\n", "31 23 0:28 /a /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", {}, id="another's mount"),
        pytest.param("", "", {}, id="nothing"),
    ],
)
def test_our_own_group_is_found_under_the_mount_that_shows_it(cgroup, mountinfo, expected):
    groups = parse_groups(cgroup, mountinfo)
    assert {key: group.path for key, group in groups.items()} == expected


def test_ancestors_end_at_the_mount():
    (group,) = parse_groups("0::/a/b\n", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n").values()
    assert list(group.upwards()) == ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]


def test_memory_that_is_held_is_really_there():
    assert len(hold(1)) == MIB
