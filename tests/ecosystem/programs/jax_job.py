"""Starts the processes of a JAX job and waits for them, in their order, as launchers of every day do."""

import subprocess
import sys
from pathlib import Path

from rankguard.linux.ports import hold_free_port

port, lock = hold_free_port()
rank, count = Path(__file__).with_name("jax_rank.py"), int(sys.argv[1])
started = [
    subprocess.Popen([sys.executable, rank, "--process", str(number), "--of", str(count), "--port", str(port)])
    for number in range(count)
]
print([process.wait() for process in started])
