"""`this_rank()`: what a rank knows of itself and can tell its supervisor. Outside rankguard it tells nobody.

The words are systemd's notify protocol with a few keys of ours (the contract's 'In a rank'); any sd_notify client can
say the same. Nothing here starts a thread, takes a lock or installs a handler, so it may be called from anywhere:
threads, signal handlers, a forked child.

Read next: `line.py` (how it is sent).
"""

import os

from rankguard.inside.line import Line

INLINE_MOST = 32 << 10
"""A message longer than this carries its payload in a memfd: datagrams are bounded by the sender's buffer (208 KiB)."""
PAYLOAD_MOST = 64 << 20
TEXT_MOST = 4 << 10
WAIT_MOST = 10.0

__all__ = ["Rank", "this_rank"]


class Rank:
    """The process that runs this, as a rank of its job. Made by `this_rank()`; given to a function that `launch` runs.

    Outside rankguard, in a program that is run by hand, every call does nothing, and it is rank 0 of 1. May be used from
    any thread, from signal handlers and in forked children. In another process it is that process's own.
    """

    __slots__ = ("_line", "local_rank", "rank", "world_size")

    def __init__(self) -> None:
        self.rank = _number("RANK", 0)
        """Its number in the job, from 0 (`RANK`)."""
        self.local_rank = _number("LOCAL_RANK", 0)
        """Its number on this machine, from 0 (`LOCAL_RANK`)."""
        self.world_size = _number("WORLD_SIZE", 1)
        """How many ranks the job has (`WORLD_SIZE`)."""
        address = os.environ.get("NOTIFY_SOCKET", "") if os.environ.get("RANKGUARD_RUN_ID") else ""
        self._line = Line(address)

    def ready(self, payload: object = None) -> None:
        """Says that this rank can do its work.

        `payload`: anything that JSON can say, up to 64 MiB of it; it goes to whoever waits (`Job.wait_ready`).

        Blocks until the supervisor has room for the message, for ten seconds at most; then raises `TimeoutError`.
        Raises `UsageError` for a payload that is not JSON or is too long. Sends systemd's `READY=1` (sd_notify(3)).
        """
        if not self._line:
            return
        data = b"" if payload is None else _as_json(payload)
        message = b"READY=1\nX_RANKGUARD_PAYLOAD=" + data if data else b"READY=1"
        if len(message) <= INLINE_MOST:
            answer = self._line.send(message, WAIT_MOST)
        else:
            fd = _sealed(data)
            try:
                answer = self._line.send(b"READY=1\nX_RANKGUARD_PAYLOAD_SIZE=%d" % len(data), WAIT_MOST, fd)
            finally:
                os.close(fd)
        if answer == "full":
            raise TimeoutError(f"the supervisor of rank {self.rank} has not taken its readiness within {WAIT_MOST:g} s")

    def status(self, text: str, done: float | None = None, total: float | None = None) -> None:
        """What this rank is doing, and how far it is. Never blocks: dropped when the supervisor is behind.

        `text`: one line, of which 4,096 characters are told.
        `done`, `total`: how much is done, and of how much, in a unit of your own; None: not known.
        """
        if not self._line:
            return
        message = f"STATUS={_one_line(text)}"
        if done is not None:
            message += f"\nX_RANKGUARD_PROGRESS={_one_line(done)}" + (
                f"/{_one_line(total)}" if total is not None else ""
            )
        self._drop_if_full(message.encode("utf-8", "replace"))

    def alive(self) -> None:
        """A sign of life, for `stall_timeout`. Never blocks: dropped when the supervisor is behind. About 10 µs."""
        if self._line:
            self._drop_if_full(b"WATCHDOG=1")

    def failed(self, text: str) -> None:
        """Says that this rank has failed, before it ends, or while it cannot. It goes on: ending is up to it.

        `text`: why, which becomes the verdict's statement; of 16,384 characters at most.

        Blocks for ten seconds at most; then it says on stderr that it could not be told, and goes on.
        """
        if not self._line:
            return
        import json
        import time

        told = {"text": str(text)[: 4 * TEXT_MOST], "raised_at": time.clock_gettime(time.CLOCK_MONOTONIC)}
        try:
            answer = self._line.send(b"X_RANKGUARD_FAILED=" + json.dumps(told).encode(), WAIT_MOST)
        except OSError as error:
            answer = f"unreachable: {error}"
        if answer not in ("sent", "gone"):
            import sys

            sys.stderr.write(
                f"rankguard: unable to report the failure of rank {self.rank}: its supervisor is {answer}\n"
            )

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.world_size}>"

    def __reduce__(self) -> tuple[object, tuple[()]]:
        return this_rank, ()  # in another process it is that process's own

    def _drop_if_full(self, message: bytes) -> None:
        try:
            self._line.send(message)
        except OSError:
            pass  # no descriptor left for a socket: as good as full


_ranks: dict[int, Rank] = {}


def this_rank() -> Rank:
    """The rank that this process is; one object for each process.

    Never raises: outside rankguard it is rank 0 of 1.

        rank = rankguard.this_rank()
        rank.status("loading shards", done=3, total=8)
        rank.ready({"max_tokens": 4096})
    """
    pid = os.getpid()
    found = _ranks.get(pid)
    if found is None:
        made = Rank()
        found = _ranks.setdefault(pid, made)  # atomic: two threads may come here at once
        if found is not made:
            made._line.close()  # noqa: SLF001  # our own class
    return found


def _number(name: str, otherwise: int) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        return otherwise


def _one_line(value: object) -> str:
    return " ".join(str(value)[:TEXT_MOST].splitlines())


def _as_json(payload: object) -> bytes:
    import json

    from rankguard.errors import UsageError

    def refuse(value: object) -> object:
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise UsageError(f"the payload of ready() holds a {name}, which JSON cannot say", "send plain values")

    try:
        data = json.dumps(payload, default=refuse, allow_nan=False).encode("ascii")
    except UsageError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the payload of ready() is not JSON: {error}") from None
    if len(data) > PAYLOAD_MOST:
        raise UsageError(
            f"the payload of ready() is {len(data):,} bytes of JSON, and {PAYLOAD_MOST:,} are allowed",
            "put it into a file or shared memory, and send its name",
        )
    return data


def _sealed(data: bytes) -> int:
    import fcntl

    fd = os.memfd_create("rankguard-payload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(
            fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        )
    except BaseException:
        os.close(fd)
        raise
    return fd
