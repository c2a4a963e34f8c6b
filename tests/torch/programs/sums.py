"""Ranks that meet by an init method: `sums.py INIT_METHOD`; each adds up what all have, and says whether torch knows its launcher."""

import os
import sys

import torch
import torch.distributed as dist

torch.set_num_threads(1)
me, of = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo", init_method=sys.argv[1], rank=me, world_size=of)
mine = torch.nn.functional.one_hot(torch.tensor(me), of)
dist.all_reduce(mine)
sys.stdout.write(f"rank {me}: {mine.tolist()}, elastic {dist.is_torchelastic_launched()}\n")
sys.stdout.flush()
dist.destroy_process_group()
