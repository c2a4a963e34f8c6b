"""Teach a small network to tell two spirals apart, on every rank at once: torch's DistributedDataParallel over gloo.

    rankguard run -n 8 examples/ddp.py
    torchrun --nproc-per-node 8 examples/ddp.py

No GPU, no data set. To see a verdict, let something go wrong (the options are those of `trouble.py`):

    rankguard run -n 8 examples/ddp.py --raise-at 40 --raise-rank 3
"""

import argparse

import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group, see `main`
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from trouble import Trouble

import rankguard


def spirals(points: int) -> TensorDataset:
    """Points on two noisy spirals that turn around one another, and on which of the two each one lies."""
    noise = torch.Generator().manual_seed(1)
    label = torch.arange(points) % 2
    turn = torch.rand(points, generator=noise).sqrt() * 9
    angle = turn + label * torch.pi
    place = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1) / 9
    return TensorDataset(place + torch.randn(points, 2, generator=noise) * 0.02, label)


def network() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))


def train(steps: int, trouble: Trouble) -> None:
    me = rankguard.this_rank()  # outside rankguard its calls do nothing
    data = spirals(8192)
    sampler = DistributedSampler(data)
    batches = DataLoader(data, batch_size=64, sampler=sampler)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    me.ready()

    step = epoch = 0
    while step < steps:
        sampler.set_epoch(epoch)
        for place, label in batches:
            trouble.strike(step)
            guess = model(place)
            loss = nn.functional.cross_entropy(guess, label)
            optimizer.zero_grad()
            loss.backward()  # here the ranks meet: gradients are averaged over all of them
            optimizer.step()
            step += 1
            if step % 10 == 0 or step == steps:
                me.status("training", done=step, total=steps)
                if dist.get_rank() == 0:
                    right = (guess.argmax(1) == label).float().mean()
                    print(f"epoch {epoch} step {step}/{steps} loss {loss.item():.4f} right {right:.0%}", flush=True)
            if step == steps:
                break
        epoch += 1


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--steps", type=int, default=160, help="how long to train (160: ten epochs of 8 ranks)")
    options.add_argument(
        "--finally-destroy", action="store_true", help="say goodbye to the other ranks after a failure, too"
    )
    Trouble.add_options(options)
    asked = options.parse_args()

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    trouble = Trouble(asked, dist.get_rank())
    if not asked.finally_destroy:
        train(asked.steps, trouble)
        # This waits for gloo's threads, if nothing else holds the group; one that works on while Python shuts down aborts
        # the rank (pytorch issue 190489). Functions of `torch.distributed.nn` hold the group that is there when they are
        # imported, as arguments by default; DistributedDataParallel would import them after the group was made.
        dist.destroy_process_group()
        return
    try:
        train(asked.steps, trouble)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
