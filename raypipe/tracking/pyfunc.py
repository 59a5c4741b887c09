"""The pyfunc that MLflow stores with a tracked cross-encoder: re-ranks a table of pairs.

MLflow copies this one file into the logged model and runs it there ("models from code"), so the
file imports nothing of raypipe: the model opens wherever its pinned requirements are installed. A
pair is cut by the recipe's truncation if the checkpoint's config.json names that as
`{"raypipe": {"truncation": {...}}}`; otherwise the longer side is cut to the tokenizer's limit.
Where it names an `interpolation` beside it, scores are mixed with those of further columns; where
it names a `text`, such as `{title} | {body}`, a text that is not given is made of these columns.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel

SIMILARITY = "raypipe_similarity"
_BATCH = 32


class Reranker(PythonModel):
    """Scores (query, text) pairs with a Hugging Face sequence classifier of one output."""

    def load_context(self, context: Any) -> None:
        """Open the checkpoint: safetensors only, no remote code, no freshly drawn weights."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        path = context.artifacts["checkpoint"]
        classifier: Any = AutoModelForSequenceClassification
        if json.loads((Path(path) / "config.json").read_text())["model_type"] == SIMILARITY:
            # raypipe's own file, which save_pyfunc put beside this one
            classifier = import_module(SIMILARITY).SimilarityForSequenceClassification
        safe = {"trust_remote_code": False, "local_files_only": True}
        self.tokenizer = AutoTokenizer.from_pretrained(path, **safe)
        model, report = classifier.from_pretrained(
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
        recipe = getattr(model.config, "raypipe", None) or {}
        self.windows = _windows(recipe.get("truncation"))
        self.mix = recipe.get("interpolation")
        self.template = recipe.get("text")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Column `score`, float32, one row per input row in the same order; higher is better.

        A model that is mixed with its first stage needs all documents of a query in one call, the
        first stage's best of which it was told the number: scores are scaled over them.
        """
        queries, texts = list(model_input["query"]), _texts(model_input, self.template)
        scores = pd.Series(0.0, index=range(len(texts)), dtype="float32")
        by_length = sorted(range(len(texts)), key=lambda i: len(queries[i]) + len(texts[i]))
        for start in range(0, len(by_length), _BATCH):  # similar lengths need little padding
            rows = by_length[start : start + _BATCH]
            scores[rows] = self._score([queries[i] for i in rows], [texts[i] for i in rows])
        values = scores.to_numpy() if self.mix is None else self._mixed(scores, model_input)
        return pd.DataFrame({"score": values}, index=model_input.index)

    def _mixed(self, scores: pd.Series, model_input: pd.DataFrame) -> Any:
        """weight * z(model) + (1 - weight) * z(others), query by query, as raypipe's own jobs."""
        weight, shares = self.mix["weight"], self.mix["columns"]
        columns = {name: model_input[name].to_numpy(dtype=np.float64) for name in shares}
        for name, values in columns.items():
            if not np.isfinite(values).all():
                raise ValueError(
                    f"column {name}: expected finite numbers, found others; give every document "
                    "its score"
                )
        model = scores.to_numpy(dtype=np.float64)
        mixed = np.zeros(len(model), dtype=np.float32)
        rows = pd.Series(range(len(model)))
        for places in rows.groupby(model_input["query"].to_numpy()).indices.values():
            parts = [share * _z(columns[name][places]) for name, share in shares.items()]
            mixed[places] = weight * _z(model[places]) + (1 - weight) * _z(np.sum(parts, axis=0))
        return mixed

    def _score(self, queries: list[str], texts: list[str]) -> Any:
        if self.windows is not None:
            return self._score_passages(queries, texts)
        return self._forward(
            self.tokenizer(
                queries,
                texts,
                truncation="longest_first",
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            )
        )

    def _score_passages(self, queries: list[str], texts: list[str]) -> Any:
        """The best passage's score of every pair."""
        rows, passages = [], []
        plain = {"add_special_tokens": False, "verbose": False}
        sides = [self.tokenizer(side, **plain).encodings for side in (queries, texts)]
        for row, (query, text) in enumerate(zip(*sides, strict=True)):
            passages += self._passages(query, text)
            rows += [row] * (len(passages) - len(rows))
        best = np.full(len(texts), -np.inf, dtype=np.float32)
        for start in range(0, len(rows), _BATCH):
            batch = slice(start, start + _BATCH)
            inputs = self.tokenizer.pad(passages[batch], return_tensors="pt")
            np.maximum.at(best, rows[batch], self._forward(inputs))
        return best

    def _passages(self, query: Any, text: Any) -> list[dict[str, list[int]]]:
        """Model inputs of the text's passages, each with the query, as raypipe's own jobs cut."""
        cut = self.windows
        query.truncate(cut["query"])
        text.truncate(cut["length"], stride=cut["length"] - cut["stride"])
        join = self.tokenizer.backend_tokenizer.post_process
        pairs = [join(query, part) for part in [text, *text.overflowing][: cut["max_passages"]]]
        typed = "token_type_ids" in self.tokenizer.model_input_names
        return [
            {"input_ids": pair.ids} | ({"token_type_ids": pair.type_ids} if typed else {})
            for pair in pairs
        ]

    def _forward(self, inputs: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.model(**inputs.to(self.model.device)).logits[:, 0].float().cpu().numpy()


def _texts(model_input: pd.DataFrame, template: str | None) -> list[str]:
    """The column `text`; if all columns of the template are there, the text that they make."""
    columns = re.findall(r"\{([^{}]*)\}", template or "")
    if not columns or not set(columns) <= set(model_input.columns):
        if "text" not in model_input:
            either = f", or {', '.join(columns)}" if columns else ""
            raise ValueError(f"expected a column text{either}, found {list(model_input.columns)}")
        return list(model_input["text"])
    cells = model_input[columns].astype(object).where(model_input[columns].notna(), "")
    rows = cells.to_dict("records")
    fill = re.compile(r"\{([^{}]*)\}").sub
    return [fill(lambda at, row=row: str(row[at[1]]).strip(), template).strip() for row in rows]


def _z(values: Any) -> Any:
    """Zero mean, unit variance; equal values become zeros."""
    if np.ptp(values) == 0:
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def _windows(truncation: dict[str, Any] | None) -> dict[str, Any] | None:
    """Passages of max_p, or the one of budgets; None for longest_first."""
    if truncation is None or truncation["type"] == "longest_first":
        return None
    if truncation["type"] == "budgets":
        only = truncation["doc"]
        return {"query": truncation["query"], "length": only, "stride": only, "max_passages": 1}
    return truncation


mlflow.models.set_model(Reranker())
