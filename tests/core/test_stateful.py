"""Whatever happens, in whatever order: the core keeps its promises (`world.py`), and every job comes to its end.

`EXAMPLES=5000 pytest tests/core/test_stateful.py` looks further, and elsewhere each time.
"""

import io
import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.world import ENDS, World, snapshot

from rankguard.core import story
from rankguard.core.job import Job
from rankguard.core.machine import JOB_TABLE, RANK_TABLE, Refused, job_phase, step
from rankguard.diagnosis.verdict import verdict
from rankguard.errors import RankguardBug
from rankguard.facts import (
    Complained,
    Degraded,
    Extended,
    FailureReported,
    FrontLost,
    KernelKilled,
    LeavingTold,
    NodeLost,
    OutputClosed,
    ProtocolBroken,
    ReadinessExpected,
    Ready,
    Resumed,
    SignalPassed,
    StatusTold,
    StoppingAnnounced,
    StopRequested,
    Suspended,
    WardenLost,
    Warned,
)
from rankguard.jobspec import NodesPlan, Share
from rankguard.model import Ending, OomRecord, Report
from rankguard.testing.player import new_spec

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
SELDOM, MOSTLY = st.sampled_from([False] * 4 + [True]), st.sampled_from([True] * 4 + [False])
TIMED_OUT = "Timed out waiting 8000ms for recv operation"
PEER = st.sampled_from([None, "Connection reset by peer", TIMED_OUT])
ENDINGS = st.sampled_from(
    [
        Ending("exit", code=0),
        Ending("exit", code=1),
        Ending("exit", code=3),
        Ending("signal", signal="SIGKILL", number=9),
        Ending("signal", signal="SIGSEGV", number=11, core_dumped=True),
        Ending("signal", signal="SIGTERM", number=15),
    ]
)


