"""One process of a JAX job on CPUs: a sum over all of them, again and again.

`jax_rank.py --process N --of M --port P`; what is not given is read from the variables of a launcher. `--rounds N`: ends
after so many (0: never).
"""

import argparse
import os
import sys
import time

asked = argparse.ArgumentParser()
asked.add_argument("--process", type=int, default=os.environ.get("RANK"))
asked.add_argument("--of", type=int, default=os.environ.get("WORLD_SIZE"))
asked.add_argument("--port", type=int, default=os.environ.get("MASTER_PORT"))
asked.add_argument("--rounds", type=int, default=0)
options = asked.parse_args()

os.environ["JAX_PLATFORMS"] = "cpu"
import jax  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

jax.config.update("jax_cpu_collectives_implementation", "gloo")
host = os.environ.get("MASTER_ADDR", "127.0.0.1")
jax.distributed.initialize(f"{host}:{options.port}", options.of, options.process)
done = 0
while done < options.rounds or not options.rounds:
    total = multihost_utils.process_allgather(jax.numpy.array([jax.process_index()])).sum()
    if not done:
        sys.stdout.write(f"process {jax.process_index()} of {jax.process_count()} is {os.getpid()}: sum {int(total)}\n")
        sys.stdout.flush()
    done += 1
    time.sleep(0.05)
