"""The axes of the fault matrix, and a cell of it by name: `kill/all-ready/exec/own/root`.

Not in here: how a cell's surroundings are made (`place.py`), what happens in it (`cell.py`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

from rankguard.testing import faults

GROUPS = ("own", "ro")
"""`own`: control groups can be written, so that each rank gets a memory group of its own. `ro`: a mount namespace in
which all of them are read-only, as in the usual container."""
USERS = ("root", "nobody")
"""`nobody`: uid and gid 65534, no other group, no capability; with `own` in a group that is theirs (delegation)."""
RANKS = 3

MEANING = {
    "fault": "what happens to rank 1 of 3 (`rankguard.testing.faults`); some need more ranks",
    "starting": "before rank 1 has said that it is ready; nobody is",
    "ready-early": "after rank 1 has said that it is ready, while the others start",
    "all-ready": "when all ranks are ready",
    "stopping": "after a SIGTERM from outside: then nobody is to be called a failure",
    "exec": "`rankguard run -n 3 -m …`",
    "warm": "the same, forked of a server: `--start warm`",
    "function": "a function, by `rankguard.launch`",
    "own": "control groups can be written; each rank gets a memory group of its own",
    "ro": "control groups are mounted read-only, as in the usual container",
    "root": "uid 0 with all capabilities",
    "nobody": "uid 65534 without any; with `own` in a control group that is delegated to it",
}


class Place(NamedTuple):
    """One cell of the matrix, by the values of its axes."""

    fault: str
    at: str
    start: str
    groups: str
    user: str

    def __str__(self) -> str:
        return "/".join(self)

    @property
    def cell(self) -> faults.Cell:
        """What the laboratory is asked for; what the surroundings allow is looked up there."""
        return faults.Cell(at=self.at, ranks=max(RANKS, faults.FAULTS[self.fault].least_ranks), start=self.start)


AXES: tuple[Sequence[str], ...] = (tuple(faults.FAULTS), faults.PHASES, faults.STARTS, GROUPS, USERS)


def everything() -> list[Place]:
    """Every cell, fault by fault."""
    return [Place(*values) for values in product(*AXES)]


def asked(words: Sequence[str]) -> list[Place]:
    """The cells that `words` name: `kill/all-ready/exec/own/root`, `kill`, `oom*/*/exec`. No word: all of them.

    Raises `ValueError` for a word that names none.
    """
    from fnmatch import fnmatchcase

    chosen: list[Place] = []
    for word in words:
        wanted = [*word.split("/"), *["*"] * len(AXES)][: len(AXES)]
        found = [place for place in everything() if all(map(fnmatchcase, place, wanted))]
        if not found:
            raise ValueError(f"`{word}`: expected FAULT/AT/START/GROUPS/USER, each a name or a pattern")
        chosen += found
    return list(dict.fromkeys(chosen)) if words else everything()


def home(fault: str) -> str:
    """The part of the laboratory that a fault belongs to: `endings`, `crashes` …"""
    return faults.FAULTS[fault].part.partition(":")[0]


def sample() -> list[Place]:
    """Few cells that cover much: every fault; and every pair of values of two axes, where a fault counts as its home.

    (All pairs with the fault itself would be four cells a fault at least: that is the matrix, not a sample.)
    A greedy choice, the same each time on the same kind of machine: most that is new, then what was used least.
    """
    made = [place for place in everything() if meaningful(place) and not cannot(place)]
    covers = {place: _covered(place) for place in made}
    wanted = {item for items in covers.values() for item in items}
    used: Counter[tuple[str, ...]] = Counter()
    chosen: list[Place] = []
    while wanted:
        best = max(
            made,
            key=lambda place: (len(wanted & covers[place]), -sum(used[pair] for pair in combinations(place[1:], 2))),
        )
        chosen.append(best)
        used.update(combinations(best[1:], 2))
        wanted -= covers[best]
    return chosen


def spread(places: Sequence[Place]) -> list[Place]:
    """Those of `places`, in their order, that bring a pair of values which none before them has."""
    known: set[tuple[str, ...]] = set()
    chosen = []
    for place in places:
        of_two = {item for item in _covered(place) if len(item) == 2}
        if not of_two <= known:
            chosen.append(place)
            known |= of_two
    return chosen


def meaningful(place: Place) -> bool:
    """The fault can happen at that moment and in ranks of that kind, whatever the machine allows."""
    fault = faults.FAULTS[place.fault]
    return place.at in fault.phases and place.start in fault.starts


def cannot(place: Place) -> str | None:
    """What stands in the way here, as far as it can be told from outside the cell."""
    return _needs(place.fault, place.groups, place.user)


@cache
def _needs(fault: str, groups: str, user: str) -> str | None:
    """What a fault lacks in such surroundings, as far as can be told outside them."""
    return faults.FAULTS[fault].needs(faults.Surroundings(root=user == "root", own_groups=groups == "own"))


def _covered(place: Place) -> frozenset[tuple[str, ...]]:
    values = (home(place.fault), *place[1:])
    return frozenset([(place.fault,), *combinations(values, 2)])


def pairs(places: Sequence[Place]) -> Iterator[tuple[str, ...]]:
    """What `places` cover: faults, and pairs of values."""
    for place in places:
        yield from _covered(place)
