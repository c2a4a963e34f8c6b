"""The contract's "Exit status", row by row."""

import errno

import pytest
from tests.diagnosis.cases import START, by_code, by_signal, case, killed, not_spawned, suspect

from rankguard.diagnosis.exit_status import exit_code

CULPRIT = [
    ("exit-code", suspect(1, by_code(1, 3)), 3),
    ("exception", suspect(1, by_code(1, 1)), 1),
    ("exception", suspect(1), 1),
    ("exception", suspect(1, by_signal(1, 15, at=10.5), signalled_at=START + 10.1), 1),
    ("killed", suspect(1, by_signal(1, 9)), 137),
    ("killed", suspect(1, by_signal(1, 15)), 143),
    ("crash", suspect(1, by_signal(1, 11)), 139),
    ("oom-kill", suspect(1, by_signal(1, 9)), 137),
    ("oom-kill", suspect(1, ooms=(killed(1, 401),)), 137),
    ("oom-kill", suspect(1, by_code(1, 137)), 137),
    ("collective-timeout", suspect(1, by_signal(1, 6)), 134),
    ("ready-timeout", suspect(1), 124),
    ("stall", suspect(1), 124),
    ("exit-before-ready", suspect(1, by_code(1, 0)), 1),
    ("reported-failure", suspect(1, by_code(1, 3)), 1),
    ("protocol-error", suspect(1), 1),
    ("node-lost", None, 1),
    ("unknown", None, 1),
    ("supervisor-lost", None, 125),
    ("bug", None, 125),
    *[
        ("cannot-start", suspect(1, not_spawned=not_spawned(1, number, stage)), code)
        for number, stage, code in (
            (errno.ENOENT, "exec", 127),
            (errno.ENOENT, "chdir", 126),
            (errno.EACCES, "exec", 126),
            (errno.ENOEXEC, "exec", 126),
            (errno.EPERM, "exec", 126),
            (errno.EMFILE, "fork", 125),
            (errno.EAGAIN, "fork", 125),
            (errno.ENOMEM, "fork", 125),
        )
    ],
]


@pytest.mark.parametrize(("kind", "rank", "expected"), CULPRIT)
def test_the_culprits_own(kind, rank, expected) -> None:
    assert exit_code(case(), rank, kind) == expected


CLASS = [
    *[(kind, 80, 81) for kind in ("exception", "exit-code", "exit-before-ready", "crash", "reported-failure")],
    *[(kind, 80, 81) for kind in ("protocol-error", "killed", "unknown")],
    *[(kind, 82, 82) for kind in ("oom-kill", "memory-limit", "cuda-oom")],
    *[(kind, 83, 83) for kind in ("gpu-error", "disk-full")],
    *[(kind, 84, 84) for kind in ("ready-timeout", "stall", "collective-timeout")],
    ("cannot-start", 85, 85),
    ("node-lost", 86, 86),
    ("supervisor-lost", 125, 125),
    ("bug", 125, 125),
]


@pytest.mark.parametrize(("kind", "before", "after"), CLASS)
def test_by_class(kind, before, after) -> None:
    starting = case(spec_more={"exit_codes": "class"})
    ready_later = starting.replace(all_ready_at=START + 11)
    ready = starting.replace(all_ready_at=START + 9)

    actual = tuple(exit_code(each, suspect(1, by_code(1, 3)), kind) for each in (starting, ready_later, ready))

    assert actual == (before, before, after)