def spec_of(nprocs, several, **more):
    """A job on one machine, on as many as it has ranks, on two; or the part that one of them has of such a job."""
    spec = new_spec(nprocs).replace(**more)
    if spec.adopted or not several:
        return spec
    if several == "share":
        return spec.replace(share=Share("host-0", 29400, 2, node=1, first_rank=nprocs, world_size=2 * nprocs))
    each = 1 if several == "each" or nprocs % 2 else nprocs // 2
    return spec.replace(nodes=NodesPlan(count=nprocs // each, nproc=each, node_timeout=2.0))


SPECS = st.builds(
    spec_of,
    nprocs=st.integers(1, 5),
    several=st.sampled_from([None, None, "share", "each", "two"]),
    adopted=SELDOM,
    any_end_fails=st.booleans(),
    expect_ready=st.booleans(),
    ready_timeout=st.sampled_from([None, None, 3.0]),
    stall_timeout=st.sampled_from([None, None, 2.0]),
    grace=st.sampled_from([0.0, 0.5, 5.0]),
    shutdown_timeout=st.sampled_from([0.0, 1.0, 30.0]),
)


SPOKEN = st.sampled_from(["ready", "ready", "status", "extended", "leaving", "complained"])


class Jobs(RuleBasedStateMachine):
    """What may happen to a job."""

    def __init__(self):
        super().__init__()
        self.world = None

    @initialize(spec=SPECS, results_reversed=st.booleans(), stubborn=st.sets(st.integers(0, 4)), started=MOSTLY)
    def launch(self, spec, results_reversed, stubborn, started):
        self.world = World(spec, results_reversed=results_reversed)
        while started and self.world.queue:
            self.world.start(stubborn=self.world.queue[0] in stubborn)

    def some(self, data, *states):
        """A rank in one of these states, or None."""
        found = [process for process in self.world.processes if process.state in states]
        return data.draw(st.sampled_from(found)) if found else None

    # ── Ranks ────────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.world.queue)
    @rule(fails=SELDOM, stubborn=st.booleans(), immortal=SELDOM)
    def start(self, fails, stubborn, immortal):
        self.world.start(fails=fails and not self.world.spec.adopted, stubborn=stubborn, immortal=immortal)

    @precondition(lambda self: self.world.queue)
    @rule()
    def start_all(self):
        while self.world.queue:
            self.world.start()

    @rule(data=st.data(), what=SPOKEN, signal=st.sampled_from([3, 10]))
    def speak(self, data, what, signal):
        early = ["queued"] if what == "complained" else []  # a signal is faster than the news of the start
        process, now = self.some(data, "alive", "ended", "told", "reaped", *early), self.world.now
        if process is None:
            return
        made = {
            "ready": Ready(now, process.rank),
            "status": StatusTold(now, process.rank, "loading", 3.0),
            "extended": Extended(now, process.rank, 4.0),
            "leaving": LeavingTold(now, process.rank),
            "complained": Complained(now, process.rank, signal),
        }
        process.heard_at = now
        process.innocent = process.innocent and (what, signal) != ("complained", 3)
        self.world.tell(made[what])

    @rule()
    def all_ready(self):
        for process in self.world.processes:
            if process.state == "alive":
                self.world.tell(Ready(self.world.now, process.rank))

    @rule(
        data=st.data(),
        how=st.sampled_from(["exception", "failed"]),
        peer=PEER,
        ago=st.sampled_from([None, 0.0, 0.3]),
        now=SELDOM,
    )
    def report(self, data, how, peer, ago, now):
        process = self.some(data, "alive", "ended", "told", "reaped")
        if process is not None and (peer or now):
            process.innocent = False
            raised_at = None if ago is None else self.world.now - ago
            told = Report(how, "it did not work", raised_at=raised_at)
            self.world.tell(FailureReported(self.world.now, process.rank, told, peer, peer == TIMED_OUT))

    @rule(data=st.data(), now=SELDOM)
    def break_protocol(self, data, now):
        process = self.some(data, "alive", "ended")
        if process is not None and now:
            process.innocent = False
            self.world.tell(ProtocolBroken(self.world.now, process.rank, "not JSON"))

    @rule(data=st.data(), how=st.sampled_from(["exiting", "killed", "dumping"]))
    def begin_to_die(self, data, how):
        process = self.some(data, "alive")
        if process is not None and process.doomed is None:
            process.dying, process.innocent = how, False

    @rule(data=st.data(), ending=ENDINGS, leaves=st.sampled_from([None, None, "meek", "stubborn"]))
    def die(self, data, ending, leaves):
        process = self.some(data, "alive")
        if process is not None:
            self.world.end(process, ending, leaves=None if self.world.spec.adopted else leaves)

    @rule(data=st.data(), answers=st.booleans())
    def obey(self, data, answers):
        doomed = self.world.doomed()
        if doomed:
            process = data.draw(st.sampled_from(doomed))
            number = process.doomed
            ending = Ending("signal", signal=ENDS[number], number=number)
            self.world.end(process, Ending("exit", code=0) if answers and number != 9 else ending, by_us=True)

    @rule(data=st.data(), peer=PEER)
    def see_exit(self, data, peer):
        process = self.some(data, "ended")
        if process is not None:
            self.world.tell_exit(process, peer, peer == TIMED_OUT)

    @rule(data=st.data())
    def close_output(self, data):
        process = self.some(data, "told", "reaped")
        if process is not None:
            self.world.tell(OutputClosed(self.world.now, process.rank))

    @precondition(lambda self: "doomed" in self.world.leftovers)
    @rule()
    def leftover_ends(self):
        self.world.leftovers.remove("doomed")

    # ── Outside ──────────────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: not self.world.spec.adopted)
    @rule(
        signal=st.sampled_from([1, 2, 2, 15]),
        grace=st.sampled_from([None, None, 2.0]),
        at_once=SELDOM,
        to=st.sampled_from(["front", "supervisor"]),
        now=SELDOM,
    )
    def ask_to_end(self, signal, grace, at_once, to, now):
        if now:
            self.world.tell(StopRequested(self.world.now, signal, None, grace, at_once, "signal", to))

    @precondition(lambda self: not self.world.spec.adopted)
    @rule(suspends=st.booleans())
    def suspend_or_resume(self, suspends):
        self.world.tell(Suspended(self.world.now) if suspends else Resumed(self.world.now))

    @rule(seconds=st.sampled_from([1.5, 60.0]))
    def stand_still(self, seconds):
        self.world.stand_still(seconds)

    @precondition(lambda self: not self.world.spec.adopted)
    @rule(what=st.sampled_from([FrontLost, WardenLost]), now=SELDOM, really=SELDOM)
    def lose_one_of_ours(self, what, now, really):
        if now and really:
            self.world.tell(what(self.world.now, 7))

    @precondition(lambda self: self.world.spec.nodes is not None or self.world.spec.share is not None)
    @rule(
        data=st.data(),
        what=st.sampled_from(["silent", "silent", "heard", "stops", "lost"]),
        seconds=st.sampled_from([0.0, 1.0, 2.0]),
        number=st.sampled_from([15, 15, 9]),
        now=SELDOM,
    )
    def of_a_node(self, data, what, seconds, number, now):
        world = self.world
        if world.spec.share is not None:
            if what == "lost" and now:
                world.tell(NodeLost(world.now, 0, "host-0", "silent", "nothing was heard of it", seconds))
            return
        node = data.draw(st.integers(0, world.spec.nodes.count - 1))
        if what == "silent":
            world.silence(node, seconds)
        elif what == "heard":
            world.hear(node, seconds)
        elif what == "stops" and now and node not in world.job.lost_nodes:
            world.stop_node(node, number)
        elif what == "lost" and now:
            world.lose(node, "silent" if seconds else "closed", seconds)

    @rule(data=st.data(), timeout=st.sampled_from([None, 2.0]))
    def side_news(self, data, timeout):
        now, adopted = self.world.now, self.world.spec.adopted
        oom = OomRecord(101, "python3", "Out of memory")
        news = [ReadinessExpected(now, timeout), Warned(now, "a full disk"), KernelKilled(now, None, oom)]
        news.append(Degraded(now, "samples", "samples failed"))
        news.append(StoppingAnnounced(now) if adopted else SignalPassed(now, 10))
        self.world.tell(data.draw(st.sampled_from(news)))

    @precondition(lambda self: self.world.examining is not None)
    @rule()
    def look_at_stacks(self):
        self.world.examined()

    @precondition(lambda self: self.world.mustering)
    @rule()
    def see_who_came(self):
        self.world.mustered()

    @rule(seconds=st.sampled_from([0.001, 0.1, 0.9, 3.0]))
    def wait(self, seconds):
        self.world.wait(seconds)

    @precondition(lambda self: self.world.deadlines)
    @rule()
    def next_deadline(self):
        self.world.fire()

    @rule(data=st.data())
    def what_cannot_be(self, data):
        """A refused fact raises, and leaves everything as it was."""
        job, at = self.world.job, self.world.now
        rank = data.draw(st.sampled_from(job.ranks))
        refused = [kind for kind, row in RANK_TABLE.items() if isinstance(row[job.phase(rank)], Refused)]
        refused += [kind for kind, row in JOB_TABLE.items() if isinstance(row[job_phase(job)], Refused)]
        if not refused or job.finished:
            return
        kind = data.draw(st.sampled_from(refused))
        fact = kind(**{"at": at + 1.0} | {f: rank.rank for f in kind._fields if f != "at" and f not in kind._defaults})
        before = snapshot(job)

        try:
            step(job, fact)
        except RankguardBug:
            assert before == snapshot(job)
        else:
            raise AssertionError(f"{fact} was not refused")

    # ── What holds ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def the_driver_looks_at_the_tree(self):
        if self.world is not None:
            self.world.settle()

    @invariant()
    def there_is_always_something_to_wait_for(self):
        if self.world is not None:
            assert self.world.waits_for_something()

    def teardown(self):
        if self.world is None:
            return
        self.world.drain()
        job, steps = self.world.job, self.world.steps
        comes_to_its_end(self.world)
        gives_the_same_again(job, steps)
        survives_its_journal(job, steps)
        says_what_happened(job, self.world.now)


def comes_to_its_end(world):
    job = world.job
    if world.spec.adopted:
        assert all(process.state == "told" for process in world.processes)
        assert world.reap_orders == []
    else:
        assert job.finished
        survivors = {survivor.pid for survivor in job.tree.survivors}
        assert all(process.state in ("reaped", "never") or survivors for process in world.processes)
    assert (job.failed_at is None) == (job.judged is None)


def gives_the_same_again(job, steps):
    again = Job(job.spec)

    assert [orders for _fact, orders in steps] == [step(again, fact) for fact, _orders in steps]
    assert snapshot(job) == snapshot(again)


def survives_its_journal(job, steps):
    text = story.first_line(job.spec) + "".join(story.lines(fact, orders) for fact, orders in steps)

    again, replayed = story.replay(io.StringIO(text))

    assert steps == replayed
    assert job.spec.replace(argv=()) == again.spec.replace(argv=())  # arguments may hold secrets, and stay out of it
    assert job.case().replace(spec=again.spec) == again.case()


def says_what_happened(job, now):
    told = verdict(job.case().replace(now=now), "0")

    if job.failed_at is not None:
        assert (told.outcome, told.exit_code != 0) == ("failed", True)
    for rank, row in zip(job.ranks, told.ranks, strict=True):
        if rank.failed_at is None and rank.lost is None:
            assert row.relation in ("stopped", "finished", "alive")


Jobs.TestCase.settings = settings(
    max_examples=EXAMPLES or 120,
    stateful_step_count=40,
    deadline=None,
    derandomize=not EXAMPLES,
    database=None,
)
TestJobs = Jobs.TestCase
