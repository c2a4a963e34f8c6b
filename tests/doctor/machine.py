"""Run the real doctor on a machine that is spoiled on purpose: mounts, limits, namespaces, forbidden system calls."""

import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
X86_64 = platform.machine() == "x86_64"


class Examined:
    """What one doctor said."""

    def __init__(self, ended: subprocess.CompletedProcess[str]) -> None:
        self.status, self.out, self.err = ended.returncode, ended.stdout, ended.stderr
        self.told: dict[str, Any] = json.loads(ended.stdout)
        self.checks: dict[str, dict[str, Any]] = {each["id"]: each for each in self.told["checks"]}

    def states(self, *ids: str) -> dict[str, str]:
        return {name: self.checks[name]["state"] for name in ids}


def command(tmp_path: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """`rankguard doctor WORDS…` and an environment that keeps its files below `tmp_path`."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir(exist_ok=True)
    env = os.environ | {"RANKGUARD_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    return [sys.executable, "-m", "rankguard", "doctor", *words], env


def examine(
    tmp_path: Path, *words: str, spoil: str = "", unshare: str = "-m", first: Callable[[], None] | None = None,
    env: dict[str, str] | None = None, user: Sequence[str] = (),
) -> Examined:  # fmt: skip
    """The findings. `spoil`: a shell script that is run before, in namespaces of its own (root only)."""
    asked, variables = command(tmp_path, "--json", *words)
    asked = [*user, *asked]
    if spoil:
        asked = ["unshare", *unshare.split(), "sh", "-ec", f'{spoil}\nexec "$@"', "sh", *asked]
    ended = subprocess.run(
        asked, env=variables | (env or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False, preexec_fn=first,
    )  # fmt: skip
    assert ended.stdout, ended.stderr
    return Examined(ended)


def forbid(*calls: int) -> Callable[[], None]:
    """A seccomp filter that answers these system calls with EPERM, as a container's profile does (x86_64)."""
    # struct sock_filter: code, jt, jf, k. Load the number; jump to the end for each that is forbidden; allow.
    lines = [(0x20, 0, 0, 0)]
    lines += [(0x15, len(calls) - n, 0, call) for n, call in enumerate(calls)]
    lines += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050000 | 1)]
    program = b"".join(struct.pack("HBBI", *line) for line in lines)

    def apply() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(program)
        fprog = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _FILTER, fprog, 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp")

    return apply
