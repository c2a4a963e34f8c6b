"""The language of scenarios: one line of text to facts. No state, no stepping (`player.py` does that).

A line is `TIME WORDS…`, the time in seconds since 0. Words with blanks stand in quotes; `name=value` words are options
and may stand anywhere. Of the job:

    0.000 start                                      JobStarted
    0.100 expect-ready [within=60]                   ReadinessExpected
    3.000 asked SIGTERM [grace=5] [by=caller] [at-once] [pid=7] [to=supervisor] [spare-nobody]   StopRequested
    3.000 signal SIGUSR1                             SignalPassed
    3.000 suspended · 9.000 resumed                  Suspended, Resumed
    9.000 time-lost 6.0                              TimeLost
    3.000 stopping                                   StoppingAnnounced
    3.000 lost front|warden [pid=7]                  FrontLost, WardenLost
    3.000 deadline grace [stale]                     DeadlinePassed, of the current (or of an earlier) generation
    3.000 looked [5=exiting 6=killed …]              Looked
    3.000 silences [5=1.5 6=never …] [soonest=2.5]   Silences: their last signs, and the oldest of the others
    3.000 examined [5=1.5 6=never …] [number=1]      Examined: the last signs, no stacks
    3.000 mustered [5=1.5 6=never …]                 Mustered: the last signs, no stacks
    3.000 signalled SIGTERM 7                        Signalled
    3.000 judged 5|nobody killed exit=137 [either=1,2] [basis="…"] [gap=812] [node=2]   Judged
    3.000 tree-empty [killed=101,102] [survivors=103]   TreeEmpty
    3.000 oom-log 5|nobody [child]                   KernelKilled
    3.000 oom-seen /job                              OomSeen
    3.000 joined 1 "worker TP1" [pid=101] [may-end]  Joined
    3.000 perished "helper" SIGKILL|1 [pid=301] [quiet] [oom]   Perished
    0.500 node-joined 1 host-b [first=2] [count=2] [off=0.001] [again]   NodeJoined
    3.000 node-silent 1 1.0 · 3.500 node-heard 1 1.5   NodeSilent, NodeHeard
    3.000 node-stopping 1 "rank 2 failed" [5=killed …] [signal=SIGKILL]   NodeStopping
    3.000 node-lost 1 silent|closed|left|never|unplaced [silent=5]   NodeLost
    3.000 memory-short 1 "the limit is near"         MemoryShort
    3.500 memory-eased "the limit is far again"      MemoryEased
    3.000 kernel-note 5|nobody "Xid 79"              KernelNoted
    3.000 surveyed                                   Surveyed: nothing was asked
    3.000 gpus-read                                  GpusRead: no driver answers
    3.000 warned "a full disk"                       Warned
    3.000 degraded samples "they raised"             Degraded

Of one rank, or of each of a range (`ranks 0-3,7`); the pid is 100 + rank unless it is given:

    0.010 rank 5 spawned [pid=105]                   Spawned
    0.010 rank 5 not-spawned exec ENOENT             NotSpawned
    0.500 rank 5 ready                               Ready
    0.500 rank 5 says "loading" [done=3] [total=8] [unit=shards]   StatusTold
    0.500 rank 5 probed "…/health answered 503"      StatusTold: what was heard of its readiness
    0.500 rank 5 extends 30                          Extended
    0.500 rank 5 leaving                             LeavingTold
    0.500 rank 5 reports exception|failed|errno "ValueError: x" [raised=0.49] [errno=5] [peer="reset by peer"] [timed-out]
    0.500 rank 5 breaks-protocol "not JSON"          ProtocolBroken
    0.500 rank 5 complains SIGQUIT                   Complained
    0.500 rank 5 exits 1 [peer="reset by peer"] [timed-out]   Exited
    0.500 rank 5 gone                                Exited, nobody knows how
    0.500 rank 5 killed SIGKILL [oom] [core] [peer="…"] [timed-out]   Exited
    0.500 rank 5 output-closed                       OutputClosed
    0.500 rank 5 reaped [peak=4096]                  Reaped
"""

