"""One torch rank of a cascade: gloo collectives or DDP, until the culprit fails at step 5.

`torch_rank.py DIR CULPRIT ddp|reduce raise|kill|exit 0|1` (bench/cascades.py); 1: `destroy_process_group` in a `finally`.
`torch_rank.py DIR drawn SEED raise|kill|exit` (bench/torch_cascades.py): all else is drawn by the number of the attempt.
The culprit writes the instant, and what was drawn, into `failed.CULPRIT` or `failed.ATTEMPT`.
"""

import os
import random
import signal
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

folder, attempt = sys.argv[1], os.environ.get("TORCHELASTIC_RESTART_COUNT")
if sys.argv[2] == "drawn":
    chance = random.Random(f"{sys.argv[3]}-{attempt}")
    culprit, fault = chance.randrange(int(os.environ["WORLD_SIZE"])), sys.argv[4]
    model, goodbye = chance.choice(("reduce", "ddp")), chance.choice((True, False))
    note, drawn = f"{folder}/failed.{attempt}", (str(culprit), model, str(goodbye))
else:
    culprit, model, fault, goodbye = int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5] == "1"
    note, drawn = f"{folder}/failed.{culprit}", ()


def fail():
    with open(note, "w") as file:
        file.write(" ".join([f"{time.monotonic():.9f}", *drawn]))
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
