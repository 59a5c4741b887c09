"""The pyfunc that MLflow stores with a tracked cross-encoder: re-ranks a table of pairs.

MLflow copies this one file into the logged model and runs it there ("models from code"), so it
imports nothing of raypipe: the model opens wherever its pinned requirements are installed.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

_BATCH = 32


class Reranker(PythonModel):
    """Scores (query, text) pairs with a Hugging Face sequence classifier of one output."""

    def load_context(self, context: Any) -> None:
        """Open the checkpoint: safetensors only, no remote code, no freshly drawn weights."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        path = context.artifacts["checkpoint"]
        safe = {"trust_remote_code": False, "local_files_only": True}
        self.tokenizer = AutoTokenizer.from_pretrained(path, **safe)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **safe
        )
        if report["missing_keys"] or model.config.num_labels != 1:
            missing = sorted(report["missing_keys"])
            raise ValueError(
                f"{path}: expected a trained cross-encoder with one output, found "
                f"{model.config.num_labels} outputs and missing weights {missing}; "
                "log the checkpoint of a cross-encoder stage"
            )
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        positions = getattr(model.config, "max_position_embeddings", None)
        self.max_length = min(self.tokenizer.model_max_length, positions or 512)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `score`, float32, one row per input row in the same order; higher is better."""
        queries, texts = list(model_input["query"]), list(model_input["text"])
        scores = pd.Series(0.0, index=range(len(texts)), dtype="float32")
        by_length = sorted(range(len(texts)), key=lambda i: len(queries[i]) + len(texts[i]))
        for start in range(0, len(by_length), _BATCH):  # padding costs less among equals
            rows = by_length[start : start + _BATCH]
            scores[rows] = self._score([queries[i] for i in rows], [texts[i] for i in rows])
        return pd.DataFrame({"score": scores.to_numpy()}, index=model_input.index)

    def _score(self, queries: list[str], texts: list[str]) -> Any:
        import torch

        batch = self.tokenizer(
            queries,
            texts,
            truncation="longest_first",
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        ).to(self.model.device)
        with torch.inference_mode():
            return self.model(**batch).logits[:, 0].float().cpu().numpy()


mlflow.models.set_model(Reranker())
