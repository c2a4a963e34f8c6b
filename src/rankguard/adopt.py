"""For processes that somebody else started: `wait_ready`, `guard` and `stop`.

`multiprocessing.Process` (fork, spawn and forkserver; torch's are the same), `subprocess.Popen`, anything else with a
`pid`, or the pid itself. They are watched by pidfds in the caller's process: no supervisor is started, none of them is
signalled (except by `stop`) and none is ever reaped, so that `join`, `wait` and `exitcode` stay their owner's.

Read next: `adopted/`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

from rankguard.adopted.guard import Guard
from rankguard.adopted.process import adopt
from rankguard.adopted.readers import Readers
from rankguard.adopted.teardown import stop
from rankguard.adopted.watch import Watch
from rankguard.errors import UsageError
from rankguard.model import Ending, Verdict

__all__ = ["Guard", "guard", "stop", "wait_ready"]


@overload
def wait_ready(
    processes: Sequence[Any],
    readers: Sequence[Any],
    *,
    timeout: float | None = None,
    names: Sequence[str | None] | None = None,
    is_ready: Callable[[Any], bool] | None = None,
    keep: Literal[False] = False,
) -> list[Any]: ...


@overload
def wait_ready(
    processes: Sequence[Any],
    readers: Sequence[Any],
    *,
    timeout: float | None = None,
    names: Sequence[str | None] | None = None,
    is_ready: Callable[[Any], bool] | None = None,
    keep: Literal[True],
) -> tuple[list[Any], Guard]: ...


def wait_ready(
    processes: Sequence[Any],
    readers: Sequence[Any],
    *,
    timeout: float | None = None,
    names: Sequence[str | None] | None = None,
    is_ready: Callable[[Any], bool] | None = None,
    keep: bool = False,
) -> list[Any] | tuple[list[Any], Guard]:
    """Receive one message from each reader, and watch every process meanwhile. In place of `[r.recv() for r in readers]`.

    `processes`: at least one of `multiprocessing.Process`, torch's, `subprocess.Popen`, anything with a `pid`, or a pid.
    `readers`: the receiving ends of `multiprocessing.Pipe`, as many as there are. `readers[i]` is taken to belong to
    `processes[i]`; processes beyond the last reader owe no message, readers beyond the last process belong to the last one.
    Exactly one message is taken from each.
    `timeout`: seconds for all together; None for no limit.
    `names`: what the processes are called in the verdict, as many as these; None, or None in a place, for `Process.name`.
    `is_ready`: called with each payload; false means that the process reports a failure by that payload.
    `keep`: go on watching: return a `Guard` as well, which has been watching without a gap.

    Returns the payloads in the order of the readers; with `keep=True` a pair of them and the `Guard`.

    Raises `RankFailed`, with `verdict.culprit.rank` an index of `processes`, as soon as any process has ended (also with 0,
    also one that has delivered), a pipe has ended or carries something else, or a payload is not ready; `ReadyTimeout`
    when somebody is late; `UsageError` for what cannot be watched or read; `OSError` when the descriptors run out, of which
    each process takes one (pidfd_open(2)). What `is_ready` raises goes through. The processes are left as they are: `stop`
    ends them.

        infos = rankguard.wait_ready(procs, pipes, timeout=1800, is_ready=lambda info: info["status"] == "ready")
    """
    if timeout is not None and not timeout >= 0:
        raise UsageError(f"timeout must not be negative: {timeout}")
    processes, readers = list(processes), list(readers)
    if not processes:
        raise UsageError("no processes to watch")
    watch = Watch(adopt(processes, names), expect_ready=True, ready_timeout=timeout)
    waiting: Readers | None = None
    try:
        watch.start()
        waiting = Readers(watch, watch.processes, readers, is_ready)
        watch.take_early()
        watch.rehearse()
        while waiting.missing and not watch.decided:
            watch.turn(None)
        if not watch.decided:
            waiting.close()
            watch.settle()  # somebody may have ended in the very moment in which the last message came
        watch.raise_if_decided()
        watch.all_ready()
    except BaseException:
        watch.close()
        if waiting is not None:
            waiting.close()
        raise
    if not keep:
        watch.close()
        return waiting.payloads
    return waiting.payloads, Guard(watch).arm()


def guard(
    processes: Sequence[Any],
    *,
    names: Sequence[str | None] | None = None,
    on_failure: Callable[[Verdict], object] | None = None,
    on_ending: Callable[[str, Ending], object] | None = None,
) -> Guard:
    """Watch processes while a block runs; any that ends before `stopping` is called is a failure.

    `processes`: as of `wait_ready`, and none at all will do, since there is `Guard.add`.
    `names`: what they are called in the verdict, as many as these; None, or None in a place, for `Process.name`.
    `on_failure`: called once as `on_failure(verdict)`, in rankguard's own thread, for the first failure; it may end this
    process.
    `on_ending`: called there as `on_ending(name, ending)` for each ending, once; a process without a name is `pid 4711`.

    What these raise is logged (`logging`, "rankguard") and does not end the watch. Without `on_failure`, leaving the block
    after a failure raises `RankFailed`. The processes are held from now on and watched from the beginning of the block; a
    death before that is told as well.

    Raises `UsageError` for what is no process or no function, and `OSError` when the descriptors run out (one for each
    process).

        with rankguard.guard(procs, on_failure=lambda verdict: print(verdict.statement)) as g:
            serve()
            g.stopping()
    """
    for name, callback in (("on_failure", on_failure), ("on_ending", on_ending)):
        if callback is not None and not callable(callback):
            raise UsageError(f"{name} must be a function, not {callback!r}")
    return Guard(Watch(adopt(processes, names)), on_failure, on_ending)
