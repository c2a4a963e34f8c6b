"""TensorRT-LLM's launch, played: an MPI pool whose daemon starts the workers, in groups of their own, and who they are.

Read from `tensorrt_llm/executor/proxy.py` and `worker_process_monitor.py` of NVIDIA/TensorRT-LLM, and said in words of our
own. MPI itself is in `tests/ecosystem/test_mpi.py`.
"""

import os
import subprocess
import sys
import time

from tests.engines.parts import Part, tell, title

MODULE = "tests.engines.trtllm"


def start_pool(folder: str, count: int) -> "subprocess.Popen[bytes]":
    """Open MPI's daemon, in a session of its own; the workers are its children."""
    return subprocess.Popen([sys.executable, "-m", MODULE, "daemon", folder, str(count)], start_new_session=True)


def serve(folder: str, tp: int = 3) -> None:
    """The proxy: it waits for the results of its workers, and for those of dead ones as well."""
    tell(folder, "engine")
    start_pool(folder, tp)
    time.sleep(3600)


def _daemon(folder: str, count: int) -> None:
    title("orted -mca ess env")
    tell(folder, "daemon")
    for number in range(count):
        env = {**os.environ, "OMPI_COMM_WORLD_RANK": str(number), "OMPI_COMM_WORLD_SIZE": str(count)}
        subprocess.Popen([sys.executable, "-m", MODULE, "worker", folder, str(number)], env=env, process_group=0)
    time.sleep(3600)


def _worker(folder: str, number: int) -> None:
    part = Part(folder, f"rank-{number}")  # its identity, told before it loads
    part.play()
    tell(folder, f"ready-{number}")
    part.play()


if __name__ == "__main__":
    {"daemon": _daemon, "worker": _worker}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
