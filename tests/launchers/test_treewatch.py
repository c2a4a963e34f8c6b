"""A watched tree as facts: who joins, who ends, and what is not told. Real processes under the titles of engines."""

import os
import signal

import pytest
from tests.linux._evidence_helpers import MIB, wait_readable
from tests.linux._trees import Loop, Tree

from rankguard.diagnosis.roles import RULES, VARIABLES, name_of, role_of, user_rule
from rankguard.facts import Exited, Joined, Perished
from rankguard.launchers.treewatch import Outlook, TreeWatch
from rankguard.linux.census import Census
from rankguard.linux.cgroup import JobGroups
from rankguard.linux.signals import name
from rankguard.model import Ending, OomCount, Process

KILLED = Ending("signal", signal=name(9), number=9)


class Watched:
    def __init__(self, **around):
        self.tree, self.loop, self.facts, self.notes, self.kernel = Tree(), Loop(), [], [], []
        rules = around.pop("rules", RULES)
        self.watch = TreeWatch(
            Outlook(
                self.tree.root,
                lambda title, env, above: role_of(title, rules, env, above),
                name_of,
                VARIABLES,
                around.pop("oom", lambda: ((), True)),
                kernel=lambda _now, number: self.kernel.append(number),
                note=self.notes.append,
                **around,
            ),
            self.loop.selector,
            Census(self.tree.root, heir=os.getpid(), spare=self.tree.others),
            self.facts.append,
        )
        self.loop.parts.append(self.watch)

    def become(self, title, *env, by="root", node=None):
        """A new process below `by` that executes under that title."""
        node = node or title
        pid = self.tree.fork(node, by=by)
        self.tree.tell(node, "exec", *env, title)
        return pid

    def told(self, kind):
        return [fact for fact in self.facts if type(fact) is kind]

    def until(self, kind, count=1):
        self.loop.until(lambda: len(self.told(kind)) >= count)
        return self.told(kind)

    def look(self):
        self.watch.roster.look(self.loop.clock())

    def close(self):
        self.loop.close()
        self.tree.close()


@pytest.fixture
def made(request):
    made = Watched(**getattr(request, "param", {}))
    yield made
    made.close()


def test_ranks_join_and_the_end_of_one_is_its_own(made):
    controller = made.tree.fork("controller")
    made.tree.tell("controller", "title", "sglang::data_parallel_controller")
    made.until(Joined)
    first = made.become("sglang::scheduler_DP0_TP0", by="controller")
    made.until(Joined, 2)
    second = made.become("sglang::scheduler_DP1_TP1", by="controller")
    made.until(Joined, 3)

    os.kill(second, signal.SIGKILL)
    ended = made.until(Exited)

    root, at = made.tree.root, [fact.at for fact in made.told(Joined)]
    assert made.told(Joined) == [
        Joined(
            at[0], 1, controller, "sglang::data_parallel_controller", "data_parallel_controller",
            rule="sglang", parent=root,
        ),
        Joined(at[1], 2, first, "sglang::scheduler_DP0_TP0", "scheduler", 0, "sglang", controller),
        Joined(at[2], 3, second, "sglang::scheduler_DP1_TP1", "scheduler", 1, "sglang", controller),
    ]  # fmt: skip
    assert ended == [Exited(ended[0].at, 3, KILLED, oom_readable=True, log=None)]
    assert made.kernel == [9]
    assert made.watch.by_pid.keys() == {controller, first}


def test_who_came_and_went_unseen_and_was_not_asked_since_is_told_when_the_engine_is_late(made):
    gone, fine = made.tree.fork("gone"), made.tree.fork("fine")
    pidfds = [os.pidfd_open(pid) for pid in (gone, fine)]
    made.tree.order("gone", "exit", "255")
    made.tree.order("fine", "exit", "0")
    for fd in pidfds:
        assert wait_readable(fd)
        os.close(fd)

    for _ in range(2):  # told once
        made.watch.unreaped(5.0)
    (told,) = made.told(Perished)
    assert (told.pid, told.ending, told.parent, told.loud) == (gone, Ending("exit", code=255), made.tree.root, True)