import errno
import os
import shlex
import signal
from collections.abc import Callable, Iterator

from rankguard import facts
from rankguard.circumstances import KernelNote
from rankguard.facts import Fact
from rankguard.model import Ending, OomCount, OomRecord, Report, Sender, Sign, Survivor

PID = 100
WALL = 1_790_000_000.0


class ScenarioError(ValueError):
    """The scenario is at fault: a word that has no meaning, or a course of events that cannot be."""


class Words:
    """The words of one line, taken from left to right; options by name."""

    def __init__(self, text: str) -> None:
        try:
            split = shlex.split(text)
        except ValueError as error:
            raise ScenarioError(f"{text}: {error}") from None
        named = [word.partition("=") for word in split]
        self._options = {name: value for name, equals, value in named if equals and name.replace("_", "").isalnum()}
        self._plain = [
            word
            for word, (name, equals, _) in zip(split, named, strict=True)
            if not equals or name not in self._options
        ]

    def next(self, what: str) -> str:
        """The next word. Raises `ScenarioError` when there is none."""
        if not self._plain:
            raise ScenarioError(f"{what} is missing")
        return self._plain.pop(0)

    def flag(self, word: str) -> bool:
        """Whether the word is there, anywhere."""
        if word not in self._plain:
            return False
        self._plain.remove(word)
        return True

    def text(self, name: str) -> str | None:
        """An option as it stands."""
        return self._options.pop(name, None)

    def number(self, name: str) -> float | None:
        """An option that is a number."""
        told = self._options.pop(name, None)
        return None if told is None else float(told)

    def whole(self, name: str) -> int | None:
        """An option that is a whole number."""
        told = self._options.pop(name, None)
        return None if told is None else int(told)

    def numbers(self, name: str) -> tuple[int, ...]:
        """An option that is a list of whole numbers."""
        return tuple(members(self._options.pop(name, "")))

    def ranks(self) -> dict[int, str]:
        """All options whose name is a rank."""
        named = {name: self._options.pop(name) for name in list(self._options) if name.isdigit()}
        return {int(name): value for name, value in named.items()}

    def done(self) -> None:
        """Raises `ScenarioError` when words are left over."""
        left = self._plain + [f"{name}={value}" for name, value in self._options.items()]
        if left:
            raise ScenarioError(f"what is meant by {' '.join(left)}?")


def members(text: str) -> Iterator[int]:
    """`0-3,7` → 0 1 2 3 7."""
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def parse(text: str, generation: Callable[[str], int]) -> list[Fact]:
    """The facts of one line. `generation` tells the current one of a deadline. Raises `ScenarioError`."""
    words = Words(text)
    try:
        at = float(words.next("the time"))
        verb = words.next("what happened")
        if verb in ("rank", "ranks"):
            ranks = list(members(words.next("which rank")))
            verb = words.next("what the rank did")
            made = _of_ranks(at, ranks, verb, words)
        else:
            made = [_of_job(at, verb, words, generation)]
        words.done()
    except (ScenarioError, ValueError, KeyError) as error:
        raise ScenarioError(f"{text}: {error}") from None
    return made


