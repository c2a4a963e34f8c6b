"""A training with Hugging Face's accelerate, on CPUs and without end: it says who it is once a step was taken by all."""

import os
import sys

import torch
from accelerate import Accelerator

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
model = torch.nn.Linear(8, 1)
model, optimizer, batches = accelerator.prepare(
    model, torch.optim.SGD(model.parameters(), lr=0.01), torch.utils.data.DataLoader(torch.rand(64, 8), batch_size=4)
)
told = False
while True:
    for batch in batches:
        optimizer.zero_grad()
        accelerator.backward(model(batch).square().mean())
        optimizer.step()
        if not told:
            sys.stdout.write(f"rank {accelerator.process_index} of {accelerator.num_processes} is {os.getpid()}\n")
            sys.stdout.flush()
            told = True