def test_what_a_rank_forks_has_its_title_and_is_no_rank(made):
    made.tree.fork("rank")
    made.tree.tell("rank", "title", "VLLM::Worker_TP0")
    made.until(Joined)
    made.tree.fork("child", by="rank")
    made.tree.fork("grandchild", by="child")
    orphan = made.tree.fork("orphan", by="child")
    os.kill(made.tree.pids["child"], signal.SIGKILL)  # before anybody has looked
    made.tree.tell("rank", "reap", str(made.tree.pids["child"]))
    made.look()

    made.tree.order("grandchild", "exit", "0")
    os.kill(orphan, signal.SIGKILL)
    perished = made.until(Perished)

    assert [fact.pid for fact in made.told(Joined)] == [made.tree.pids["rank"]]
    assert [(fact.pid, fact.name, fact.ending) for fact in perished] == [(orphan, "VLLM::Worker_TP0", KILLED)]
    assert made.told(Exited) == []


def test_a_child_seen_before_the_new_title_of_its_parent(made):
    made.tree.fork("rank")
    made.look()
    made.tree.tell("rank", "title", "sglang::scheduler_TP0")
    made.tree.fork("child", by="rank")
    made.look()

    assert [(fact.pid, fact.rank) for fact in made.told(Joined)] == [(made.tree.pids["rank"], 1)]


def test_ranks_of_mpi_are_those_below_the_launcher_and_not_their_shells(made):
    made.become("orted", node="orted-title")
    for rank in ("0", "1"):
        made.tree.fork(f"shell{rank}")
        made.tree.tell(f"shell{rank}", "title", "bash -c python job.py")
    made.look()
    assert made.told(Joined) == []
    # What a shell executes keeps the pid; its child has the same variables.
    for rank in ("0", "1"):
        made.tree.tell(f"shell{rank}", "exec", f"OMPI_COMM_WORLD_RANK={rank}", "python")
    joined = made.until(Joined, 2)

    assert [(fact.pid, fact.role, fact.index, fact.rule, fact.may_end) for fact in joined] == [
        (made.tree.pids["shell0"], "rank", 0, "openmpi", True),
        (made.tree.pids["shell1"], "rank", 1, "openmpi", True),
    ]


def test_others_are_told_of_when_they_end_badly_and_only_then(made):
    worker = made.become("gunicorn: worker [app]", node="w")
    git, good = made.become("git", node="git"), made.tree.fork("good")
    quiet = made.tree.fork("quiet")
    made.loop.until(
        lambda: {process.title for process in made.watch.roster.processes.values()} >= {"git", "gunicorn: worker [app]"}
    )

    made.tree.order("good", "exit", "0")
    os.kill(worker, signal.SIGKILL)
    made.until(Perished)
    os.kill(git, signal.SIGTERM)
    made.until(Perished, 2)
    made.tree.order("quiet", "exit", "1")
    told = made.until(Perished, 3)

    assert [(fact.pid, fact.role, fact.ending, fact.loud) for fact in told] == [
        (worker, "worker", KILLED, True),
        (git, "git", Ending("signal", signal=name(15), number=15), False),
        (quiet, "process", Ending("exit", code=1), False),
    ]
    made.loop.until(lambda: good not in made.watch.roster.processes)
    assert made.told(Joined) == made.told(Exited) == []
    assert made.kernel == [9, 15, None]


