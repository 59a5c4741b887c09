"""How a checkpoint is opened, as code that a model card shows and that tests execute."""

from __future__ import annotations

import json

_PAIRS = """\
folder = {folder}
query = "what do bees eat"
documents = ["Bees feed on nectar and pollen.", "A hive is home to thousands of bees."]
"""

_TRANSFORMERS = """\
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
pairs = [query] * len(documents), documents
inputs = tokenizer(*pairs, truncation=True, padding=True, return_tensors="pt")
with torch.inference_mode():
    scores = model(**inputs).logits[:, 0].tolist()
"""

_SENTENCE_TRANSFORMERS = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder(folder)
scores = model.predict([(query, document) for document in documents])
best_first = model.rank(query, documents)
"""

_PYFUNC = """\
import tempfile
from pathlib import Path

import mlflow
import pandas as pd
from raypipe.tracking import save_pyfunc

target = Path(tempfile.mkdtemp()) / "reranker"
save_pyfunc(target, Path(folder))
model = mlflow.pyfunc.load_model(str(target))  # needs no raypipe any more
pairs = pd.DataFrame({"query": query, "text": documents})
scores = model.predict(pairs)["score"].tolist()
"""


CUTS = {
    "longest_first": (
        "Of a longer pair the longer side is cut first; what is cut never counts. All three ways "
        "to load do this."
    ),
    "budgets": (
        "What is beyond never counts. transformers and sentence-transformers cut a pair only when "
        "both together are too long, so longer queries or documents score differently there; the "
        "pyfunc cuts as in training."
    ),
    "max_p": (
        "A document scores as its best passage. transformers and sentence-transformers read one "
        "passage, the beginning: score passages one by one and keep the highest, or use the "
        "pyfunc, which does."
    ),
}
"""By the `type` of a truncation: what each way to load makes of pairs that are too long."""


def examples(folder: str) -> list[tuple[str, str]]:
    """(sentence, Python code): what all share first, then one way to score after the other.

    Each way leaves one score per document in `scores`.
    """
    return [
        (
            "For all of them (`folder`: this directory, or its name on the hub):",
            _PAIRS.format(folder=json.dumps(folder)),
        ),
        ("transformers:", _TRANSFORMERS),
        ("sentence-transformers:", _SENTENCE_TRANSFORMERS),
        (
            "mlflow.pyfunc, which cuts long pairs exactly as in training (`folder` must be local):",
            _PYFUNC,
        ),
    ]
