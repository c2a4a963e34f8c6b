"""The clocks of a job: how long each wait of ours may take, and why that long. Seconds.

The two that users set (`grace`, `shutdown_timeout`) come with the `JobSpec`; these are ours.
"""

SUSPECTS = 2.0
"""For the exit statuses of ranks that were already dying at the first look. A SIGKILLed rank of 1.5 GB was seen 55 ms
after its victims; one that writes a core dump takes longer. The stop never waits for this, only the verdict does."""

PERISHED = 50
"""So many processes of a watched tree that ended abnormally, and were left to their engine, are remembered."""

PERISHED_TOLD = 20
"""And so many are told of at once; the others are in the journal."""

HOLD = 1.0
"""The stop waits this long when the first news is a death by a lost peer and no other rank is seen dying: the first
failure is then still on its way, most often in a `finally` (docs/decisions/0004-hold-the-stop.md, 0009)."""

LINGER = 5.0
"""The longest that it waits, while at least half of the ranks have lost a peer and some have not been heard: they are
going one by one, and who began it may be in a clean-up that takes longer than `HOLD`. Whom should a stop save by now?"""

ECHO = 0.1
"""The verdict on an exception waits this long for the other ranks: one may have raised earlier and tell it later. (The
stop waits for none of it; and most have ended after some milliseconds, which is as good.) Eight ranks that raised at
once on two processors were all heard after 40 ms."""

HEARD = 1.5
"""With several nodes: after a failure, until each node is heard of or told to be silent (which it is after a second). The
verdict on ranks that only lost a peer is given no sooner."""

UNHEARD = 1.0
"""After `--node-timeout` of silence, until somebody must have said that the node is lost."""

LEAVE = 8.0
"""An agent whose ranks only lost a peer leaves it to the coordinator for so long what is done about it; `HOLD`, `LINGER`
and `MUSTER` are the coordinator's, who hears all ranks."""

GATHER = 0.2
"""After a collective timed out, for the others to say the same; who has not is then looked at."""

MUSTER = 3.0
"""The stop waits no longer for the stacks of those who did not come to a collective that timed out. They have been waited
for since minutes; a rank that had loaded torch took 0.1 to 0.3 s to read (docs/decisions/0004-hold-the-stop.md)."""

RECORDS = 12.0
"""When all have ended by then, only the verdict waits, and for no longer than this: what they have left is still read."""

SETTLE = 3.0
"""For a rank that reported an uncaught exception to end by itself, with its own exit code, before it too is told to.
A rank that had loaded torch took 0.7 to 2.5 s from there to its end (two busy cores)."""

BOUND = 10.0
"""From the first SIGKILL to giving up on an empty tree. What is left is named. (A fork storm of 64 processes outran a
loop of SIGKILLs for 43 s; a process in state D cannot be killed at all.)"""

COMPLAINT = 5.0
"""For a rank to end after it sent its parent a signal that would end it. Engines send SIGQUIT on an exception and then
end, most often with 0; SGLang's clean-up before that takes up to 3 s."""

BACKOFF = 1.0
"""Before the second restart in a row; it doubles up to `--restart-delay` (60 s). The first is at once: most often it heals,
and ranks of a warm server are back in a fraction of a second (a kubelet begins with 10 s and ends with 300)."""

STEADY = 60.0
"""An attempt that lasted so long was none of a row of failures: the next restart is a first one again."""

NAP = 2.0
"""While a deadline is to come nobody sleeps longer at a time: a process that was stopped, or whose machine was, is not
told. Whoever wakes much too late knows it by the clock (`TimeLost`)."""

LATE = 1.0
"""To wake so much later than planned is to have stood still, and no deadline has run meanwhile."""

STORY = 40
"""How many of the last facts and orders a `RankguardBug` tells."""