def test_a_member_has_its_number_only_after_a_while(made):
    made.tree.fork("a")
    made.tree.tell("a", "title", "VLLM::Worker")
    made.until(Joined)
    made.tree.tell("a", "title", "VLLM::Worker_DP0_TP1")
    first, second = made.until(Joined, 2)
    made.tree.tell("a", "title", "something else")
    made.tree.tell("a", "title", "VLLM::Worker_DP0_TP1")
    os.kill(made.tree.pids["a"], signal.SIGKILL)
    ended = made.until(Exited)

    assert (first.name, first.index) == ("VLLM::Worker", None)
    assert second == first.replace(at=second.at, name="VLLM::Worker_DP0_TP1", index=1, formerly="VLLM::Worker")
    assert [fact.rank for fact in ended] == [1]
    assert made.told(Joined) == [first, second]


def test_a_title_that_was_taken_just_before_the_end(made):
    """All that is left of a title then is the name in 15 bytes, where the kernel still tells it."""
    made.tree.fork("rank")
    made.tree.fork("other")
    made.look()
    made.tree.tell("rank", "name", "ATOM::TP1")
    made.tree.tell("other", "name", "pt_main_thread")
    for node in ("rank", "other"):
        os.kill(made.tree.pids[node], signal.SIGKILL)
    ended, perished = made.until(Exited), made.until(Perished)

    assert [(fact.pid, fact.name, fact.index) for fact in made.told(Joined)] == [
        (made.tree.pids["rank"], "ATOM::TP1", 1)
    ]
    assert [(fact.rank, fact.ending) for fact in ended] == [(1, KILLED)]
    assert [(fact.pid, fact.role) for fact in perished] == [(made.tree.pids["other"], "process")]


@pytest.mark.parametrize("made", [{"rules": (user_rule(r"gunicorn: (?P<role>worker)"), *RULES)}], indirect=True)
def test_a_rule_of_the_user(made):
    worker = made.become("gunicorn: worker [app]", node="w")
    joined = made.until(Joined)

    assert [(fact.pid, fact.role, fact.rule) for fact in joined] == [
        (worker, "worker", "--rank-pattern gunicorn: (?P<role>worker)")
    ]


def test_those_that_report_readiness_together(made):
    first, second, third = (made.tree.fork(each) for each in ("a", "b", "c"))
    now = made.loop.clock
    made.watch.ready(made.tree.root, now())
    made.watch.ready(first, now())
    made.watch.ready(first, now())
    made.watch.ready(2**22 + 1, now())
    assert made.told(Joined) == []

    made.watch.ready(second, now())
    made.watch.ready(third, now())
    os.kill(second, signal.SIGKILL)
    made.until(Exited)

    assert [(fact.rank, fact.pid, fact.rule) for fact in made.told(Joined)] == [
        (1, first, "reported readiness, as others did"),
        (2, second, "reported readiness, as others did"),
        (3, third, "reported readiness, as others did"),
    ]
    assert [fact.rank for fact in made.told(Exited)] == [2]


def test_a_root_that_is_not_ours(made):
    now = made.loop.clock()
    assert made.watch.attach(now)
    os.kill(made.tree.root, signal.SIGKILL)
    ended = made.until(Exited)

    assert ended == [Exited(ended[0].at, 0, KILLED, oom_readable=True, log=None)]
    assert made.told(Joined) == []
    assert made.watch.picture()[0].ending == KILLED
    os.waitpid(made.tree.root, 0)
    assert not made.watch.attach(now)


def test_the_picture_has_the_dead_and_the_ranks_and_not_everybody(made):
    for number in range(6):
        made.tree.fork(f"p{number}")
    made.tree.fork("between")
    rank = made.become("sglang::scheduler_TP1", by="between")
    dead = made.become("sglang::scheduler_TP0", by="between")
    made.until(Joined, 2)
    os.kill(dead, signal.SIGKILL)
    made.until(Exited)

    root, between = made.tree.root, made.tree.pids["between"]
    drawn = made.watch.picture(5)
    python = name_of(made.watch.roster.describe(root)[0])
    assert drawn == (
        Process(root, os.getpid(), python, "root"),
        Process(between, root, python),
        Process(dead, between, "sglang::scheduler_TP0", "scheduler", 0, KILLED),
        Process(rank, between, "sglang::scheduler_TP1", "scheduler", 1),
        Process(made.tree.pids["p0"], root, python),
    )
    assert len(made.watch.picture()) == 10


