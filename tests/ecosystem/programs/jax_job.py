"""Starts the processes of a JAX job and waits for them, in their order, as launchers of every day do."""

import socket
import subprocess
import sys
from pathlib import Path

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
rank, count = Path(__file__).with_name("jax_rank.py"), int(sys.argv[1])
started = [
    subprocess.Popen([sys.executable, rank, "--process", str(number), "--of", str(count), "--port", str(port)])
    for number in range(count)
]
print([process.wait() for process in started])
