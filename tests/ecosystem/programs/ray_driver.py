"""Joins a Ray cluster, and has an actor that Ray starts again when it dies."""

import os
import sys

import ray

ray.init(address="auto", log_to_driver=False)


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Counter:
    def who(self):
        return os.getpid()


counter = Counter.remote()
print(f"counter is {ray.get(counter.who.remote())}", flush=True)
with open(sys.argv[1]) as orders:
    for _line in orders:
        print(f"counter is {ray.get(counter.who.remote())}", flush=True)
