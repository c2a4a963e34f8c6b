"""Several raylets on this machine, held by a process of their own: it obeys lines on stdin, and ends with it.

`python cluster.py '{"cpus": 2, "gpus": [0, 0, 4], "config": {}}'` prints `{"address", "nodes": [raylet pids]}` when all
are alive. `add GPUS` prints the new node's raylet pid, `forget PID` waits until the cluster knows that one dead.
"""

import json
import os
import shutil
import sys
import tempfile

from ray.cluster_utils import Cluster

STORE = 80 << 20


def main():
    asked = json.loads(sys.argv[1])
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it: 107 bytes at most
    head = {"include_dashboard": False, "_system_config": asked.get("config", {}), "temp_dir": folder}
    os.makedirs(
        "/tmp/ray", exist_ok=True
    )  # Ray notes its address there, and makes it only where its own files lie in it
    cluster, nodes = Cluster(), {}

    def add(gpus, **more):
        node = cluster.add_node(num_cpus=asked["cpus"], num_gpus=gpus, object_store_memory=STORE, **more)
        pid = node.all_processes["raylet"][0].process.pid
        nodes[pid] = node
        return pid

    def say(what):
        print(json.dumps(what), file=out, flush=True)

    try:
        for index, gpus in enumerate(asked["gpus"]):
            add(gpus, **(head if index == 0 else {}))
        cluster.wait_for_nodes()
        say({"address": cluster.address, "nodes": list(nodes)})
        for line in sys.stdin:
            verb, _, what = line.strip().partition(" ")
            if verb == "add":
                say(add(int(what)))
            elif verb == "forget":
                cluster.remove_node(nodes.pop(int(what)), allow_graceful=False)
                say(True)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr  # Ray prints
    main()