def _of_job(at: float, verb: str, words: Words, generation: Callable[[str], int]) -> Fact:  # noqa: C901, PLR0911, PLR0912  # one arm a word
    match verb:
        case "start":
            return facts.JobStarted(at, WALL + at)
        case "expect-ready":
            return facts.ReadinessExpected(at, words.number("within"))
        case "asked":
            number, pid = _signal(words.next("the signal")), words.whole("pid")
            sender = None if pid is None else Sender(pid=pid)
            by = words.text("by") or "signal"
            grace, at_once, to = words.number("grace"), words.flag("at-once"), words.text("to") or "front"
            spare = () if words.flag("spare-nobody") else None
            return facts.StopRequested(at, number, sender, grace, at_once, by, to, spare)
        case "signal":
            return facts.SignalPassed(at, _signal(words.next("the signal")))
        case "suspended":
            return facts.Suspended(at)
        case "resumed":
            return facts.Resumed(at)
        case "time-lost":
            return facts.TimeLost(at, float(words.next("the seconds")))
        case "stopping":
            return facts.StoppingAnnounced(at)
        case "lost":
            kind = {"front": facts.FrontLost, "warden": facts.WardenLost}[words.next("front or warden")]
            return kind(at, words.whole("pid") or 1)
        case "deadline":
            name = words.next("the name of the deadline")
            return facts.DeadlinePassed(at, name, generation(name) - words.flag("stale"))
        case "looked":
            return facts.Looked(at, tuple(words.ranks().items()))
        case "silences":
            return facts.Silences(at, _signs(words), words.number("soonest"))
        case "examined":
            return facts.Examined(at, words.whole("number") or 1, _signs(words))
        case "mustered":
            return facts.Mustered(at, _signs(words))
        case "signalled":
            return facts.Signalled(at, _signal(words.next("the signal")), int(words.next("how many were reached")))
        case "judged":
            who, kind_of = words.next("the culprit"), words.next("the kind of cause")
            rank = None if who == "nobody" else int(who)
            code, either = words.whole("exit") or 1, words.numbers("either")
            basis, gap = words.text("basis") or "only suspect", words.whole("gap")
            return facts.Judged(at, rank, kind_of, code, either, basis, gap, words.whole("node"))
        case "tree-empty":
            stuck = tuple(Survivor(pid, "python3", "D") for pid in words.numbers("survivors"))
            return facts.TreeEmpty(at, words.numbers("killed"), stuck)
        case "oom-log":
            who, is_child = words.next("the rank"), words.flag("child")
            rank = None if who == "nobody" else int(who)
            record = OomRecord(PID + (rank or 0), "python3", "Out of memory: Killed process")
            return facts.KernelKilled(at, rank, record, is_child)
        case "joined":
            number, name, may_end = int(words.next("its number")), words.next("its name"), words.flag("may-end")
            pid = words.whole("pid") or PID + number
            return facts.Joined(at, number, pid, name, rule="a test", may_end=may_end)
        case "perished":
            name, how, quiet = words.next("its name"), words.next("how"), words.flag("quiet")
            ending = (
                Ending("exit", code=int(how)) if how.isdigit() else Ending("signal", signal=how, number=_signal(how))
            )
            oom = (OomCount("/job", 0, 1, shared=True),) if words.flag("oom") else ()
            return facts.Perished(at, words.whole("pid") or 301, name, ending, oom=oom, loud=not quiet)
        case "node-joined" | "node-silent" | "node-heard" | "node-stopping" | "node-lost":
            return _of_node(at, verb, int(words.next("the number of the node")), words)
        case "oom-seen":
            return facts.OomSeen(at, words.next("the group"))
        case "memory-short":
            level = int(words.next("the level"))
            return facts.MemoryShort(at, words.next("the statement"), level)
        case "memory-eased":
            return facts.MemoryEased(at, words.next("the statement"))
        case "kernel-note":
            who = words.next("the rank")
            note = KernelNote("xid", words.next("the line"), number=79)
            return facts.KernelNoted(at, None if who == "nobody" else int(who), note)
        case "surveyed":
            return facts.Surveyed(at)
        case "gpus-read":
            return facts.GpusRead(at, why_not="no driver answers")
        case "warned":
            return facts.Warned(at, words.next("the statement"))
        case "degraded":
            return facts.Degraded(at, words.next("the part"), words.next("the statement"))
    raise ScenarioError(f"no such fact of a job: {verb}")


def _of_node(at: float, verb: str, node: int, words: Words) -> Fact:
    name = f"host-{chr(ord('a') + node)}"
    match verb:
        case "node-joined":
            name, count = words.next("its name"), words.whole("count") or 2
            first = words.whole("first")
            first, off = node * count if first is None else first, words.number("off") or 0.0
            return facts.NodeJoined(at, node, name, first, count, uncertainty=off, again=words.flag("again"))
        case "node-silent" | "node-heard":
            kind = facts.NodeSilent if verb == "node-silent" else facts.NodeHeard
            return kind(at, node, name, float(words.next("the seconds")))
        case "node-stopping":
            number = _signal(words.text("signal") or "SIGTERM")
            return facts.NodeStopping(at, node, name, words.next("why"), number, tuple(words.ranks().items()))
    how, silent_s = words.next("how"), words.number("silent") or 0.0
    statement = {
        "silent": f"nothing was heard of it for {silent_s:.1f} s",
        "closed": "its agent is gone",
        "left": "its warden is gone",
        "never": "it has not joined",
        "unplaced": "Ray has not placed all agents within 600 s: bundle 1 of 2 waits: alive nodes have free host-a GPU 4 of 4",
    }[how]
    named = "" if how in facts.UNJOINED else name
    return facts.NodeLost(at, node, named, how, statement, silent_s, "--nnodes 1" if how == "unplaced" else "")


