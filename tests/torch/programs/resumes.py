"""Counts steps together and keeps the count in a file; in the first attempt one rank dies at step 20."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

KEPT = Path(sys.argv[1])
FIRST = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    step = int(KEPT.read_text()) if KEPT.exists() else 0
    print(f"begins at step {step}", flush=True)
    while step < 40:
        together = torch.ones(1)
        dist.all_reduce(together)
        assert together.item() == dist.get_world_size()
        step += 1
        if rank == 0:
            fresh = KEPT.with_suffix(".new")
            fresh.write_text(str(step))
            fresh.rename(KEPT)
        if FIRST and step == 20 and rank == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    print(f"ended at step {step}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


main()
