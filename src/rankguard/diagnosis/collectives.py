"""Collectives that timed out: which rank did not come. Pure; asked by `culprit.py` when nobody failed in a better way.

Who waits longest gives up first, so order proves nothing, and those that give up are victims. The culprit is who was
waited for. What may tell, each applied to those that are left, until one is:

1. the runtimes' own word: a monitored barrier, NCCL's desync report, JAX's barrier name who did not join
2. the numbers that process groups count their collectives by: who is behind, or in another operation at the same number
3. who did not time out at all: held from outside, not waiting for a peer, doing something else than most (stacks of
   those that were alive, `facts.Mustered`), alive rather than lost
4. if all came: who gave up in another call than most

Where these leave several, all that are left are `either`; nobody is named where nothing tells them apart.
Not here: what a text says (`collective_words.py`), the words of the verdict (`collective_causes.py`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import reduce

from rankguard.case import Case, RankCase
from rankguard.collective import Recorded
from rankguard.diagnosis.collective_words import Step, Told, told
from rankguard.diagnosis.evidence import code_of, ended_by_itself, exception_of, report_of
from rankguard.diagnosis.failure_class import FailureClass, failure_class
from rankguard.diagnosis.stacks import gil_holder, held, is_own, own_frames
from rankguard.diagnosis.stalls import waits_for_peer
from rankguard.model import Confidence
from rankguard.record import Record
from rankguard.stacks import Stack

KIND = "collective-timeout"


class Standing(Record):
    """What is known of one rank's part in the collective."""

    rank: int
    told: Told
    state: str
    """`timed out`, `lost` (a peer), `finished` (with 0), `alive`, or `other`."""
    stack: Stack | None = None
    place: tuple[str, str] | None = None
    """Which collective it called, and from which line of the program."""
    quiet_since: float = 0.0


class Choice(Record):
    """Who was waited for: null for nobody that is known. `either`: who may as well be the one. `told_by`: which sieve."""

    rank: int | None
    either: tuple[int, ...]
    basis: str
    confidence: Confidence
    told_by: str = ""


class View(Record):
    """All ranks beside one another."""

    case: Case
    stood: Mapping[int, Standing]
    steps: Mapping[str, Mapping[int, Step]]
    recorded: tuple[Recorded, ...]

    @property
    def waited(self) -> set[int]:
        """Those that came: they timed out, or were seen waiting."""
        return {n for n, each in self.stood.items() if each.state == "timed out" or _waits(each.stack)}


def is_one(classes: Mapping[int, FailureClass]) -> bool:
    """Whether the job failed by a collective's time-out: that is the best reason that any suspect has."""
    return len(classes) > 0 and min(classes.values()) is FailureClass.TIMED_OUT


def choose(case: Case) -> Choice:
    """Of a job that failed by a collective's time-out."""
    view = look(case)
    left, basis, told_by, sure = set(view.stood), "", "", False
    for sieve, words in _SIEVES:
        found, positive = sieve(view, left)
        if found and found < left:
            left, basis, told_by, sure = found, words, sieve.__name__.lstrip("_"), sure or positive
        if len(left) == 1:
            return Choice(next(iter(left)), (), basis or "the only rank", Confidence.LIKELY, told_by)
    if sure:
        first, *others = sorted(left, key=lambda number: (view.stood[number].quiet_since, number))
        return Choice(first, tuple(sorted(others)), basis, Confidence.LIKELY, told_by)
    return Choice(None, tuple(sorted(left)), "nothing tells which rank was waited for", Confidence.UNKNOWN)


def look(case: Case) -> View:
    """What is known of the part that each rank had in it."""
    found = case.mustered
    remarks = {remark.rank: remark.lines for remark in found.remarks} if found else {}
    stacks = {number: group.stack for group in found.groups for number in group.ranks} if found else {}
    signs = {sign.rank: sign.at for sign in found.signs} if found else {}
    stood = {}
    for rank in case.ranks:
        words = told(rank.rank, _lines(rank, remarks.get(rank.rank, ())))
        stack = stacks.get(rank.rank)
        stood[rank.rank] = Standing(
            rank=rank.rank,
            told=words,
            state=_state(case, rank, words),
            stack=stack,
            place=_place_of_exception(rank) or _place_of_stack(stack),
            quiet_since=signs.get(rank.rank) or rank.spawned_at or case.started_at,
        )
    own = tuple(each for rank in case.ranks if (said := report_of(rank)) for each in said.recorded)
    known = {(each.rank, each.group) for each in own}
    files = tuple(each for each in (found.recorded if found else ()) if (each.rank, each.group) not in known)
    return View(case=case, stood=stood, steps=_steps(stood, own + files), recorded=own + files)


