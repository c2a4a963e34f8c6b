"""One process of a JAX job on CPUs: `jax_rank.py --process N --of M --port P`; a sum over all of them, again and again."""

import argparse
import os
import sys
import time

asked = argparse.ArgumentParser()
asked.add_argument("--process", type=int)
asked.add_argument("--of", type=int)
asked.add_argument("--port", type=int)
options = asked.parse_args()

os.environ["JAX_PLATFORMS"] = "cpu"
import jax  # noqa: E402
from jax.experimental import multihost_utils  # noqa: E402

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{options.port}", options.of, options.process)
told = False
while True:
    total = multihost_utils.process_allgather(jax.numpy.array([jax.process_index()])).sum()
    if not told:
        sys.stdout.write(f"process {jax.process_index()} of {jax.process_count()} is {os.getpid()}: sum {int(total)}\n")
        sys.stdout.flush()
        told = True
    time.sleep(0.05)
