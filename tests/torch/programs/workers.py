"""What training programs do that a fork could disturb: worker processes by each start method, threads of the autograd
engine and of OpenMP, a process group, random numbers. Each rank prints one line of what came of it.
"""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.utils.data import DataLoader, Dataset


class Squares(Dataset[int]):
    """Numbers, made in a worker."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index**2


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.set_num_threads(2)
    size = 256
    weight = torch.ones(size, size, requires_grad=True)
    (weight @ torch.ones(size, size)).sum().backward()
    grown = weight.grad.sum().item()
    told = []
    for method in ("fork", "spawn", "forkserver"):
        loader = DataLoader(Squares(), batch_size=4, num_workers=1, multiprocessing_context=method)
        told.append(sum(int(batch.sum()) for batch in loader))
    context = mp.get_context("spawn")
    queue = context.SimpleQueue()
    mp.spawn(work_for, args=(queue, rank), nprocs=1)
    told.append(queue.get())
    total = torch.tensor([rank])
    dist.all_reduce(total)
    print("told", grown, *told, total.item(), os.getppid() > 1, flush=True)
    print("drawn", torch.initial_seed(), torch.rand(1).item(), flush=True)  # nobody has seeded
    dist.destroy_process_group()


def work_for(_index, queue, rank):
    queue.put(rank + torch.ones(2).sum().item())


if __name__ == "__main__":
    main()
