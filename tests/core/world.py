"""A small world for the core to act on: processes that start, speak, die and disobey; the driver's part done in place.

It holds the core to its promises at every step (`Promises`) and can be driven to its end (`drain`), which proves that
the job does not hang. `test_stateful.py` decides what happens in it.
"""

from collections import deque

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.diagnosis.culprit import choose
from rankguard.facts import (
    DeadlinePassed,
    Examined,
    Exited,
    JobStarted,
    Looked,
    Mustered,
    NodeHeard,
    NodeJoined,
    NodeLost,
    NodeSilent,
    NodeStopping,
    NotSpawned,
    Reaped,
    Resumed,
    Signalled,
    Silences,
    Spawned,
    TimeLost,
    TreeEmpty,
)
from rankguard.model import Ending, Sign, Survivor
from rankguard.orders import (
    Disarm,
    Examine,
    Finish,
    GiveUp,
    Judge,
    Listen,
    Look,
    Muster,
    Reap,
    SignalAll,
    SignalRank,
    Spawn,
    Sweep,
    Tell,
    WakeAt,
)

SIGKILL, SIGTERM, SIGCONT, SIGSTOP = 9, 15, 18, 19
ENDS = {2: "SIGINT", 9: "SIGKILL", 15: "SIGTERM", 1: "SIGHUP"}
"""Signals that end a process, and that we send."""


class Process:
    """One rank's process, as the kernel knows it."""

    def __init__(self, rank):
        self.rank = rank
        self.state = "queued"  # alive, ended (not told yet), told, reaped; or never
        self.dying = None
        self.ending = None
        self.doomed = None
        self.stubborn = self.immortal = self.stands = False
        self.heard_at = None
        self.innocent = True
        """Nothing of its own doing may be held against it."""


