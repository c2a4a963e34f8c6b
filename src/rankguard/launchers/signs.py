"""Signs of progress of ranks: what counts as one, and who has given none for a while.

No facts: a rank may print a thousand lines a second. The launcher keeps the instant of the last one, and tells when it
is asked (`--stall-timeout`). Whatever a rank says counts, and nothing else does: that it uses the CPU is no progress.
Read next: `core/stalls.py`.
"""

import select
from collections.abc import Iterable, Sequence

from rankguard.facts import Silences
from rankguard.linux.notify import Garbage, Message
from rankguard.model import Sign


def sign_of(messages: Sequence[Message | Garbage]) -> str | None:
    """What the last message of a rank was; None when there was none but garbage."""
    message = next((each for each in reversed(messages) if isinstance(each, Message)), None)
    if message is None:
        return None
    told = {
        "readiness": message.ready,
        "progress": message.progress is not None,
        "status": message.status is not None,
        "heartbeat": message.alive,
    }
    return next((name for name, was in told.items() if was), "message")


def unread(fds: Iterable[int]) -> bool:
    """Whether one of these pipes holds something that we have left there."""
    poll = select.poll()
    for fd in fds:
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    return any(event & select.POLLIN for _fd, event in poll.poll(0))


def silences(signs: Iterable[Sign], now: float, since: float) -> Silences:
    """Those that were silent since then, and when the next of the others may be."""
    silent, others = [], []
    for sign in signs:
        if sign.at is None or sign.at <= since:
            silent.append(sign)
        else:
            others.append(sign.at)
    return Silences(now, tuple(silent), min(others, default=None))
