"""`launch`: run a function or a command as N ranks, from any program.

A `Job` is the front's view of them. It has no thread and no timer of its own: supervisor and warden act by themselves,
and what they say is read when the caller waits. Leaving the block leaves no process of the job alive.
"""

import contextlib
import errno
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rankguard import inside, launchargs
from rankguard.client import Client
from rankguard.errors import RankFailed, ReadyTimeout, SpawnFailed, UsageError
from rankguard.jobspec import JobSpec
from rankguard.linux.notify import PAYLOAD
from rankguard.model import Cause, Verdict
from rankguard.record import prepare
from rankguard.spec import job_spec, settled


class Job:
    """N ranks, launched. Use it as a block; made by `launch`. Of the process that launched them: in a forked child
    whatever would wait raises `UsageError`, and `close` does nothing.
    """

    def __init__(
        self, spec: JobSpec, passed: Sequence[int], on_event: Callable[[str, dict[str, Any]], None] | None
    ) -> None:
        self.run_id = spec.run_id
        """What `rankguard report` and `read_run` find it by."""
        self.run_dir = spec.run_dir
        """Its folder (docs/files.md); None when no files are kept."""
        self.nprocs = spec.nprocs
        """How many ranks it has."""
        self._spec, self._on_event = spec, on_event
        self._owner = os.getpid()
        self._payloads: dict[int, Any] = {}
        self.attempt = 0
        """How many attempts have failed so far (`max_restarts`); known as far as the news has been taken."""
        self._failed_by: str | None = None
        self._restarted: str | None = None
        """What had failed, once all ranks are started again because of it; null when all are ready again."""
        self._judged: _Judgement | None = None
        self._final: Verdict | None = None
        self._spawned = False
        self._shipment: object = None
        """The arguments: a semaphore's name is gone with its last reference here, and ranks open it by name."""
        self._client = Client(spec, passed=passed)
        self.http = self._client.http
        """`HOST:PORT` of the page, the probes and the metrics; None when there are none."""
        prepare(Verdict)  # while our own processes start

    # ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def wait_ready(self, timeout: float | None = None) -> list[Any]:
        """Wait until every rank is ready; their payloads, index = rank.

        `timeout`: seconds from now; None: no other limit than `launch`'s.

        From now on a rank that ends before it is ready has failed. Raises `RankFailed` for any failure of any rank,
        one that had reported included, and `ReadyTimeout` when somebody is late; the job is then being stopped.
        The error comes at once; its `verdict`, when somebody looks at it, may take some milliseconds longer. Raises
        `UsageError` when the job has ended without a failure, and for a `timeout` that is no number.
        """
        self._client.send({"do": "expect", "timeout": launchargs.limit(timeout)})
        while True:
            ready = self._ready()
            # What seemed to be a time-out may be found to be something else.
            if ready is None and self._failed_by not in (None, "ready-timeout"):
                raise RankFailed(self._verdict_of_failure)
            if ready is not None:
                return ready
            self.poll(None)

    async def wait_ready_async(self, timeout: float | None = None) -> list[Any]:  # noqa: ASYNC109  # the contract's name
        """`wait_ready` for an event loop, which is never blocked: the same `timeout`, the same errors (`RankFailed`,
        `ReadyTimeout`, `UsageError`).
        """
        import asyncio  # half of what `import rankguard.job` cost

        self._client.send({"do": "expect", "timeout": launchargs.limit(timeout)})
        loop = asyncio.get_running_loop()
        while True:
            self.poll(0)
            ready = self._ready()
            if ready is not None:
                return ready
            news = asyncio.Event()
            loop.add_reader(self.fileno(), news.set)
            try:
                await news.wait()
            finally:
                loop.remove_reader(self.fileno())

    def wait_restart(self) -> str | None:
        """Once all ranks are ready (`max_restarts`): wait until one has failed and all are started again; what had failed.

        Then `wait_ready` waits for the new attempt. Raises `RankFailed` for a failure after which there is none. Null
        when all ranks have ended and none has failed. An event loop learns the same by `poll` and `attempt`.
        """
        while self._restarted is None:
            self._raise_known()
            if self._final is not None:
                return None
            self.poll(None)
        return self._restarted

    def wait(self, timeout: float | None = None) -> Verdict:
        """Wait until all ranks have ended and nothing is left of them; the verdict.

        `timeout`: seconds; None: for ever.

        Raises `RankFailed` when a rank failed (`ReadyTimeout` when it was late), and `TimeoutError` after `timeout` seconds:
        the job goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while self._final is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the job has not ended within {timeout} s")
            self.poll(left)
        self._raise_if_failed(self._final)
        return self._final

    def poll(self, timeout: float | None = 0) -> Verdict | None:
        """Take the news that is there; the final verdict once it is out, else None.

        `timeout`: how many seconds to wait for some; None: for ever.

        Never raises for a failure of a rank: `verdict` and `wait` tell of it. What `on_event` raises goes through.
        """
        if self._final is None:
            for message, fds in self._client.receive(timeout):
                self._take(message, fds)
            if self._final is None and self._client.closed:
                self._final = self._lost(None)
        return self._final

    def fileno(self) -> int:
        """For an event loop: readable when `poll` has something to take. Do not read from it."""
        return self._client.fileno()

    @property
    def verdict(self) -> Verdict | None:
        """The final verdict; before that, once a culprit is known, what is known so far; else None."""
        return self._final or (None if self._judged is None else self._judged.verdict())

    # ── Ending ───────────────────────────────────────────────────────────────────────────────────────────────────

    def stop(self, grace: float | None = None) -> Verdict:
        """End the job: SIGTERM, some seconds for all together, SIGKILL, and proof that nothing is left.

        `grace`: those seconds; None: `launch`'s.

        Returns the verdict and raises for no failure: that of a job that was well is `interrupted`, or `succeeded`. Raises
        `UsageError` for a `grace` that is negative or no number.
        """
        grace = self._spec.grace if grace is None else grace
        launchargs.check_seconds(grace=grace)
        self._client.stop(signal.SIGTERM, grace=grace, by="the caller")
        while self._final is None:
            self.poll(None)
        return self._final

    def __repr__(self) -> str:
        return f"<rankguard.Job {self.run_id}: {self._in_short()}>"

    def _repr_html_(self) -> str | None:
        """For notebooks. Takes no news: it tells what the caller has been told."""
        from rankguard.report.notebook import block_html, verdict_html

        verdict = self.verdict
        return verdict_html(verdict) if verdict is not None else block_html(f"job {self.run_id}: {self._in_short()}")

    def _in_short(self) -> str:
        verdict = self.verdict
        if verdict is not None:
            from rankguard.report.wording import printable

            return printable(verdict.statement)
        attempt = f", attempt {self.attempt + 1}" if self.attempt else ""
        ready = f", {len(self._payloads)} ready" if self._payloads else ""
        return f"{self.nprocs} {'rank' if self.nprocs == 1 else 'ranks'}{ready}{attempt}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs and wait until it is gone; leaving the block does it. Does nothing in a forked child of the
        caller. Raises `RuntimeError` when rankguard's own processes do not end, which the kernel would have to prevent.
        """
        if os.getpid() != self._owner:
            return
        try:
            if self._final is None:
                self.stop()
        finally:
            gone = self._client.wait_gone()
            self._client.close()
            if not gone:
                raise RuntimeError("rankguard's own processes did not end")  # the kernel does not end them either

    # ── News ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def started(self) -> Self:
        """Wait until every rank executes, which `launch` does. Raises `SpawnFailed`, nothing being left running, or
        `RuntimeError` as `close` does.
        """
        while not self._spawned and self._final is None and self._judged is None:
            self.poll(None)
        culprit = None if self._final is None else self._final.culprit
        if self._judged is not None and self._judged.kind == "cannot-start":
            culprit = self._judged.verdict().culprit
        if culprit is not None and culprit.cause.kind == "cannot-start":
            verdict = self.verdict
            self.close()
            raise _not_started(culprit.cause, verdict)
        return self

    def _ready(self) -> list[Any] | None:
        self._raise_known()
        if len(self._payloads) == self.nprocs:
            self._restarted = None
            return [self._payloads[rank] for rank in range(self.nprocs)]
        if self._final is not None:
            raise UsageError(f"the job has ended ({self._final.statement}); nobody will become ready")
        return None

    def _raise_known(self) -> None:
        if self._judged is not None:
            raise _error(self._judged.kind)(self._judged.verdict)
        if self._final is not None:
            self._raise_if_failed(self._final)

    def _verdict_of_failure(self) -> Verdict:
        while (verdict := self.verdict) is None:
            self.poll(None)
        return verdict

    def _raise_if_failed(self, verdict: Verdict) -> None:
        if verdict.outcome == "failed":
            raise _error(None if verdict.culprit is None else verdict.culprit.cause.kind)(verdict)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["is"]:
            case "payload":
                self._payloads[message["rank"]] = self._payload(message, fds)
            case "told" if message["what"] == "judged":
                self._judged = _Judgement(message["verdict"])
            case "told" if message["what"] == "failed":
                self._failed_by = message["text"]
            case "told" if message["what"] == "restarting":
                self.attempt += 1
                self._restarted = message["text"]
                self._payloads.clear()
            case "told" if message["what"] == "spawned":
                self._spawned = True
            case "finished":
                self._final = Verdict.from_dict(message["verdict"])
            case "spawn-failed":
                self._client.wait_gone()
                raise SpawnFailed(message["statement"], message.get("errno"), message["code"], message["hint"])
            case "bug":
                self._final = self._lost(message["text"])
            case "fact" if self._on_event is not None:
                self._on_event(message["name"], message["fact"])

    def _payload(self, message: dict[str, Any], fds: list[int]) -> Any:
        try:
            if not fds:
                return json.loads(message["json"])
            with open(fds[0], "rb") as file:
                file.seek(0)
                return json.loads(file.read(PAYLOAD))
        except (ValueError, RecursionError) as error:
            text = f"the payload of its readiness is not JSON: {error}"
            self._client.send({"do": "reject", "rank": message["rank"], "statement": text})
            self._payloads.pop(message["rank"], None)
            return None

    def _lost(self, bug: str | None) -> Verdict:
        """The supervisor is gone without a verdict. The warden ends what is left; the verdict is ours to give."""
        from rankguard.lost import verdict_without_supervisor

        return verdict_without_supervisor(self._spec, bug, gone=self._client.wait_gone())


