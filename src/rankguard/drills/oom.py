"""The failure that rankguard began with: ranks fill a host cache one after another under a memory limit, rank 0 is
alive and still loading, and the kernel kills a later one.

The limit is a real one: a memory cgroup of our own (v1 or v2); else a scope from `systemd-run --user` or `sudo -n`;
else RLIMIT_AS, which ends in a MemoryError and shows neither the kernel's choice of a victim nor its proof.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankguard.linux.hierarchies import own_groups
from rankguard.runs import make_run_dir, new_run_id

RANK_MIB = 96
OURS_MIB = 64
"""Interpreters of the ranks, supervisor, front and warden."""


def oom(ranks: int) -> int:
    """Run the drill; 0 when the verdict was right."""
    program = str(Path(__file__).with_name("host_cache.py"))
    limit = OURS_MIB + ranks * 14 + RANK_MIB * (ranks - 1) * 2 // 3
    with tempfile.TemporaryDirectory(prefix="rankguard-drill-") as folder:
        for rank in range(1, ranks):
            os.mkfifo(f"{folder}/{rank}")
        kept = make_run_dir(f"drill-oom-{new_run_id()}")[0] or f"{folder}/run"
        command = [sys.executable, "-m", "rankguard", "run", "-n", str(ranks)]
        command += ["--ready-timeout", "60", "--run-dir", kept, program]
        with _limited(limit) as (how, wrap):
            print(
                f"{ranks} ranks, {RANK_MIB} MiB of host cache each but for rank 0, in a memory limit of {limit} MiB ({how})"
            )
            sys.stdout.flush()
            fallback = str(RANK_MIB // 2) if wrap is None else "0"
            ended = subprocess.run([*(wrap or []), *command, folder, str(RANK_MIB), fallback], check=False)
        verdict = _read(f"{kept}/verdict.json")
    wrong = _check(verdict, ended.returncode, "memory-limit" if wrap is None else "oom-kill")
    for line in wrong:
        print(f"drill: wrong: {line}")
    if wrap is None:
        print("drill: no memory cgroup could be made here, so the kernel's OOM killer and its proof were not shown")
    print(f"drill: {'the verdict is right' if not wrong else 'the verdict is wrong'}")
    return 1 if wrong else 0


@contextlib.contextmanager
def _limited(limit_mib: int) -> Iterator[tuple[str, list[str] | None]]:
    """How the limit is set, and the words before the command that put it there (None: only RLIMIT_AS is left)."""
    group = _make_group(limit_mib)
    if group is not None:
        try:
            join = 'echo 0 > "$0"/cgroup.procs && exec "$@"'
            yield f"cgroup {group}", ["/bin/sh", "-c", join, group]
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(group)
        return
    for words in (["systemd-run", "--user", "--scope"], ["sudo", "-n", "systemd-run", "--scope"]):
        asked = [*words, "--quiet", "--collect", "-p", f"MemoryMax={limit_mib}M", "-p", "MemorySwapMax=0"]
        if (
            shutil.which(words[0])
            and subprocess.run([*asked, "true"], capture_output=True, check=False).returncode == 0
        ):
            yield " ".join(words), asked
            return
    yield "RLIMIT_AS of each rank", None


def _make_group(limit_mib: int) -> str | None:
    """A memory cgroup with that limit below our own group; None where none can be made."""
    for group in own_groups().values():
        path = Path(group.path, f"rankguard-drill-{os.getpid()}")
        try:
            path.mkdir()
        except OSError:
            continue
        limits = [path / name for name in ("memory.limit_in_bytes", "memory.max") if (path / name).exists()]
        try:
            limits[0].write_text(str(limit_mib << 20))
            for swap in ("memory.swap.max", "memory.swappiness"):
                if (path / swap).exists():
                    (path / swap).write_text("0")
            return str(path)
        except (OSError, IndexError):
            path.rmdir()
    return None


def _read(path: str) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(path).read_text()))
    except (OSError, ValueError):
        return {}


def _check(verdict: dict[str, Any], status: int, kind: str) -> list[str]:
    """What is wrong with the verdict; nothing when it is as it must be."""
    culprit = verdict.get("culprit") or {}
    cause = culprit.get("cause") or {}
    others = [row for row in verdict.get("ranks", []) if row["rank"] != culprit.get("rank")]
    facts = [
        (verdict.get("outcome") == "failed", f"the outcome is {verdict.get('outcome')!r}"),
        (cause.get("kind") == kind, f"the cause is {cause.get('kind')!r}, not {kind!r}"),
        (cause.get("confidence") == "proven", f"the cause is {cause.get('confidence')}, not proven"),
        (culprit.get("rank") not in (None, 0), f"the culprit is rank {culprit.get('rank')}"),
        (all(row["relation"] == "stopped" for row in others), "not every other rank was stopped"),
        (not verdict.get("teardown", {}).get("survivors", ["?"]), "something is left running"),
        (status == verdict.get("exit_code"), f"the exit status is {status}, not {verdict.get('exit_code')}"),
        (kind != "oom-kill" or status == 137, f"the exit status is {status}, not 137"),
    ]
    return [text for right, text in facts if not right]
