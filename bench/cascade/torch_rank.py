"""One torch rank of a cascade, for bench/cascades.py: gloo collectives or DDP, until the culprit fails at step 5.

`torch_rank.py DIR CULPRIT ddp|reduce raise|kill|exit 0|1`; 1: `destroy_process_group` in a `finally`.
"""

import os
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

folder, culprit, model, fault, goodbye = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "1"


def fail():
    with open(f"{folder}/failed.{culprit}", "w") as file:
        file.write(f"{time.monotonic():.9f}\n")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        sys.exit(3)
    raise ValueError("bad batch")


def train():
    me, step = dist.get_rank(), 0
    net = DistributedDataParallel(torch.nn.Linear(64, 64)) if model == "ddp" else None
    while True:
        if me == culprit and step == 5:
            fail()
        if net is None:
            dist.all_reduce(torch.ones(4096))
        else:
            net(torch.ones(8, 64)).sum().backward()
        step += 1


torch.set_num_threads(1)
dist.init_process_group("gloo")
if goodbye:
    try:
        train()
    finally:
        dist.destroy_process_group()
else:
    train()