def _not_started(cause: Cause, verdict: Verdict | None) -> SpawnFailed:
    """The kernel's number is the last word of its evidence (`diagnosis/causes.py`: `exec: ENOENT`)."""
    names = [each.statement.rpartition(" ")[2] for each in cause.evidence]
    number = next((found for name in names if isinstance(found := getattr(errno, name, None), int)), None)
    if verdict is None:
        return SpawnFailed(cause.statement, number)
    return SpawnFailed(cause.statement, number, verdict.exit_code, next(iter(verdict.hints), None))


class _Judgement:
    """What the supervisor said of a failure. The error comes first: the verdict is made of it when somebody looks at it."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._verdict: Verdict | None = None
        self.kind: str | None = told["culprit"]["cause"]["kind"] if told["culprit"] else None

    def verdict(self) -> Verdict:
        if self._verdict is None:
            self._verdict = Verdict.from_dict(self._told)
        return self._verdict


def _error(kind: str | None) -> type[RankFailed]:
    return ReadyTimeout if kind == "ready-timeout" else RankFailed


def launch(  # noqa: PLR0913  # the contract's door
    target: Callable[..., Any] | Sequence[str],
    nprocs: int = 1,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | Callable[[int], Mapping[str, str]] | None = None,
    start: str = "auto",
    preload: Sequence[str] | None = None,
    grace: float = 5.0,
    ready_timeout: float | None = None,
    stall_timeout: float | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    max_restarts: int = 0,
    restart_window: float | None = None,
    restart_delay: float = 60.0,
    on_event: Callable[[str, dict[str, Any]], None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    http: str | None = None,
    labels: Mapping[str, str] | None = None,
    redact: Sequence[str] = (),
    console: str = "prefix",
    on: str = "local",
    nnodes: int | None = None,
    ray_address: str | None = None,
    resources: Mapping[str, float] | None = None,
    join_timeout: float = 600.0,
) -> Job:
    """Start `nprocs` ranks of `target` and return once all of them execute.

    `target`: a function, called in each rank as `target(rank, *args, **kwargs)` with a `rankguard.Rank`; or a command, a list
    of words, executed without a shell.
    `nprocs`: how many ranks, from 1; with `on="ray"` on all nodes together.
    `args`, `kwargs`: the function's other arguments. They travel as with `multiprocessing.Process` under spawn.
    `env`: variables to add for all ranks, or a function of the rank's number that tells them. Text only.
    `start`: `exec`: each rank is a new interpreter. `warm`: the modules of `preload` are imported once and each rank is forked
    of that process, where it is safe (else executed; the journal says why). `auto`: `warm` where it pays and nothing speaks
    against it (docs/warm-start.md), else `exec`.
    `preload`: modules to import once; None: what the function's module imports from installed packages at its top level.
    `grace`: seconds from SIGTERM to SIGKILL after a failure, for all together.
    `ready_timeout`: seconds within which every rank must say that it is ready; None: nobody has to, unless somebody waits.
    `stall_timeout`: seconds after which a rank without a sign of progress (output, status, heartbeat) has failed.
    `run_dir`: a folder for the run's files (docs/files.md); None: a new one below `RANKGUARD_HOME` or its substitutes.
    `max_restarts`: how often all ranks are started again after a failure that another attempt can heal. Errors are raised,
    and the verdict is given, of the last attempt.
    `restart_window`: seconds within which those restarts count; None: the whole run.
    `restart_delay`: seconds that the pause before a restart grows to at most (docs/restarts.md).
    `on_event`: called as `on_event(name, fact)` for every fact, while the caller waits, on the caller's thread.
    `cwd`: the folder in which ranks start; None: the caller's.
    `http`: where to serve the page, probes and metrics, such as `:8080`; `job.http` tells it (docs/probes.md).
    `labels`: words of your own that stand in the verdict.
    `redact`: regular expressions; what they match is `***` in everything but the ranks' own logs (docs/secrets.md).
    `console`: where what ranks print is shown: `prefix`, on stdout and stderr with `[RANK]` before each line; `stderr`, all of
    it there; `none`, in the run's files only.
    `on`: `local`, or `ray`: Ray places the ranks, `nprocs / nnodes` on each node. Arguments are then values (docs/nodes.md).
    `nnodes`: on how many nodes of the cluster; None: 1.
    `ray_address`: the cluster; None: the one that this process is connected to, RAY_ADDRESS, or the one of this machine.
    `resources`: what Ray sets aside on each node, as `{"GPU": 8}`; None: a CPU for each rank.
    `join_timeout`: seconds within which Ray has to place all nodes, and they have to join.

    Returns the `Job`; use it as a block, at whose end nothing of it is alive.

    Raises `UsageError`, before anything is started, for what has no meaning, and names the argument that cannot travel;
    `SpawnFailed` when the machine or the command does not let it be, with nothing left running; `RankFailed` never: that is
    for `wait_ready` and `wait`. A folder that cannot be had is a `RuntimeWarning`, and no files are kept.

        with rankguard.launch(scheduler, nprocs=8, args=(settings,)) as job:
            payloads = job.wait_ready(timeout=600)
            verdict = job.wait()
    """
    if inside.importing_main:
        raise UsageError(
            "launch() was called while a rank imports the main module",
            "put it under `if __name__ == '__main__':`",
        )
    launchargs.check(nprocs, start, console, max_restarts)
    launchargs.check_seconds(
        grace=grace,
        ready_timeout=ready_timeout,
        stall_timeout=stall_timeout,
        restart_window=restart_window,
        restart_delay=restart_delay,
    )
    launchargs.check_text(labels=labels)
    if not callable(env):
        launchargs.check_variables("env", env)
    launchargs.check_path("cwd", cwd)
    launchargs.check_path("run_dir", run_dir)
    redact = launchargs.texts("redact", redact)
    preload = None if preload is None else launchargs.texts("preload", preload)
    if on_event is not None and not callable(on_event):
        raise UsageError(f"on_event must be a function, not {on_event!r}")
    nodes = launchargs.placed(on, nprocs, nnodes, ray_address, resources, join_timeout)
    shipment = parcel = None
    if callable(target):
        from rankguard.launchers.function import pack, ship

        if nodes is not None:
            parcel = pack(target, args, dict(kwargs or {}))
        else:
            shipment = ship(target, args, dict(kwargs or {}))
        argv = [*_python(), inside.BOOTSTRAP, "--function", "3"]
        command = [f"{target.__module__}.{getattr(target, '__qualname__', target)}"]
    else:
        argv = command = launchargs.command_words(target)
        if args or kwargs:
            raise UsageError("a command takes no args and kwargs", "put them into its list of words")
    packed = shipment or parcel
    try:
        spec, warning = job_spec(
            command=command,
            argv=argv,
            nprocs=nprocs,
            env=None if callable(env) else env,
            rank_env=tuple(_env_of(env, rank) for rank in range(nprocs)) if callable(env) else (),
            cwd=cwd,
            run_dir=run_dir,
            python=callable(target),
            nodes=nodes,
            cargo=None if parcel is None else parcel.cargo,
            master_addr="127.0.0.1" if nodes is None else "",
            start=start,
            preload=preload,
            imports_of=_file_of(target),
            import_path=() if packed is None else packed.path,
            ready_timeout=ready_timeout,
            stall_timeout=stall_timeout,
            grace=grace,
            max_restarts=max_restarts,
            restart_window=restart_window,
            restart_delay=restart_delay,
            http=None if http is None else launchargs.address(http),
            labels=dict(labels or {}),
            redact=redact,
            console=console,
            events=on_event is not None,
        )
        if warning is not None:
            warnings.warn(warning, RuntimeWarning, stacklevel=2)
        if nodes is not None:
            spec = spec.replace(elastic_id=spec.run_id)
        spec = settled(spec, () if packed is None else packed.files, None if nodes is None else nodes.nproc)
        job = Job(spec, () if shipment is None else (shipment.memfd, *shipment.fds), on_event)
        job._shipment = shipment  # noqa: SLF001  # our own class
    finally:
        if shipment is not None:
            shipment.close()
    with contextlib.ExitStack() as undo:
        undo.callback(job.close)
        job.started()
        undo.pop_all()
    return job


def _env_of(env: Callable[[int], Mapping[str, str]], rank: int) -> dict[str, str]:
    told = env(rank)
    launchargs.check_variables(f"env({rank})", told)
    return dict(told)


def _file_of(target: object) -> tuple[str, ...]:
    """Where a function stands, as words of a program: its imports are those that a rank will need."""
    file = getattr(sys.modules.get(getattr(target, "__module__", "")), "__file__", None)
    return (os.path.abspath(file),) if file else ()


def _python() -> tuple[str, ...]:
    """The interpreter we run in, with the flags that it was started with, as `multiprocessing` passes them on."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # what multiprocessing uses itself

    return (sys.executable, *_args_from_interpreter_flags())
