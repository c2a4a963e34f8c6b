"""What is held of one rank that was launched here, from its fork to its reaping. Its life is in `exec.py`."""

from rankguard.launchers.mailbox import Mailbox
from rankguard.linux import notify


class LaunchedRank:
    """The descriptors of a rank that was forked (-1: closed, or none), and how far it has come."""

    __slots__ = (
        "complaints",
        "error_file",
        "exited",
        "heard_at",
        "heard_by",
        "mailbox",
        "news",
        "notify",
        "number",
        "outputs",
        "pid",
        "pidfd",
        "reaped",
        "signals",
        "spawned",
        "started",
        "warm",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = self.pidfd = self.news = -1
        self.outputs = [-1, -1]
        self.notify: notify.NotifySocket | None = None
        self.mailbox = Mailbox(number)
        self.complaints: dict[int, int] = {}
        self.signals: list[int] = []
        """Those that it was sent before it was told of as spawned."""
        self.error_file: str | None = None
        self.started = (0.0, 0.0)
        self.heard_at: float | None = None
        self.heard_by: str | None = None
        self.warm = self.spawned = self.exited = self.reaped = False
