"""What a rank says last, and how much of it."""

from rankguard.testing.faults.catalogue.expected import exits
from rankguard.testing.faults.checks import Verdict
from rankguard.testing.faults.fault import Fault
from rankguard.testing.faults.parts.output import LAST_WORDS


def _last_words(verdict: Verdict) -> bool:
    return any(LAST_WORDS in line for line in verdict["culprit"]["log_tail"][-2:])


_QUOTED = (("quotes its last words", _last_words),)

FAULTS = (
    Fault(
        "output-no-newline", "ends in the middle of a line", "output:no_newline",
        exits(3, also=_QUOTED),
    ),
    Fault(
        "output-100-mb", "says 100 MB, then fails", "output:hundred_megabytes",
        exits(3, also=_QUOTED), bound_s=60.0, alone=True,
    ),
    Fault(
        "output-binary", "says bytes that are no text, then fails", "output:binary",
        exits(3, also=_QUOTED),
    ),
)  # fmt: skip
