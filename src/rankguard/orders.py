"""What to do. Each order says `because` of what; the position in the tuple that `step` returns is the contract:
record all, carry out in order, then wait.

Orders to many ranks are group orders (a range or a set in one order), so that the cost of a fact does not grow with
the number of ranks. To add one: a class here, its place in `core/machine.py`, its hand in `driver.py`.
"""

from rankguard.record import Record


class Order(Record):
    """Something that the core wants done. `because` is for people: journal, `explain` and timeline show it."""

    because: str


class Spawn(Order):
    """Start ranks `first` … `last` (inclusive), in order."""

    first: int
    last: int


class Look(Order):
    """Look at every rank alive, before any signal of ours: who is already dying, who holds what memory. → `Looked`"""


class Listen(Order):
    """Which ranks have given no sign of progress since the instant `since`? → `Silences`"""

    since: float


class Examine(Order):
    """Take the stacks of all ranks and see who uses the CPU, within a few seconds; wakes and stops nobody. → `Examined`"""

    number: int


class Muster(Order):
    """A collective timed out: what are the ranks doing that are alive and not in `spoken`, and what does everybody's
    output tell of collectives? Within a few seconds; wakes and stops nobody. → `Mustered`
    """

    spoken: tuple[int, ...] = ()


class SignalAll(Order):
    """Send `signal` to the process group of every rank that has not ended, those in `spare` left out.

    `ends`: the job is told to end, so that ranks which have not been started are not. → `Signalled`
    """

    signal: int
    spare: tuple[int, ...] = ()
    ends: bool = True


class SignalRank(Order):
    """Send `signal` to the process group of one rank."""

    rank: int
    signal: int


class WakeAt(Order):
    """Set the deadline `name` to the instant `when` (monotonic seconds). → `DeadlinePassed`"""

    name: str
    generation: int
    when: float


class Disarm(Order):
    """The deadlines `names` do not come, until they are set again."""

    names: tuple[str, ...]


class Reap(Order):
    """Reap an ended rank. → `Reaped`"""

    rank: int


class Judge(Order):
    """Choose the culprit from what is known. → `Judged`"""


class Sweep(Order):
    """End whatever the ranks have left behind: ask (SIGTERM) or, with `kill`, make it. → `TreeEmpty`"""

    kill: bool = False


class GiveUp(Order):
    """The tree refuses to become empty: name what is left. → `TreeEmpty`"""


class Tell(Order):
    """Tell the front and whoever listens. `what`: `ready`, `all-ready`, `readiness-expected`, `suspended`, `resumed`, `stopping`, `judged`, `note`."""

    what: str
    rank: int | None = None
    text: str = ""


class Finish(Order):
    """Everything has ended and is accounted for: write the verdict and leave."""
