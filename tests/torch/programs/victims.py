"""What ranks say when another one dies under them: a line of JSON for each of them, for each collective.

torch is imported once; the ranks of each scene are forked from here. Nobody supervises them, so each says its own.
"""

import json
import os
import signal
import sys
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

from rankguard.linux.ports import hold_free_port

RANKS = 3
SHORT = timedelta(seconds=1)
LONG = timedelta(seconds=30)


def ones(size=1000):
    return torch.ones(size)


def each():
    return [ones() for _ in range(RANKS)]


def around(me):
    """Hand a tensor on, around the ring."""
    first, then = (dist.send, dist.recv) if me else (dist.recv, dist.send)
    for act in (first, then):
        act(ones(), (me + 1) % RANKS if act is dist.send else (me - 1) % RANKS)


def store():
    return dist.distributed_c10d._get_default_store()


COLLECTIVES = {
    "all_reduce": lambda me: dist.all_reduce(ones()),
    "all_reduce, large": lambda me: dist.all_reduce(ones(2_000_000)),
    "all_reduce, async": lambda me: dist.all_reduce(ones(), async_op=True).wait(),
    "barrier": lambda me: dist.barrier(),
    "monitored_barrier": lambda me: dist.monitored_barrier(timeout=LONG),
    "broadcast": lambda me: dist.broadcast(ones(), 0),
    "reduce": lambda me: dist.reduce(ones(), 0),
    "all_gather": lambda me: dist.all_gather(each(), ones()),
    "gather": lambda me: dist.gather(ones(), None if me else each(), 0),
    "scatter": lambda me: dist.scatter(ones(), None if me else each(), 0),
    "reduce_scatter": lambda me: dist.reduce_scatter(ones(), each()),
    "all_gather_object": lambda me: dist.all_gather_object([None] * RANKS, {"rank": me}),
    "send and recv": around,
}
ONLY_RANK_0 = {  # these need the store, which rank 0 hosts; without another rank they go on
    "a key of the store": lambda me: store().get("never set"),
    "a value for the store": lambda me: store().set("key", "value"),
    "new_group": lambda me: dist.new_group(list(range(RANKS))),
}


def scene(act, dead):
    def play(me):
        dist.init_process_group("gloo", timeout=LONG)
        dist.barrier()
        if me == dead:
            os.kill(os.getpid(), signal.SIGKILL)
        while True:
            act(me)

    return play


def never_comes(dead):
    def play(me):
        if me == dead:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.init_process_group("gloo", timeout=SHORT)

    return play


def scenes():
    for name, act in COLLECTIVES.items():
        for dead in (1, 0):
            yield name, dead, scene(act, dead)
    for name, act in ONLY_RANK_0.items():
        yield name, 0, scene(act, 0)
    for dead in (1, 0):
        yield "init_process_group", dead, never_comes(dead)


def fork(play, me, port):
    """A rank; what it says comes out of the pipe."""
    said, say = os.pipe()
    pid = os.fork()
    if pid:
        os.close(say)
        return pid, said
    os.dup2(say, 2)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(me), WORLD_SIZE=str(RANKS))
    signal.alarm(60)
    try:
        play(me)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def main():
    torch.set_num_threads(1)
    for name, dead, play in scenes():
        port, lock = hold_free_port()
        with lock:
            ranks = [fork(play, me, port) for me in range(RANKS)]
            for me, (pid, said) in enumerate(ranks):
                with os.fdopen(said, errors="replace") as words:
                    log = words.read()
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if me != dead:
                    print(json.dumps({"scene": name, "dead": dead, "rank": me, "code": code, "log": log}), flush=True)


if __name__ == "__main__":
    main()
