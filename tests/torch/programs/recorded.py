"""A script as torch's documentation has it: `@record` writes a file about the exception that ends a rank."""

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record


@record
def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    dist.barrier()
    if dist.get_rank() == 1:
        raise KeyError("no such layer")
    dist.barrier()


if __name__ == "__main__":
    main()
