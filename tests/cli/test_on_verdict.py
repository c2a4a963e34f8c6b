"""The bound of `--on-verdict`, with a short one."""

import os
import time

from rankguard.cli.front import on_verdict
from rankguard.errors import SpawnFailed
from rankguard.jobspec import JobSpec
from rankguard.lost import verdict_never_begun

SPEC = JobSpec(run_id="abcd", command=("x",), argv=("x",), nprocs=1, env={}, cwd="/")


def test_one_that_takes_too_long_is_ended_with_its_group(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(on_verdict, "BOUND_S", 0.3)
    told, tell = os.pipe()
    os.set_inheritable(tell, True)
    never, silent = os.pipe()
    began = time.monotonic()

    wrong = on_verdict.tell(
        f"(sleep 1000; echo) 2> {tmp_path}/a & sleep 1000",
        verdict_never_begun(SPEC, SpawnFailed("no")),
        SPEC,
        never,
        frozenset,
    )

    assert wrong == "the command of `--on-verdict` took longer than 0.3 s and was ended"
    assert time.monotonic() - began < 5
    for fd in (told, tell, never, silent):
        os.close(fd)


def test_without_a_shell(monkeypatch) -> None:
    def refused(_command):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(on_verdict.spawn, "spawn", refused)
    never, silent = os.pipe()

    wrong = on_verdict.tell("true", verdict_never_begun(SPEC, SpawnFailed("no")), SPEC, never, frozenset)

    assert wrong == "unable to execute the command of `--on-verdict`: Resource temporarily unavailable"
    os.close(never)
    os.close(silent)
