"""When will the memory limit be reached, if it goes on like this? From samples to a warning, or to none.

Pure: samples in, words out. A warning is meant to come before the kernel's kill and to be right when it comes, so it
rests on three things together: how full the limit is with what the kernel cannot take back (page cache never counts), how
fast that grows now, and that it has never stood so high before. A job that stands still at 96 %, one that only fills the
page cache, or one whose memory rises and falls as before, is not warned of.

Not here: who is responsible after a kill (`memory_story.py`), when to look (`supervisor/samples.py`).
"""

from collections import deque
from collections.abc import Iterable, Sequence

from rankguard.diagnosis.words import ranges, size
from rankguard.model import MemoryState
from rankguard.record import Record

WINDOW_S, RECENT_S = 10.0, 0.2
"""Growth is that of the window, or that of its end (three samples at least) where that is slower: what has stopped growing
does not grow."""
SOON_S, VERY_SOON_S = 60.0, 10.0
HALF, HIGH, NEAR, FULL, CALM = 0.5, 0.8, 0.9, 0.95, 0.7
"""Shares of a limit. Below `CALM` a warning that was given is forgotten. At `NEAR` the kernel may kill at any moment,
whether it grows or not."""
BEGINS = "the memory limit is reached in"
"""How every warning begins."""
_LEAST_S = 0.05
_LEAST_RISE = 0.01
"""Of the limit, within the window: less is no growth that anybody needs to know of."""


class Sample(Record):
    """What one rank held when it was looked at last, in bytes, and how fast that grows (bytes/s; null: not known)."""

    rank: int
    held: int
    growth: float | None = None
    name: str | None = None
    """Of a watched engine's process, which has no number that a reader knows."""


class Outlook(Record):
    """`level` 0: nothing to say, 1: the limit is near in time, 2: and nearly reached. `left_s`: until it is, at this rate."""

    level: int = 0
    share: float = 0.0
    growth: float = 0.0
    left_s: float | None = None


