"""A BERT that computes embeddings, of which each rank holds a share: Megatron's tensor parallelism, on processors.

Of each layer a rank has some of the attention heads and some of the columns of the feed-forward network (rows of the
matrices that come first, columns of those that come second), and of the vocabulary some of the words. What it computes
with them is its part of a sum: where the parts are added, all ranks meet (`dist.all_reduce`, twice a layer).
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention
from weights import Weights

PADDING = 0
"""The word that fills the shorter texts of a batch up; no text holds it."""


class Model:
    """`model(ids)`: token ids of n texts, filled up to the same length, to n vectors of length 1; the same in all ranks.

    `folder` is a model as sentence-transformers keeps it. `tell(text, done, total)` hears how far loading is.
    """

    def __init__(self, folder: Path, rank: int, ranks: int, tell: Callable[..., None]) -> None:
        config = json.loads((folder / "config.json").read_text())
        weights = Weights(folder / "model.safetensors")
        self.width, self._epsilon = config["hidden_size"], config["layer_norm_eps"]
        self._words = share(config["vocab_size"], rank, ranks)
        self._word = weights("embeddings.word_embeddings.weight", self._words)
        self._place = weights("embeddings.position_embeddings.weight") + weights(
            "embeddings.token_type_embeddings.weight"
        )[0]  # fmt: skip
        self._norm = norm(weights, "embeddings", self._epsilon)
        self._layers = []
        for number in range(config["num_hidden_layers"]):
            tell("loading layers", number, config["num_hidden_layers"])
            self._layers.append(Layer(weights, f"encoder.layer.{number}", config, rank, ranks))

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        mask = ids != PADDING
        x = self._norm(self._embedded(ids) + self._place[: ids.shape[1]])
        for layer in self._layers:
            x = layer(x, mask)
        counts = mask.unsqueeze(-1).float()
        return normalize((x * counts).sum(1) / counts.sum(1))

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        mine = (ids >= self._words.start) & (ids < self._words.stop)
        part = self._word[(ids - self._words.start) * mine] * mine.unsqueeze(-1)
        return summed(part)


class Layer:
    """Attention over this rank's heads, then its columns of the feed-forward network."""

    def __init__(self, weights: Weights, name: str, config: dict, rank: int, ranks: int) -> None:
        self._size = config["hidden_size"] // config["num_attention_heads"]
        heads = share(config["num_attention_heads"], rank, ranks)
        mine = slice(heads.start * self._size, heads.stop * self._size)
        inner = share(config["intermediate_size"], rank, ranks)

        def first(part: str, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            return weights(f"{name}.{part}.weight", rows), weights(f"{name}.{part}.bias", rows)

        def second(part: str, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
            return weights(f"{name}.{part}.weight", columns=columns), weights(f"{name}.{part}.bias")

        self._ask, self._key, self._value = (
            first(f"attention.self.{part}", mine) for part in ("query", "key", "value")
        )
        self._out = second("attention.output.dense", mine)
        self._up, self._down = first("intermediate.dense", inner), second("output.dense", inner)
        self._norm_one = norm(weights, f"{name}.attention.output", config["layer_norm_eps"])
        self._norm_two = norm(weights, f"{name}.output", config["layer_norm_eps"])

    def __call__(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ask, key, value = (self._heads(linear(x, *part)) for part in (self._ask, self._key, self._value))
        seen = scaled_dot_product_attention(ask, key, value, attn_mask=mask[:, None, None, :])
        x = self._norm_one(x + self._joined(seen.transpose(1, 2).flatten(2), *self._out))
        return self._norm_two(x + self._joined(gelu(linear(x, *self._up)), *self._down))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self._size)).transpose(1, 2)

    @staticmethod
    def _joined(part: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return summed(linear(part, weight)) + bias  # the bias is added once, not by each rank


def share(total: int, rank: int, ranks: int) -> slice:
    """This rank's part of a number of things."""
    return slice(rank * total // ranks, (rank + 1) * total // ranks)


def summed(part: torch.Tensor) -> torch.Tensor:
    """Here the ranks meet: each brings its part, each leaves with the sum."""
    dist.all_reduce(part)
    return part


def norm(weights: Weights, name: str, epsilon: float) -> Callable[[torch.Tensor], torch.Tensor]:
    scale, shift = weights(f"{name}.LayerNorm.weight"), weights(f"{name}.LayerNorm.bias")
    return lambda x: layer_norm(x, scale.shape, scale, shift, epsilon)
