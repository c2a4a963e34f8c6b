"""The bound of `--on-verdict`, with a short one."""

import os
import select

from tests.terminal import PATIENCE

from rankguard.cli.front import on_verdict
from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.lost import verdict_never_begun

SPEC = JobSpec(run_id="abcd", command=("x",), argv=("x",), nprocs=1, env={}, cwd="/")


def test_one_that_takes_too_long_is_ended_with_its_group(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(on_verdict, "BOUND_S", 0.3)
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    never, silent = os.pipe()

    wrong = on_verdict.tell(
        f"(sleep 1000; echo) > {tmp_path}/held & sleep 1000 > {tmp_path}/held",
        verdict_never_begun(SPEC, SpawnFailed("no")),
        SPEC,
        never,
        frozenset,
    )

    assert wrong == "the command of `--on-verdict` took longer than 0.3 s and was ended"
    assert nobody_writes(held)
    for fd in (held, never, silent):
        os.close(fd)


def nobody_writes(fifo: int) -> bool:
    """Once whoever had it open is gone; a process that was killed takes a moment."""
    while True:
        try:
            return os.read(fifo, 1) == b""
        except BlockingIOError:
            if not select.select([fifo], [], [], PATIENCE)[0]:
                return False


def test_without_a_shell(monkeypatch) -> None:
    def refused(_command):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(on_verdict.spawn, "spawn", refused)
    never, silent = os.pipe()

    wrong = on_verdict.tell("true", verdict_never_begun(SPEC, SpawnFailed("no")), SPEC, never, frozenset)

    assert wrong == "unable to execute the command of `--on-verdict`: Resource temporarily unavailable"
    os.close(never)
    os.close(silent)