class Course:
    """The last samples of one number (bytes), and the highest that it was before them."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()
        self.highest_before = 0.0

    def add(self, at: float, value: float) -> None:
        """A sample; instants never go back."""
        self._points.append((at, value))
        while self._points[0][0] < at - WINDOW_S and len(self._points) > 2:
            _at, old = self._points.popleft()
            self.highest_before = max(self.highest_before, old)

    @property
    def last(self) -> float:
        return self._points[-1][1] if self._points else 0.0

    def growth(self) -> float | None:
        """Bytes a second now; null when one sample is all there is. Never negative."""
        if len(self._points) < 2:
            return None
        points = list(self._points)
        end, first = points[-1][0], len(points) - 2
        while first > 0 and (len(points) - first < 3 or end - points[first][0] < RECENT_S):
            first -= 1
        recent = points[first:]
        slopes = [slope(self._points), slope(recent)]
        known = [each for each in slopes if each is not None]
        return max(0.0, min(known)) if known else None


def slope(points: Iterable[tuple[float, float]]) -> float | None:
    """The line through the points by least squares; null where they lie within 50 ms."""
    told = list(points)
    if len(told) < 2 or told[-1][0] - told[0][0] < _LEAST_S:
        return None
    middle = sum(at for at, _ in told) / len(told)
    mean = sum(value for _, value in told) / len(told)
    spread = sum((at - middle) ** 2 for at, _ in told)
    return sum((at - middle) * (value - mean) for at, value in told) / spread


def outlook(course: Course, limit: float) -> Outlook:
    """What the samples of one limit say."""
    share, growth = course.last / limit, course.growth() or 0.0
    new_height = course.last > course.highest_before * (1 + _LEAST_RISE)
    if growth * WINDOW_S < limit * _LEAST_RISE or not new_height:
        return Outlook(share=share, growth=growth)
    left = max(0.0, limit - course.last) / growth
    level = 0
    if (share >= HIGH and left < SOON_S) or (share >= HALF and left < VERY_SOON_S):
        level = 2 if share >= FULL else 1
    return Outlook(level=level, share=share, growth=growth, left_s=left)


class Alarm:
    """Which warnings of one limit have been given: each level once, until it is calm again."""

    MOST = 6

    def __init__(self) -> None:
        self._told = self._times = 0
        self._at_once = False
        """The last one said that it is a matter of less than a second: there is nothing to add."""

    def eases(self, now: Outlook) -> bool:
        """What a warning spoke of is over; it is forgotten."""
        if now.share >= CALM or now.level or not self._told:
            return False
        self._told, self._at_once = 0, False
        return True

    def rings(self, now: Outlook) -> bool:
        """A warning is due."""
        self.eases(now)
        if now.level <= self._told or self._at_once or self._times >= self.MOST:
            return False
        self._told, self._times = now.level, self._times + 1
        self._at_once = now.left_s is not None and now.left_s < 1
        return True


class Near(Record):
    """A limit at which the kernel may kill at any moment: how it stands now, and what each rank holds."""

    state: MemoryState
    outlook: Outlook
    ranks: tuple[Sample, ...] = ()


class Nearness:
    """Whether a limit is that near; once one is, until all are calm again."""

    def __init__(self) -> None:
        self._near = False

    def of(self, outlooks: Iterable[Outlook]) -> bool:
        """Of all limits, at the latest look."""
        told = list(outlooks)
        if any(each.level or each.share >= NEAR for each in told):
            self._near = True
        elif all(each.share < CALM for each in told):
            self._near = False
        return self._near


def easing(state: MemoryState) -> str:
    """That a warning is over, as a sentence."""
    used, limit = state.firm_bytes or 0, state.limit_bytes or 0
    return f"the memory limit is far again: {size(used)} of {size(limit)} ({_short(state.limit_from)})"


def warning(state: MemoryState, now: Outlook, ranks: Sequence[Sample]) -> str:
    """The warning as a sentence: when, how full, by whom, and who will come after."""
    used, limit = state.firm_bytes or 0, state.limit_bytes or 0
    swap = (
        f" and {size(state.swap_bytes or 0)} of {size(state.swap_limit_bytes)} of swap"
        if state.swap_limit_bytes
        else ""
    )
    said = (
        f"{_when(now.left_s)}: {size(used)} of {size(limit)} ({_short(state.limit_from)}){swap}, +{size(now.growth)}/s"
    )
    if who_grows := growing(ranks, now.growth):
        told = [f"{each.name or each.rank} (+{size(each.growth or 0)}/s)" for each in who_grows[:3]]
        more = f" and {len(who_grows) - 3} more" if len(who_grows) > 3 else ""
        one = len(who_grows) == 1
        said += f"; {_ranks(who_grows)}{', '.join(told)}{more} {'grows' if one else 'grow'}"
    elif ranks and not_of_ranks(state):
        said += "; the ranks' own memory does not grow: shared memory, tmpfs or other processes do"
    if waiting := small(ranks, now.growth):
        most = max(each.held for each in waiting)
        named = waiting[0].name is not None
        who = f"{len(waiting)} of them" if named else _ranks(waiting) + ranges(each.rank for each in waiting)
        said += f"; {who} {'has' if len(waiting) == 1 else 'have'} not allocated yet ({size(most)} at most)"
    return said


def not_of_ranks(state: MemoryState) -> bool:
    """What grows is no rank's own memory, as far as growth is known."""
    growth, ranks = state.growth_bytes_s, state.ranks_growth_bytes_s
    return growth is not None and ranks is not None and ranks < growth / 4


def growing(ranks: Sequence[Sample], growth: float) -> list[Sample]:
    """Ranks that make up a twentieth of the growth or more, the fastest first."""
    return sorted((each for each in ranks if _grows(each, growth)), key=lambda each: -(each.growth or 0))


def small(ranks: Sequence[Sample], growth: float) -> list[Sample]:
    """Ranks that hold less than a quarter of the largest and do not grow: if they are like it, they are still to come."""
    largest = max((each.held for each in ranks), default=0)
    return [each for each in ranks if each.held < largest / 4 and not _grows(each, growth)]


def _ranks(several: Sequence[Sample]) -> str:
    """What stands before their numbers; names need no such word."""
    return "" if several[0].name is not None else "rank " if len(several) == 1 else "ranks "


def _grows(rank: Sample, of: float) -> bool:
    """A twentieth of what there is in growth."""
    return (rank.growth or 0) > max(of / 20, 1.0)


def _when(left_s: float | None) -> str:
    return f"{BEGINS} less than 1 s" if left_s is None or left_s < 1 else f"{BEGINS} about {left_s:.0f} s"


def _short(limit_from: str | None) -> str:
    """`memory.max of …/job`: the end of a group's path says which it is."""
    name, of, path = (limit_from or "its source is unknown").partition(" of /")
    return f"{name} of …/{path.rpartition('/')[2]}" if of and "/" in path else name + of + path
