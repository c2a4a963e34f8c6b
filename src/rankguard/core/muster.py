"""A collective timed out: before anybody is stopped, see who came to it and who did not.

The first news is a victim's, as with a lost peer, so the stop is held (docs/decisions/0004-hold-the-stop.md). Nobody
needs to be dying: who was waited for is most often alive, and what it does then is the answer. Its peers soon give up,
too; who has not after a moment (`GATHER`) is looked at (`Muster`), which takes `MUSTER` at most. Any failure of another
kind ends the hold at once. The verdict waits for it, too, when all have ended by then: they may have left records. Who it was is not decided here (`diagnosis/collectives.py`).
"""

from rankguard.core.clocks import Orders, wake
from rankguard.core.job import Job
from rankguard.core.policy import HOLD
from rankguard.core.stopping import judge_when_resolved, stop_after_muster
from rankguard.facts import Mustered
from rankguard.orders import Muster


def muster_passed(job: Job, at: float) -> Orders:
    """Those that have not said by now that they failed. When all have, what they left is looked at all the same."""
    if not job.awaits_muster:
        return ()
    spoken = tuple(rank.rank for rank in job.ranks if rank.report is not None or rank.gone)
    return (Muster("a collective timed out, and they did not say so", spoken),)


def mustered(job: Job, fact: Mustered) -> Orders:
    """All is known that can be; the stop is held for a second at least, for an error that is still on its way."""
    if not job.awaits_muster:
        return ()
    job.awaits_muster, job.mustered = False, fact
    job.remember(fact.at, "looked at the ranks that had not come to the collective")
    if not job.holding:
        return judge_when_resolved(job)
    assert job.failed_at is not None  # else nothing is held
    if fact.at >= job.failed_at + HOLD:
        return stop_after_muster(job, fact.at)
    return (wake(job, "hold", job.failed_at + HOLD, "an error may still be on its way"),)