def waited_at(of: Mapping[int, Step]) -> int | None:
    """The number of the collective that most of a group waited in."""
    counted = Counter(step.seq for step in of.values() if step.seq is not None)
    return max(counted, key=lambda seq: (counted[seq], seq)) if counted else None


# ── Standings ────────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(rank: RankCase, remarks: Iterable[str]) -> list[str]:
    """All that it said of collectives, oldest first: what it printed, then its last words."""
    lines = list(rank.exited.remarks if rank.exited else remarks)
    lines += rank.exited.log_tail if rank.exited else ()
    report = report_of(rank)
    if report:
        lines += (report.exception.message if report.exception else report.text).splitlines()
    return lines


def _state(case: Case, rank: RankCase, words: Told) -> str:
    if words.timed_out:
        return "timed out"
    if code_of(rank) == 0 and ended_by_itself(rank):
        return "finished"
    own = failure_class(case, rank) if rank.suspect else FailureClass.NONE
    return {FailureClass.PEER_LOST: "lost", FailureClass.NONE: "alive"}.get(own, "other")


def _waits(stack: Stack | None) -> bool:
    """It was seen waiting for a peer. One that is held from outside does not wait, wherever it stands."""
    return stack is not None and held(stack) is None and gil_holder(stack) is None and waits_for_peer(stack)


_BETWEEN_TWO = frozenset(
    ("send", "recv", "isend", "irecv", "batch_isend_irecv", "send_object_list", "recv_object_list")
)


def _place_of_exception(rank: RankCase) -> tuple[str, str] | None:
    found = exception_of(rank)
    frames = found[0].frames if found else ()
    own = [n for n, frame in enumerate(frames) if not any(mark in frame for mark in _LIBRARIES)]
    if not own or own[-1] + 1 >= len(frames):
        return None
    called = [_function(frame) for frame in frames[own[-1] + 1 :]]
    name = next((each for each in called if each not in _WRAPPERS), called[0])
    where, _, function = frames[own[-1]].rpartition(" ")
    return None if name in _BETWEEN_TWO else (name, f"{where.rpartition('/')[2]} {function}")


def _place_of_stack(stack: Stack | None) -> tuple[str, str] | None:
    if stack is None or not _waits(stack):
        return None
    frames = own_frames(stack.main.frames)
    at = next((n for n, frame in enumerate(frames) if is_own(frame)), 0)
    if at == 0:
        return None
    called = [frame.function.rpartition(".")[2] for frame in frames[:at]][::-1]
    name = next((each for each in called if each not in _WRAPPERS), called[0])
    own = frames[at]
    where = (own.file or "?").rpartition("/")[2]
    return None if name in _BETWEEN_TWO else (name, f"{where}:{own.line} {own.function}")


def _function(frame: str) -> str:
    return frame.rpartition(" ")[2].rpartition(".")[2]


_WRAPPERS = frozenset(("wrapper", "wrapped", "inner", "decorate_context", "__call__"))
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ", "/rankguard/inside/")


def _steps(stood: Mapping[int, Standing], recorded: Iterable[Recorded]) -> dict[str, dict[int, Step]]:
    """Of each process group of which several ranks tell: where each of them stood."""
    groups: dict[str, dict[int, Step]] = {}
    for each in stood.values():
        for step in each.told.steps:
            groups.setdefault(step.group, {})[each.rank] = step
    for own in recorded:
        if own.rank not in stood:
            continue
        name = next((group for group in groups if group.partition("(")[0] == own.group), own.group)
        said = groups.setdefault(name, {}).get(own.rank) or Step(name)
        last = own.entries[-1] if own.entries and stood[own.rank].state == "timed out" else None
        seq = last.seq if last and said.seq is None else said.seq
        op = next((entry.op for entry in own.entries if entry.seq == seq), None)
        groups[name][own.rank] = said.replace(
            seq=seq,
            op=said.op or op,
            enqueued=own.enqueued if said.enqueued is None else said.enqueued,
            completed=own.completed if said.completed is None else said.completed,
        )
    return {group: of for group, of in groups.items() if len(of) > 1 and _is_same_group(of)}


def _is_same_group(of: Mapping[int, Step]) -> bool:
    places = [step.place for step in of.values() if step.place is not None]
    return len(set(places)) == len(places)


# ── Sieves: of those that are left, who may be the one; and whether that is shown, not only not excluded ─────────


