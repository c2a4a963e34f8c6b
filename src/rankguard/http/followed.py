"""The run as the page server knows it: the journal's lines in, the same job out, by the same pure step.

A line is one of the journal (`../core/story.py`), or one beside it that the supervisor adds: `{"page": {…}}` holds what
no fact tells: whether a failure is followed by another attempt (`heals`), the pause before that (`resting`), why there is
none (`given_up`), what the ranks hold in memory (`samples`), each look at that (`look`), what is to be hidden in their
output (`rules`, which is in no answer), the verdict (`final`), and that it answers (`answers`).
Read next: `probes.py`, `metrics.py` and `events.py`, which are views of this.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rankguard._version import __version__
from rankguard.core import story
from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.facts import Perished
from rankguard.jobspec import JobSpec
from rankguard.model import Attempt, Verdict
from rankguard.page.chronicle import Chronicle
from rankguard.record import from_data

if TYPE_CHECKING:
    from rankguard.page.course import Point
    from rankguard.report.redact import Redactor


class Followed:
    """One run. `lines` counts those of the journal, which is what events are known by."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.spec: JobSpec | None = None
        self.job: Job | None = None
        self.lines = 0
        self.deaths: Counter[tuple[str, str, str]] = Counter()
        """Of attempts that are over: family, kind and confidence of what ended ranks by itself."""
        self.perished: Counter[str] = Counter()
        """Of a watched tree: processes that ended abnormally and are the engine's own business, by role."""
        self.warnings = 0
        """Of attempts that are over."""
        self.examinations = self.stalls = 0
        """Of attempts that are over."""
        self.chronicle = Chronicle()
        """Of this attempt."""
        self.course: list[Point] = []
        """Looks at the ranks' memory, thinned as they age."""
        self.recalled = False
        """Those from before us have been read of the run's folder."""
        self.aside: dict[str, Any] = {}
        self._rules: dict[str, list[str]] | None = None
        self._redactor: Redactor | None = None
        self.answers = 0
        """How often the supervisor has given a sign of life."""
        self._known: tuple[float, int, Verdict] | None = None
        self._facts = 0
        """Which verdicts are known by."""

    def take(self, line: bytes) -> str | None:
        """One line. Its kind if it is of the journal: `run`, `fact`, `order`, `note` or `attempt`."""
        entry = json.loads(line)
        if "page" in entry:
            told = entry["page"]
            if "look" in told:
                self.look(told.pop("look"))
            if "rules" in told:
                self._rules, self._redactor = told.pop("rules"), None
            self.answers += "answers" in told
            self.aside |= told
            self._known = None
            return None
        self.lines += 1
        return self._of_journal(entry)

    @property
    def knows_secrets(self) -> bool:
        """What ranks have printed can be shown without what is to be hidden."""
        return self._rules is not None

    def redact(self, text: str) -> str:
        """Without the secrets of the run. Raises `ValueError` where these are not known."""
        if self._redactor is None:
            if self._rules is None:
                raise ValueError("the secrets of the run are not known")
            from rankguard.report.redact import knowing

            self._redactor = knowing(self._rules)
        return self._redactor.text(text)

    def look(self, *entries: dict[str, Any]) -> None:
        """Looks at the ranks' memory, as `memory.jsonl` has them (`../page/course.py`)."""
        from rankguard.page.course import CELLS, POINTS, kept, points_of

        self.course += points_of(entries, self.course)
        cells = sum(len(point.held) for point in self.course[-1:]) * len(self.course)
        if len(self.course) > 2 * POINTS or cells > 8 * CELLS:
            self.course = [self.course[at] for at in kept([point.at for point in self.course], len(self.course) // 2)]

    def _of_journal(self, entry: dict[str, Any]) -> str:
        if "fact" in entry:
            fact = story.fact_of(entry)
            if fact is not None and self.job is not None:
                self.chronicle.take(self.job, fact, step(self.job, fact))
                if isinstance(fact, Perished):
                    self.perished[fact.role] += 1
                self._facts += 1
            return "fact"
        if "order" in entry:
            return "order"
        if "failed" in entry and self.job is not None:
            self._over()
            self.job = story.again(self.job, from_data(Attempt, entry["failed"]))
            self.chronicle = Chronicle()
            self._facts += 1
            return "attempt"
        if "spec" in entry and self.spec is None:
            self.spec = from_data(JobSpec, entry["spec"])
            self.job = Job(self.spec)
            return "run"
        return "note"

    def _over(self) -> None:
        """The attempt is: what is counted over all of them is added up."""
        assert self.job is not None
        self.deaths += causes(self.verdict(0))
        self.warnings += len(self.job.warnings)
        self.examinations += self.job.examinations
        self.stalls += self.job.judged is not None and self.job.judged.kind == "stall"

    def verdict(self, newest: float = 0.25) -> Verdict:
        """What is known so far in the verdict's shape, the verdict itself once it is out; made anew after `newest` seconds
        at the soonest, whoever asks.
        """
        now = self._clock()
        if self._known is not None:
            at, facts, made = self._known
            if now - at < (1.0 if facts == self._facts else newest):
                return made
        if self.aside.get("final") is not None:
            made = Verdict.from_dict(self.aside["final"])
        else:
            from rankguard.diagnosis.verdict import verdict  # the first probe does not wait for it

            assert self.job is not None
            made = verdict(self.job.case().replace(now=now), __version__)
        self._known = now, self._facts, made
        return made


def causes(verdict: Verdict) -> Counter[tuple[str, str, str]]:
    """Of the ranks that ended by themselves: family, kind, confidence."""
    found = (rank.cause for rank in verdict.ranks if rank.cause is not None)
    return Counter((str(cause.family), cause.kind, str(cause.confidence)) for cause in found)
