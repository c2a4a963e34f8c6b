"""Ranks in a gloo collective to which one of them does not come: `timeouts.py HOW [SECONDS] [RANK]`.

How the one (the last, unless it is named) stays away: `sleep`, `stop` (SIGSTOP), `spin`, `extra` (one collective more
than the others), `barrier` (monitored), `barriers` (two stay away from one that waits for all), `init` (it never joins
the group), `store` (its key never comes), `dead` (it dies in front of a monitored barrier), `late` (it comes when the
others have given up), `failed` (it has an error of its own at the moment at which they give up), `abort` (as `extra`,
and all end by SIGABRT with their flight record in a file), `aborts` (the same, one after the other).
"""

import os
import signal
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist

HOW = sys.argv[1]
WAIT = timedelta(seconds=float(sys.argv[2]) if len(sys.argv) > 2 else 3)
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
ABSENT = (int(sys.argv[3]) if len(sys.argv) > 3 else WORLD - 1) == RANK
FOREVER = 600
GAVE_UP = f"{os.environ['RANKGUARD_RUN_DIR']}/gave-up"
"""A FIFO: a byte for each rank that gave up. Made before the first collective, so it is there for all after that."""
NEWS = -1
if ABSENT and HOW in ("late", "failed"):
    os.mkfifo(GAVE_UP)
    NEWS = os.open(GAVE_UP, os.O_RDWR)


def wait_for_reports(count):
    """Until the job's journal has so many."""
    while True:
        with open(f"{os.environ['RANKGUARD_RUN_DIR']}/events.jsonl") as journal:
            if sum(line.startswith('{"fact": "FailureReported"') for line in journal) >= count:
                return
        time.sleep(0.01)


def load_shard():
    """Where the one is while the others wait."""
    if HOW == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    while HOW == "spin":
        pass
    if HOW in ("late", "failed"):
        for _ in range(WORLD - 1 if HOW == "late" else 1):
            os.read(NEWS, 1)
        wait_for_reports(WORLD - 1 if HOW == "late" else 1)  # then the stop is held for a second at least
    else:
        time.sleep(FOREVER)
    if HOW == "failed":
        raise LookupError("no such shard")


def step():
    dist.all_reduce(torch.ones(8))


def main():
    torch.set_num_threads(1)
    if HOW == "init" and ABSENT:
        load_shard()
    dist.init_process_group("gloo", timeout=WAIT if HOW == "init" else timedelta(seconds=FOREVER))
    step()  # then all are there, however far their starts lay apart
    dist.distributed_c10d._set_pg_timeout(WAIT)
    print("the first is done", flush=True)
    if HOW in ("extra", "abort", "aborts"):
        if ABSENT:
            step()
        dist.broadcast(torch.ones(8), src=0)
        dist.all_gather([torch.ones(8) for _ in range(WORLD)], torch.ones(8))
    elif HOW in ("barrier", "barriers"):
        if ABSENT or (HOW == "barriers" and RANK == WORLD - 2):
            load_shard()
        dist.monitored_barrier(timeout=WAIT, wait_all_ranks=HOW == "barriers")
    elif HOW == "dead":
        if ABSENT:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.monitored_barrier(timeout=WAIT)
    elif HOW == "store":
        if ABSENT:
            load_shard()
        dist.distributed_c10d._get_default_store().wait([f"ready/{WORLD - 1}"], WAIT)
    else:
        if ABSENT:
            load_shard()
        step()


def leave_record():
    """And wait until all have: NCCL's watchdog gives the others a minute for theirs."""
    record = os.environ["TORCH_FR_DUMP_TEMP_FILE"]
    with open(f"{record}{RANK}.part", "wb") as file:
        file.write(torch._C._distributed_c10d._dump_fr_trace())
    os.rename(f"{record}{RANK}.part", f"{record}{RANK}")
    while not all(os.path.exists(f"{record}{rank}") for rank in range(WORLD)):
        time.sleep(0.01)


try:
    main()
except RuntimeError as error:
    if HOW in ("late", "failed") and not ABSENT:
        with open(GAVE_UP, "wb") as news:  # who reads it lives: it waits for this
            news.write(b"x")
    if HOW not in ("abort", "aborts"):
        raise
    leave_record()
    print(error, file=sys.stderr, flush=True)
    if HOW == "aborts":
        time.sleep(RANK * 0.15)  # the last ends when the records are being read
    os.abort()
