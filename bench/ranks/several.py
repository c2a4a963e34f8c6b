"""The torch example on several machines, under rankguard or Ray Train; `FIFO` hears `RANK PID` when a rank trains.

`several.py FIFO` is one rank of rankguard's (or torchrun's). `several.py --ray FIFO FOLDER` is the caller of a Ray Train job
on the cluster at RAY_ADDRESS; it prints one line when it knows that the job has failed, and how long it took to know.
"""

import os
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RANKS = 8
FOR_EVER = 10**9
VERDICT = "the job has failed"


class Tell:
    """In place of the example's trouble: says once that this rank trains."""

    def __init__(self, fifo: str, rank: int) -> None:
        self._fifo, self._rank = fifo, rank

    def strike(self, step: int) -> None:
        if step == 3:
            with open(self._fifo, "wb", buffering=0) as fifo:
                fifo.write(f"{self._rank} {os.getpid()}\n".encode())


def train(fifo: str) -> None:
    """The example's own loop; there is a process group."""
    sys.path.insert(0, str(EXAMPLES))
    import ddp
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    ddp.train(FOR_EVER, Tell(fifo, dist.get_rank()))


def rank(fifo: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo")
    train(fifo)


def ray_train(fifo: str, folder: str) -> None:
    """Ray Train as its documentation has it, with as many workers as the nodes have CPUs."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(log_to_driver=False, logging_level="ERROR")

    def loop(told: dict[str, str]) -> None:
        sys.path.insert(0, told["bench"])
        from several import train

        train(told["fifo"])

    trainer = TorchTrainer(
        loop,
        train_loop_config={"fifo": fifo, "bench": str(Path(__file__).resolve().parent)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=RANKS, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        trainer.fit()
    except Exception as error:  # whatever Ray makes of it, its caller knows now
        print(f"{VERDICT}: {type(error).__name__}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    ray_train(*sys.argv[2:]) if sys.argv[1] == "--ray" else rank(sys.argv[1])
