"""However the bench ends, nothing that it started is left: processes of a session of their own, whose parent has gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = """
import subprocess, sys, time
from bench.keeper import kept

def work():
    words = [sys.executable, "-c", "import subprocess, os; print(subprocess.Popen(['sleep', '600'], start_new_session=True, stdout=subprocess.DEVNULL).pid, os.getppid(), flush=True)"]
    told = subprocess.run(words, start_new_session=True, stdout=subprocess.PIPE).stdout
    sys.stdout.write(told.decode())  # once `Popen` is gone: an interrupt during its `__del__` is lost
    sys.stdout.flush()
    sys.stdin.readline()
    return 7

sys.exit(kept(work))
"""


@pytest.mark.parametrize(
    ("how", "status"),
    [("ends", 7), (signal.SIGINT, 130), (signal.SIGTERM, 143), ("the bench is killed", 137)],
    ids=["end", "SIGINT", "SIGTERM", "kill"],
)
def test_nothing_is_left(wait_for_exit, how, status: int) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", WORK], cwd=ROOT, start_new_session=True, text=True, **pipes) as keeper:
        escaped, bench = map(int, keeper.stdout.readline().split())
        if how == "ends":
            keeper.stdin.write("\n")
            keeper.stdin.flush()
        elif how == signal.SIGINT:
            os.killpg(keeper.pid, signal.SIGINT)  # as a terminal does
        elif how == signal.SIGTERM:
            keeper.terminate()
        else:
            os.kill(bench, signal.SIGKILL)
        assert keeper.wait(20) == status
    wait_for_exit(escaped)