class World:
    """One job in it. `tell` is the driver's `emit` and `_handle` in one."""

    def __init__(self, spec, *, results_reversed=False):
        self.job, self.spec = Job(spec), spec
        self.now = 0.0
        self.processes = [Process(rank) for rank in range(spec.nprocs)]
        self.queue = deque()
        self.leftovers = []  # each is how it takes SIGTERM: "meek" or "stubborn"; "doomed" when it is about to end
        self.deadlines = {}
        self.sweeping = self.killing = False
        self.examining = None
        self.mustering = False
        self.steps = []
        self.given = {Judge: 0, Finish: 0}
        self.reap_orders = []
        self._results_reversed = results_reversed
        self.tell(JobStarted(0.0, 1_790_000_000.0))
        if spec.adopted:
            self.queue.extend(range(spec.nprocs))
        for node in range(0 if spec.nodes is None else spec.nodes.count):
            each = spec.nodes.nproc
            self.tell(NodeJoined(0.0, node, f"host-{node}", node * each, each, uncertainty=0.001 * node))

    # ── The driver ───────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, *told):
        facts = deque(told)
        while facts:
            fact = facts.popleft()
            orders = step(self.job, fact)
            self.steps.append((fact, orders))
            results = []
            for order in orders:
                assert order.because
                results += self._carry_out(order, facts)
            facts.extendleft(results if self._results_reversed else reversed(results))
            self.check()

    def _carry_out(self, order, facts):
        match order:
            case Look():
                dying = [(p.rank, p.dying) for p in self.processes if p.dying and p.state in ("alive", "ended")]
                return [Looked(self.now, tuple(dying))]
            case Listen():
                signs = self._signs()
                others = [sign.at for sign in signs if sign.at is not None and sign.at > order.since]
                silent = tuple(sign for sign in signs if sign.at is None or sign.at <= order.since)
                return [Silences(self.now, silent, min(others, default=None))]
            case Examine():
                assert self.job.suspended_at is None
                self.examining = order.number
            case Muster():
                assert self.job.awaits_muster
                self.mustering = True
            case SignalAll():
                return [self._signal_all(order, facts)]
            case SignalRank():
                assert not self.spec.adopted
                process = self.processes[order.rank]
                assert process.state in ("alive", "ended"), f"rank {order.rank} is {process.state}"
                self._signal(process, order.signal)
            case WakeAt():
                assert order.when >= self.now, f"{order} at {self.now}"
                self.deadlines[order.name] = (order.when, order.generation)
            case Disarm(names=names):
                assert set(names) <= set(self.deadlines)
                for name in names:
                    del self.deadlines[name]
            case Spawn():
                self.queue.extend(range(order.first, order.last + 1))
            case Reap():
                process = self.processes[order.rank]
                assert process.state == "told", f"rank {order.rank} is {process.state}"
                assert not self.spec.adopted
                process.state = "reaped"
                self.reap_orders.append(order.rank)
                facts.append(Reaped(self.now, order.rank, 4096))
            case Judge():
                self.given[Judge] += 1
                assert not self.job.awaits_nodes or self.job.lost is not None or self._some_own_failure()
                assert self.job.lost is not None or self._knows_its_suspects()
                return [choose(self.job.case().replace(now=self.now))]
            case Sweep():
                assert not self.spec.adopted
                self._sweep(order.kill)
            case GiveUp():
                self.sweeping = False
                alive = [process.rank for process in self.processes if process.state == "alive"]
                alive += range(300, 300 + len(self.leftovers))
                return [TreeEmpty(self.now, (), tuple(Survivor(pid, "python3", "D") for pid in alive))]
            case Finish():
                self.given[Finish] += 1
                self._may_finish()
            case Tell():
                pass
            case _:
                raise AssertionError(order)
        return []

    def _signs(self):
        return tuple(Sign(p.rank, p.heard_at, "status") for p in self.processes if p.state in ("alive", "ended"))

    def examined(self):
        """The stacks are there; of a job that was told to end meanwhile, too."""
        number, self.examining = self.examining, None
        self.tell(Examined(self.now, number, self._signs()))

    def mustered(self):
        """All that can be known of a collective that timed out is there; of a job that was told to end meanwhile, too."""
        self.mustering = False
        self.tell(Mustered(self.now, self._signs()))

    def _signal_all(self, order, facts):
        assert not self.spec.adopted
        assert order.ends == (order.signal in ENDS)
        if order.ends:
            while self.queue:
                rank = self.queue.popleft()
                self.processes[rank].state = "never"
                facts.append(NotSpawned(self.now, rank, "cancelled", 0, "told to end before it started"))
        for node in range(self.spec.nodes.count) if order.ends and self.spec.nodes is not None else ():
            facts.append(NodeStopping(self.now, node, f"host-{node}", order.because, order.signal, self._dying(node)))
        reached = [p for p in self.processes if p.state == "alive" and p.rank not in order.spare]
        for process in reached:
            self._signal(process, order.signal)
        return Signalled(self.now, order.signal, len(reached))

    def _signal(self, process, number):
        if number in (SIGCONT, SIGSTOP):
            process.stands = number == SIGSTOP
        if number in ENDS and not process.immortal and (number == SIGKILL or not process.stubborn):
            process.doomed = number

    def _sweep(self, kill):
        self.sweeping, self.killing = True, self.killing or kill
        for process in self.processes:
            if kill and process.state == "alive":
                self._signal(process, SIGKILL)
        self.leftovers = ["doomed" if kill or how == "meek" else how for how in self.leftovers]

    def _some_own_failure(self):
        """Of a suspect that did not only lose a peer: the verdict on that waits for no node."""
        told = [rank.report or rank.exited for rank in self.job.ranks if rank.suspect]
        return any(each is None or each.peer_death is None or type(each) is Exited for each in told)

    def _knows_its_suspects(self):
        """Each has ended or said why it fails, or the wait for that is over."""
        waited = "suspects" not in self.deadlines and self.job.generations.get("suspects") is not None
        open_cases = [
            rank.rank
            for rank in self.job.ranks
            if rank.suspect and not (rank.gone or rank.report or rank.broken or rank.not_spawned or rank.late)
        ]
        return not self.job.holding and self.job.looked is not None and (waited or not open_cases)

    def _may_finish(self):
        """Ended, judged, reaped and empty; or what refuses to die is named."""
        job = self.job
        assert job.tree is not None
        assert (job.judged is not None) == (job.failed_at is not None)
        named = {survivor.pid for survivor in job.tree.survivors}
        assert named or not self.leftovers
        left = {p.rank for p in self.processes if p.state not in ("reaped", "never")}
        assert not left or named

    # ── What happens in the world ────────────────────────────────────────────────────────────────────────────────

    def settle(self):
        """What the driver does after each wait."""
        empty = not self.queue and not self.leftovers and all(p.state in ("reaped", "never") for p in self.processes)
        if self.sweeping and empty and not self.job.finished:
            self.sweeping = False
            self.tell(TreeEmpty(self.now))

    def start(self, *, fails=False, stubborn=False, immortal=False):
        process = self.processes[self.queue.popleft()]
        if fails:
            process.state, process.innocent = "never", False
            self.tell(NotSpawned(self.now, process.rank, "exec", 2, "unable to execute `python3`"))
        else:
            process.state, process.stubborn, process.immortal = "alive", stubborn, immortal
            self.tell(Spawned(self.now, process.rank, 100 + process.rank))

    def end(self, process, ending, *, by_us=False, leaves=None):
        """The process is a zombie from now on; the driver has not seen it yet. A child of it may live on."""
        if leaves is not None:
            self.leftovers.append("doomed" if self.killing else leaves)
        process.state, process.ending = "ended", ending
        process.dying = process.dying or ("zombie" if not by_us else None)
        process.innocent = process.innocent and by_us

    def tell_exit(self, process, peer=None, timed_out=False):
        process.state = "told"
        self.tell(Exited(self.now, process.rank, process.ending, peer_death=peer, timed_out=timed_out))

    def of_node(self, node):
        """The processes of a node."""
        each = self.spec.nodes.nproc
        return self.processes[node * each : (node + 1) * each]

    def _dying(self, node):
        return tuple((p.rank, p.dying) for p in self.of_node(node) if p.dying and p.state in ("alive", "ended"))

    def silence(self, node, seconds):
        self.tell(NodeSilent(self.now, node, f"host-{node}", seconds))

    def hear(self, node, seconds):
        self.tell(NodeHeard(self.now, node, f"host-{node}", seconds))

    def stop_node(self, node, number):
        """Its agent tells its ranks to end, or kills them, by itself."""
        self.tell(NodeStopping(self.now, node, f"host-{node}", "a rank failed", number, self._dying(node)))
        for process in self.of_node(node):
            if process.state == "alive":
                self._signal(process, number)

    def lose(self, node, how, silent_s):
        """Nothing more is known of its processes, nor of what they have left."""
        for process in self.of_node(node):
            if process.rank in self.queue:
                self.queue.remove(process.rank)
            if process.state not in ("reaped", "never"):
                process.state = "reaped"
        self.tell(NodeLost(self.now, node, f"host-{node}", how, "it is gone", silent_s))

    def wait(self, seconds):
        """Time passes; deadlines come when they are due."""
        until = self.now + seconds
        while self.deadlines and min(self.deadlines.values())[0] <= until:
            self.fire()
        self.now = max(self.now, until)

    def stand_still(self, seconds):
        """Nothing happened for so long, and we did not know."""
        self.now += seconds
        self.tell(TimeLost(self.now, seconds))

    def fire(self):
        """The next deadline comes."""
        name = min(self.deadlines, key=self.deadlines.__getitem__)
        when, generation = self.deadlines.pop(name)
        self.now = max(self.now, when)
        self.tell(DeadlinePassed(self.now, name, generation))
        self.settle()

    def drain(self):
        """Only what must happen does, until the job is finished. Whoever waits for something else, hangs."""
        for _ in range(1000):
            self.settle()
            if self.job.finished or not self._something_happens():
                return
        raise AssertionError("no end in sight")

    def doomed(self):
        """Those whom a signal of ours ends: not while they stand still, SIGKILL apart."""
        doomed = [process for process in self.processes if process.state == "alive" and process.doomed is not None]
        return [process for process in doomed if process.doomed == SIGKILL or not process.stands]

    def _something_happens(self):
        ended = [process for process in self.processes if process.state == "ended"]
        doomed = self.doomed()
        if self.job.suspended_at is not None:
            self.tell(Resumed(self.now))
        elif self.examining is not None:
            self.examined()
        elif self.mustering:
            self.mustered()
        elif ended:
            self.tell_exit(ended[0])
        elif doomed:
            number = doomed[0].doomed
            self.end(doomed[0], Ending("signal", signal=ENDS[number], number=number), by_us=True)
        elif "doomed" in self.leftovers:
            self.leftovers.remove("doomed")
        elif self.queue:
            self.start()
        elif self.deadlines:
            self.fire()
        else:
            return self._ends_by_itself()
        return True

    def _ends_by_itself(self):
        """Nothing of ours is under way: whatever lives may do so as long as it likes, and that must be meant."""
        alive = [process for process in self.processes if process.state == "alive"]
        no_limit = self.job.stop is not None and not self.spec.shutdown_timeout
        meant = self.job.stopped_at is None or self.spec.adopted or no_limit
        assert meant or not alive, "nobody ends these"
        if alive:
            self.end(alive[0], Ending("exit", code=0))
            alive[0].innocent = False
            return True
        if no_limit and "stubborn" in self.leftovers:
            self.leftovers.remove("stubborn")
            return True
        return False

    # ── Promises ─────────────────────────────────────────────────────────────────────────────────────────────────

    def check(self):
        """What holds after every fact."""
        job = self.job
        ranks = job.ranks
        counted = (
            sum(rank.spawned_at is not None for rank in ranks),
            sum(rank.ready_at is not None for rank in ranks),
            sum(rank.gone or rank.not_spawned is not None for rank in ranks),
            sum(rank.reaped for rank in ranks),
        )
        assert counted == (job.spawned, job.ready, job.ended, job.reaped)
        assert job.suspects == {rank.rank for rank in ranks if rank.suspect}
        assert job.unresolved <= {rank.rank for rank in ranks if rank.suspect and not rank.gone}
        assert self.given[Judge] <= 1
        assert self.given[Finish] <= 1
        assert job.finished == (self.given[Finish] == 1)
        assert len(self.reap_orders) == len(set(self.reap_orders))
        if job.holding:
            assert job.failed_at is not None
            assert job.stopped_at is None
        if job.failed_at is not None and job.stopped_at is None:
            assert job.holding or job.ended == self.spec.nprocs
        if job.suspended_at is not None:
            assert not self.deadlines
            assert all(process.stands for process in self.processes if process.state == "alive")
        elif not job.finished:
            assert {name: when for name, (when, _generation) in self.deadlines.items()} == job.due
            assert not any(process.stands for process in self.processes if process.state == "alive")
        for process in self.processes:
            if process.innocent and not ranks[process.rank].late:
                assert ranks[process.rank].failed_at is None, f"rank {process.rank} was stopped by us, and is blamed"

    def waits_for_something(self):
        """No state without a way out of it; after a failure the way out does not depend on anybody's good will."""
        job = self.job
        if job.finished or self.spec.adopted:
            return True
        states = {process.state for process in self.processes}
        if "alive" in states and job.failed_at is not None:
            return bool(self.deadlines)
        return bool(self.deadlines or states & {"alive", "ended"} or self.queue or self.leftovers)


def snapshot(job):
    """All state of a job, so that a change of any of it shows."""
    state = {name: copied(value) for name, value in vars(job).items() if name != "ranks"}
    state["ranks"] = [{slot: copied(getattr(rank, slot)) for slot in type(rank).__slots__} for rank in job.ranks]
    return state


def copied(value):
    return type(value)(value) if isinstance(value, list | set | dict | deque) else value
