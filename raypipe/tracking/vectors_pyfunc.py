"""The pyfunc that MLflow stores with a tracked bi-encoder: gives the vectors of a table of texts.

MLflow copies this one file into the logged model and runs it there ("models from code"), so the
file imports nothing of raypipe: sentence-transformers opens the checkpoint, with pooling, prompts
and norm. Queries are cut at the recipe's `query_length` if the checkpoint's config.json names it as
`{"raypipe": {"truncation": {"query": n}}}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

_SIDES = ("query", "document")


class Retriever(PythonModel):
    """Encodes queries and documents; a pair's score is the product of its vectors."""

    def load_context(self, context: Any) -> None:
        """Open the checkpoint: safetensors only, no remote code."""
        from sentence_transformers import SentenceTransformer

        path = context.artifacts["checkpoint"]
        self.model = SentenceTransformer(
            path,
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
        config = json.loads((Path(path) / "config.json").read_text("utf-8"))
        truncation = (config.get("raypipe") or {}).get("truncation") or {}
        longest = self.model.max_seq_length
        self.lengths = {"query": truncation.get("query", longest), "document": longest}

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `vector`, a list of float32 numbers, one row per input row in the same order.

        Column `side` says whether a text is a `query` or a `document`, which may have prompts of
        their own; without it, all are documents.
        """
        texts = list(model_input["text"])
        sides = list(model_input["side"]) if "side" in model_input else ["document"] * len(texts)
        if wrong := sorted({str(side) for side in sides} - set(_SIDES)):
            raise ValueError(f"column side: expected query or document, found {wrong[0]!r}")
        vectors: list[Any] = [None] * len(texts)
        for side in _SIDES:
            rows = [row for row, name in enumerate(sides) if name == side]
            if not rows:
                continue
            encode = self.model.encode_query if side == "query" else self.model.encode_document
            self.model.max_seq_length = self.lengths[side]
            found = encode([texts[row] for row in rows], show_progress_bar=False)
            for row, vector in zip(rows, np.asarray(found, dtype=np.float32), strict=True):
                vectors[row] = vector.tolist()
        return pd.DataFrame({"vector": vectors}, index=model_input.index)


mlflow.models.set_model(Retriever())
