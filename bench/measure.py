"""What the bench counts with: series of figures, the turns in which contenders take theirs, and the lines of a table.

A repeat that failed is kept, with its reason, and shown; it is no figure. A contender that is not there says why.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

RIGHT = "right"
"""The unit of a series of 1 (right) and 0: it is counted, and has no median."""

Figures = Mapping[str, float]
"""What one repeat gives: figures by name."""


class NotThere(Exception):
    """A contender that this machine does not have, or that cannot do this work; the text says why."""


class Failed(Exception):
    """A repeat that went wrong: the text says how."""


@dataclass
class Series:
    """Figures of one contender, in the order in which they were taken."""

    name: str
    values: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: str | None = None
    """Why there is none at all."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    @property
    def span(self) -> tuple[float, float] | None:
        return (min(self.values), max(self.values)) if self.values else None


@dataclass
class Line:
    """One line of the table."""

    row: str
    what: str
    unit: str
    ours: Series
    peers: list[Series] = field(default_factory=list)
    reach: str = ""
    """What has to be reached, in words; empty: nothing was promised."""
    reached: bool | None = None
    note: str = ""
    label: str = ""
    """A few words, for the plot."""

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> "Line":
        return cls(**{**data, "ours": Series(**data["ours"]), "peers": [Series(**each) for each in data["peers"]]})


@dataclass
class Contender:
    """Who takes a turn. `once(number)`: one repeat, the how manieth it is; gives figures by name."""

    name: str
    once: Callable[[int], Figures]
    repeats: int
    warm_up: bool = True
    """One repeat first that is not counted. Not for what takes seconds: torch is read from disk once before all rows."""
    results: list[Figures] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    missing: str | None = None

    def series(self, figure: str, scale: float = 1.0) -> Series:
        values = [each[figure] * scale for each in self.results if figure in each]
        return Series(self.name, values, self.failed, self.missing)


def take_turns(contenders: list[Contender], tell: Callable[[str], None] = lambda text: None) -> None:
    """Every contender once, then again, each round begun by another, until all have their repeats."""
    for round_ in range(-1, max(each.repeats for each in contenders)):
        shift = round_ % len(contenders)
        for each in contenders[shift:] + contenders[:shift]:
            if each.missing is None and (each.warm_up if round_ < 0 else round_ < each.repeats):
                tell(f"{each.name}, {'warming up' if round_ < 0 else f'{round_ + 1} of {each.repeats}'}")
                _turn(each, round_)


def _turn(contender: Contender, number: int) -> None:
    try:
        figures = contender.once(max(number, 0))
    except NotThere as why:
        contender.missing = str(why)
    except Exception as error:
        if number >= 0:
            contender.failed.append(f"{type(error).__name__}: {error}"[:400])
    else:
        if number >= 0:
            contender.results.append(figures)


def at_most(series: Series, limit: float) -> bool | None:
    """Whether the median reaches it; null where there is none."""
    return None if series.median is None else series.median <= limit


def times(ours: Series, peer: Series) -> float | None:
    """Ours as a multiple of the peer's median."""
    return ours.median / peer.median if ours.median is not None and peer.median else None


def since(began_ns: int) -> float:
    """Seconds on the one clock of all processes here, CLOCK_MONOTONIC."""
    return (time.monotonic_ns() - began_ns) / 1e9
