"""`examples/embedding_engine` as a user starts it, asked over HTTP; and the same model in one piece, to compare with."""

import contextlib
import http.client
import json
import os
import re
import signal
import threading
import urllib.error
import urllib.request
from pathlib import Path

import torch
from tests.torch._runs import PATIENCE, ROOT, Run
from torch import nn

FOLDER = ROOT / "examples/embedding_engine"
QUIET = ("-W", "ignore:Failed to initialize NumPy")
"""What torch says without numpy, in each rank."""
TEXTS = ["a text", "Größe, 東京 and 🙂!", "", "The quick brown fox jumps over the lazy dog. " * 60, "a text"]


class Engine(Run):
    """`serve.py`, or another program with its options; what it and its ranks print comes in order."""

    def __init__(self, folder, *options, group=None, program=FOLDER / "serve.py"):
        self.folder = Path(folder, "run")
        self._start([*QUIET, program, "--port", 0, "--run-dir", self.folder, *options], group, together=True)
        self._address = re.search(r"http://[\d.]+:\d+", self.until("tells how far it is")).group()

    def serving(self):
        """Wait until all ranks are ready; what rank 0 told of itself."""
        return eval(self.until("engine: serving; rank 0 says").partition(" says ")[2])

    def embed(self, texts):
        return self.ask("/embed", json.dumps(texts).encode())

    def health(self):
        return self.ask("/health")

    def ask(self, path, body=None):
        """The HTTP status and the answer."""
        try:
            with urllib.request.urlopen(self._address + path, body, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def announce(self, size):
        """The HTTP status for a question of so many bytes, before any of them is sent."""
        with contextlib.closing(http.client.HTTPConnection(self._address.removeprefix("http://"))) as connection:
            connection.putrequest("POST", "/embed")
            connection.putheader("Content-Length", str(size))
            connection.endheaders()
            return connection.getresponse().status

    @contextlib.contextmanager
    def asked_all_the_time(self, texts):
        """Somebody asks while the block runs, again and again; all answers that came."""
        answers, enough = [], threading.Event()

        def ask():
            with contextlib.suppress(OSError):  # the engine has ended
                while not enough.wait(0.02):  # the processors are for the ranks
                    answers.append(self.embed(texts))

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            yield answers
        finally:
            enough.set()
            thread.join()

    def hold(self, rank):
        """Stop a rank, so that it hangs."""
        os.kill(self.pid(rank), signal.SIGSTOP)

    @property
    def front(self):
        return self._process.pid

    @property
    def supervisor(self):
        return parent_of(self.pid(0))

    @property
    def warden(self):
        return parent_of(self.supervisor)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class InOnePiece:
    """The model by torch's own encoder layers, each with all of its weights: `model(ids)` is the vector of one text."""

    def __init__(self, folder):
        from weights import Weights

        config = json.loads((folder / "config.json").read_text())
        weights = Weights(folder / "model.safetensors")
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        word, place, kind = (
            weights(f"embeddings.{what}_embeddings.weight") for what in ("word", "position", "token_type")
        )
        self._word, self._place = word, place + kind[0]
        self._norm = nn.LayerNorm(width, epsilon)
        self._norm.load_state_dict({what: weights(f"embeddings.LayerNorm.{what}") for what in ("weight", "bias")})
        self._layers = nn.Sequential()
        for number in range(config["num_hidden_layers"]):
            self._layers.append(
                nn.TransformerEncoderLayer(
                    width,
                    config["num_attention_heads"],
                    config["intermediate_size"],
                    0.0,
                    "gelu",
                    epsilon,
                    batch_first=True,
                )
            )
            self._layers[-1].load_state_dict(dict(self._renamed(weights, f"encoder.layer.{number}")))
        self._layers.eval()

    @staticmethod
    def _renamed(weights, layer):
        for what in ("weight", "bias"):
            parts = [weights(f"{layer}.attention.self.{part}.{what}") for part in ("query", "key", "value")]
            yield f"self_attn.in_proj_{what}", torch.cat(parts)
            for theirs, ours in LAYER.items():
                yield f"{theirs}.{what}", weights(f"{layer}.{ours}.{what}")

    @torch.inference_mode()
    def __call__(self, ids):
        x = self._norm(self._word[torch.tensor([ids])] + self._place[: len(ids)])
        return nn.functional.normalize(self._layers(x).mean(1))[0]


LAYER = {
    "self_attn.out_proj": "attention.output.dense",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm1": "attention.output.LayerNorm",
    "norm2": "output.LayerNorm",
}
"""What torch calls the parts of a layer, and what BERT does."""
