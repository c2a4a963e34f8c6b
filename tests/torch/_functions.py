"""What `launch` calls in its ranks. A module of its own: the ranks import it, and nothing of pytest with it."""

import os


def start(rank):
    """Meet the others; the rank's place among them and a sum over all."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    total = torch.tensor([rank.rank + 1])
    dist.all_reduce(total)
    rank.ready({"rank": dist.get_rank(), "size": dist.get_world_size(), "sum": int(total), "pid": os.getpid()})


def add_up(rank, times):
    import torch
    import torch.distributed as dist

    start(rank)
    for _ in range(times):
        dist.all_reduce(torch.ones(1000))
    dist.destroy_process_group()


def add_up_until_told(rank, told, culprit):
    """Add up for ever; `culprit` does until it is told, and then has an error of its own."""
    import torch
    import torch.distributed as dist

    start(rank)
    while True:
        if rank.rank == culprit and told.poll():
            raise LookupError("nothing left to add")
        dist.all_reduce(torch.ones(1000))
