"""Another machine's clock: whatever the two ways are like, and however the clocks drift, the truth is within the bounds."""

from hypothesis import given
from hypothesis import strategies as st

from rankguard.nodes.offset import DRIFT, Offset

WAY = st.floats(0.0, 2.0)
"""Seconds that a message takes."""
PAUSE = st.floats(0.0, 30.0)
EPSILON = 1e-6
"""Sums of instants of a year's uptime are exact to some nanoseconds."""


class TwoClocks:
    """The truth: ours is the time itself, theirs goes faster by `drift` from a start of its own."""

    def __init__(self, start: float, drift: float) -> None:
        self.now = 1e6
        self._start, self._drift = start, drift

    def theirs(self, at: float) -> float:
        return self._start + (at - 1e6) * (1 + self._drift)

    def offset(self, at: float) -> float:
        return self.theirs(at) - at

    def exchange(self, known: Offset, there: float, back: float) -> None:
        sent, read = self.now, self.now + there
        self.now = read + back
        known.exchanged(sent, self.theirs(read), self.now)

    def holds(self, known: Offset, at: float) -> bool:
        return abs(known.offset - self.offset(at)) <= known.uncertainty(at) + EPSILON


@given(
    start=st.floats(-1e7, 1e7),
    drift=st.floats(-DRIFT, DRIFT),
    steps=st.lists(st.tuples(PAUSE, WAY, WAY, st.booleans()), min_size=1, max_size=40),
)
def test_the_truth_is_always_within(start: float, drift: float, steps: list[tuple[float, float, float, bool]]) -> None:
    clocks, known = TwoClocks(start, drift), Offset()
    for pause, there, back, stamp in steps:
        clocks.now += pause
        if stamp and known.known:  # a frame with a stamp, which no answer follows
            sent = clocks.now
            clocks.now += back
            known.heard(clocks.theirs(sent), clocks.now)
        else:
            clocks.exchange(known, there, back)
        assert clocks.holds(known, clocks.now)
        assert clocks.holds(known, clocks.now + 100.0)
    assert known.contradictions == 0


@given(ways=st.lists(st.tuples(WAY, WAY), min_size=1, max_size=40))
def test_it_is_never_worse_than_the_best_exchange(ways: list[tuple[float, float]]) -> None:
    clocks, known, best = TwoClocks(0.0, 0.0), Offset(), float("inf")
    for there, back in ways:
        clocks.exchange(known, there, back)
        half = (there + back) / 2
        best = min(best + DRIFT * (there + back), half + DRIFT * (there + back))
        assert known.uncertainty() <= best + EPSILON


def test_one_exchange_is_known_to_half_its_round_trip() -> None:
    known = Offset()
    assert (known.known, known.offset, known.uncertainty(5.0)) == (False, 0.0, float("inf"))
    known.exchanged(100.0, 5000.0, 100.010)

    assert round(known.offset, 9) == 4899.995
    assert round(known.uncertainty(), 9) == 0.005 + 0.010 * DRIFT
    assert round(known.uncertainty(101.010), 9) == round(0.005 + 0.010 * DRIFT + DRIFT, 9)


def test_unequal_ways_the_other_way_round_tell_the_rest() -> None:
    """Once slow on its way there, once on its way back: what is left of both is narrow."""
    clocks, known = TwoClocks(50.0, 0.0), Offset()
    clocks.exchange(known, 1.0, 0.0)
    clocks.exchange(known, 0.0, 1.0)

    assert known.uncertainty() < 0.003
    assert clocks.holds(known, clocks.now)


def test_a_stamp_narrows_one_side() -> None:
    known = Offset()
    known.heard(7.0, 1.0)
    assert not known.known  # the other side would be open
    known.exchanged(100.0, 200.5, 101.0)
    before = known.uncertainty()
    known.heard(200.9, 101.0)  # sent when theirs was 200.9: they are ahead by 99.9 at least

    assert known.uncertainty() < before
    assert known.offset > 99.9


def test_a_clock_that_was_set_is_believed_anew() -> None:
    clocks, known = TwoClocks(0.0, 0.0), Offset()
    clocks.exchange(known, 0.001, 0.001)
    clocks._start += 3.0  # no monotonic clock does that; a machine that was frozen and moved does
    clocks.exchange(known, 0.001, 0.001)

    assert known.contradictions == 1
    assert clocks.holds(known, clocks.now)


def test_a_stamp_that_contradicts_makes_it_less_sure() -> None:
    known = Offset()
    known.exchanged(100.0, 200.0, 100.002)
    before = known.uncertainty()
    known.heard(205.0, 100.002)

    assert known.contradictions == 1
    assert known.offset >= 104.998
    assert known.uncertainty() > before


def test_an_exchange_that_cannot_be_is_dropped() -> None:
    known = Offset()
    known.exchanged(100.0, 200.0, 99.0)
    assert not known.known
