"""A training of Lightning's, data-parallel over gloo on two CPUs: `lightning_fit.py STEPS` (-1: without end)."""

import os
import sys

import pytorch_lightning as lightning
import torch

SAID_AT = 3


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 1)

    def training_step(self, batch, _number):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_train_batch_end(self, *_):
        if self.global_step == SAID_AT:
            found = type(self.trainer.strategy.cluster_environment).__name__
            sys.stdout.write(f"rank {self.global_rank} of {self.trainer.world_size} is {os.getpid()}, by {found}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    trainer = lightning.Trainer(
        max_steps=int(sys.argv[1]), max_epochs=-1, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Model(), torch.utils.data.DataLoader(torch.rand(4000, 8), batch_size=4))
    sys.stdout.write(f"rank {trainer.global_rank} has trained {trainer.global_step} steps\n")
    sys.stdout.flush()
