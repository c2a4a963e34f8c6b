"""The example's engine, whose rank 1 raises once it meets a certain text: an error in a model's own code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples/embedding_engine"))
import scheduler as ranks
import serve

POISON = 9947
"""The token of "poison"."""


def scheduler(rank, *args):
    from model import Model

    compute = Model.__call__

    def or_raise(self, ids):
        if rank.rank == 1 and POISON in ids:
            raise ArithmeticError("not a number in layer 3")
        return compute(self, ids)

    Model.__call__ = or_raise
    ranks.scheduler(rank, *args)


if __name__ == "__main__":
    serve.scheduler = scheduler
    sys.exit(serve.main())