def _named(view: View, left: set[int]) -> tuple[set[int], bool]:
    """By whoever compared all ranks. A report that names everybody names nobody."""
    return {n for each in view.stood.values() for n in each.told.named} & left, True


def _behind(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Who had not enqueued the collective that others wait in; where most had not: those that wait alone."""
    found = []
    for of in view.steps.values():
        at = max((step.seq for step in of.values() if step.seq is not None), default=None)
        if at is None:
            continue
        late = {n for n, step in of.items() if _position(step, at) < at}
        late = late if 2 * len(late) <= len(of) else set(of) - late
        if late and late < set(of):
            found.append(late)
    return _agreed(found) & left, True


def _position(step: Step, at: int) -> int:
    """How far a rank had come, seen from number `at`: what it waited in counts more than what it enqueued behind that."""
    if step.seq is not None:
        return step.seq
    return at if step.enqueued is None else step.enqueued


def _mismatched(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Who was in another operation than most at the same number of the same group: the first number that shows any."""
    found = []
    for ops in mismatches(view).values():
        counted = Counter(ops.values())
        most, times = counted.most_common(1)[0]
        if 2 * times > len(ops):
            found.append({n for n, op in ops.items() if op != most})
    return _agreed(found) & left, True


def mismatches(view: View) -> dict[tuple[str, int], dict[int, str]]:
    """Number of a group → who was in which operation, for the first number of each group at which they differ."""
    ops: dict[str, dict[int, dict[int, str]]] = {}
    for group, of in view.steps.items():
        for n, step in of.items():
            if step.seq is not None and step.op is not None:
                ops.setdefault(group, {}).setdefault(step.seq, {})[n] = step.op.lower()
    for own in view.recorded:
        group = next((name for name in view.steps if name.partition("(")[0] == own.group), own.group)
        for entry in own.entries:
            ops.setdefault(group, {}).setdefault(entry.seq, {}).setdefault(own.rank, entry.op.lower())
    found = {}
    for group, by_seq in ops.items():
        first = next((seq for seq in sorted(by_seq) if len(set(by_seq[seq].values())) > 1), None)
        if first is not None:
            found[group, first] = by_seq[first]
    return found


def _asked_for(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Whose key was waited for in the store, and who did not wait itself."""
    return {n for each in view.stood.values() for n in each.told.asked} & left - view.waited, False


def _absent(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Who did not time out, and was not seen waiting for a peer."""
    found = left - view.waited
    return found, all(_is_elsewhere(view.stood[n].stack) for n in found)


def _is_elsewhere(stack: Stack | None) -> bool:
    return stack is not None and (held(stack) is not None or (bool(stack.main.frames) and not waits_for_peer(stack)))


def _held(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Whom something holds from outside: stopped, traced, in a system call that cannot be interrupted."""
    return {n for n in left if (stack := view.stood[n].stack) is not None and held(stack) is not None}, True


def _odd(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Who does something else than most of those that are left."""
    found = view.case.mustered
    for group in found.groups if found else ():
        same = set(group.ranks) & left
        if len(same) >= 2 and 2 * len(same) > len(left):
            return left - same, True
    return set(), True


def _going_on(view: View, left: set[int]) -> tuple[set[int], bool]:
    """Who was alive, or had left with 0, rather than those that lost a peer: these may have waited as well."""
    return {n for n in left if view.stood[n].state in ("alive", "finished")}, False


def _elsewhere(view: View, left: set[int]) -> tuple[set[int], bool]:
    """If all came: who gave up in another call than most."""
    places = {n: each.place for n, each in view.stood.items() if each.place is not None}
    if not left <= view.waited or len(places) < 3:
        return set(), False
    most, times = Counter(places.values()).most_common(1)[0]
    return ({n for n, place in places.items() if place != most} & left if 2 * times > len(view.stood) else set()), True


def _agreed(found: list[set[int]]) -> set[int]:
    """What all process groups agree in, else what any of them says: who waits for a late rank is late elsewhere."""
    if not found:
        return set()
    return reduce(set.intersection, found) or reduce(set.union, found)


_Sieve = Callable[[View, set[int]], tuple[set[int], bool]]
_SIEVES: tuple[tuple[_Sieve, str], ...] = (
    (_named, "named as the one that did not join"),
    (_mismatched, "in another collective than the others"),
    (_behind, "not at the number of the collective that the others were in"),
    (_absent, "did not time out as the others did"),
    (_asked_for, "waited for by name"),
    (_held, "held from outside"),
    (_odd, "does something else than the others"),
    (_going_on, "neither timed out nor lost a peer"),
    (_elsewhere, "gave up in another call than the others"),
)