def _signs(words: Words) -> tuple[Sign, ...]:
    told = words.ranks().items()
    return tuple(Sign(rank) if at == "never" else Sign(rank, float(at), "output") for rank, at in told)


def _of_ranks(at: float, ranks: list[int], verb: str, words: Words) -> list[Fact]:
    make = _of_rank(at, verb, words)
    return [make(rank) for rank in ranks]


def _of_rank(at: float, verb: str, words: Words) -> Callable[[int], Fact]:  # noqa: C901, PLR0911  # one arm a word
    match verb:
        case "spawned":
            pid = words.whole("pid")
            return lambda rank: facts.Spawned(at, rank, PID + rank if pid is None else pid)
        case "not-spawned":
            stage = words.next("the stage")
            number = 0 if stage == "cancelled" else int(getattr(errno, words.next("the errno")))
            said = "the job was told to end before it started" if number == 0 else os.strerror(number)
            return lambda rank: facts.NotSpawned(at, rank, stage, number, said)
        case "ready":
            return lambda rank: facts.Ready(at, rank)
        case "says":
            text = words.next("the text")
            done, total, unit = words.number("done"), words.number("total"), words.text("unit")
            return lambda rank: facts.StatusTold(at, rank, text, done, total, unit)
        case "probed":
            heard = words.next("what was heard")
            return lambda rank: facts.StatusTold(at, rank, probe=heard)
        case "extends":
            seconds = float(words.next("the seconds"))
            return lambda rank: facts.Extended(at, rank, seconds)
        case "leaving":
            return lambda rank: facts.LeavingTold(at, rank)
        case "reports":
            how, text = words.next("exception, failed or errno"), words.next("the text")
            report = Report(how, text, raised_at=words.number("raised"), errno=words.whole("errno"))
            peer, timed_out = words.text("peer"), words.flag("timed-out")
            return lambda rank: facts.FailureReported(at, rank, report, peer, timed_out)
        case "breaks-protocol":
            statement = words.next("the statement")
            return lambda rank: facts.ProtocolBroken(at, rank, statement)
        case "complains":
            signalled = _signal(words.next("the signal"))
            return lambda rank: facts.Complained(at, rank, signalled)
        case "exits" | "killed" | "gone":
            ending, oom, peer = _ending(verb, words), words.flag("oom"), words.text("peer")
            late = words.flag("timed-out")
            return lambda rank: facts.Exited(at, rank, ending, _oom(rank) if oom else (), oom, (), peer, timed_out=late)
        case "output-closed":
            return lambda rank: facts.OutputClosed(at, rank)
        case "reaped":
            peak = words.whole("peak")
            return lambda rank: facts.Reaped(at, rank, peak)
    raise ScenarioError(f"no such fact of a rank: {verb}")


def _ending(verb: str, words: Words) -> Ending:
    if verb == "gone":
        return Ending("exit")
    if verb == "exits":
        return Ending("exit", code=int(words.next("the exit code")))
    name = words.next("the signal")
    return Ending("signal", signal=name, number=_signal(name), core_dumped=words.flag("core"))


def _oom(rank: int) -> tuple[OomCount, ...]:
    return (OomCount(f"/job/rank-{rank}/memory.events", 0, 1, shared=False),)


def _signal(name: str) -> int:
    return int(signal.Signals[name])


def signal_name(number: int) -> str:
    """`SIGTERM` for 15."""
    return signal.Signals(number).name