def test_the_picture_keeps_the_name_and_the_children_of_a_root_that_is_gone(made):
    python = name_of(made.watch.roster.describe(made.tree.root)[0])
    child = made.tree.fork("a")
    made.look()
    os.kill(made.tree.root, signal.SIGKILL)
    os.waitpid(made.tree.root, 0)

    assert made.watch.picture() == (
        Process(made.tree.root, 0, python, "root"),
        Process(child, made.tree.root, python),
    )


def test_the_picture_keeps_orphans_below_the_dead(made):
    core = made.tree.fork("core")
    made.tree.tell("core", "title", "VLLM::EngineCore")
    worker = made.become("VLLM::Worker_TP0", by="core")
    made.until(Joined, 2)
    os.kill(core, signal.SIGKILL)
    made.until(Exited)

    root = made.tree.root
    assert made.watch.picture()[1:] == (
        Process(core, root, "VLLM::EngineCore", "EngineCore", None, KILLED),
        Process(worker, core, "VLLM::Worker_TP0", "Worker", 0),
    )


def test_a_rank_that_is_being_killed_is_seen(made):
    made.tree.fork("a")
    made.tree.tell("a", "title", "VLLM::Worker_TP0")
    made.until(Joined)
    pid = made.tree.pids["a"]

    assert made.watch.dying([pid]) == {}
    dying, memory = made.watch.look()
    assert dying == ()
    assert memory[0][0] == 1
    assert memory[0][1].rss_bytes > MIB
    os.kill(pid, signal.SIGKILL)
    made.loop.until(lambda: made.watch.dying([pid]) == {pid: "zombie"})


def test_a_counter_that_rose_counts_for_those_that_end_now_and_not_later(monkeypatch):
    counts = [OomCount("memory.oom_control", 0, 0, False)]
    made = Watched(oom=lambda: (tuple(count for count in counts if count.after > count.before), True))
    pids = [made.tree.fork(f"a{number}") for number in range(4)]
    made.look()
    clock = made.loop.clock
    entries = [made.watch.roster.processes[pid] for pid in pids]
    end = made.watch._on_end
    now = clock()
    counts[0] = counts[0].replace(after=1)
    end(entries[0], KILLED, now)
    end(entries[1], KILLED, now + 0.5)
    end(entries[2], KILLED, now + 5)
    counts[0] = counts[0].replace(after=3)
    end(entries[3], KILLED, now + 10)

    rose = OomCount("memory.oom_control", 0, 1, True)
    assert [fact.oom for fact in made.told(Perished)] == [(rose,), (rose,), (), (rose.replace(before=1, after=3),)]
    made.close()


def test_a_member_that_the_kernel_kills_for_memory():
    groups = JobGroups.create(f"treewatch-{os.getpid()}", 1)
    path = groups.memory_group(0)
    if path is None:
        groups.remove()
        pytest.skip("; ".join(groups.missing))
    fds = groups.join_fds(0)
    made = Watched(oom=lambda: groups.oom_counts(0))
    try:
        made.tree.fork("rank")
        made.tree.tell("rank", "title", "sglang::scheduler_TP0")
        made.until(Joined)
        with open(f"{path}/cgroup.procs", "w") as file:
            file.write(str(made.tree.pids["rank"]))
        limit = "memory.limit_in_bytes" if os.path.exists(f"{path}/memory.limit_in_bytes") else "memory.max"
        with open(f"{path}/{limit}", "w") as file:
            file.write(str(200 * MIB))
        made.tree.order("rank", "hold", "400")
        ended = made.until(Exited)

        assert ended[0].ending == KILLED
        assert [(count.before, count.after, count.shared) for count in ended[0].oom] == [(0, 1, True)]
    finally:
        for fd in fds:
            os.close(fd)
        made.close()
        groups.remove()
