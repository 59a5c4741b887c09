"""Re-ranking with a trained model: a Ray Data job over test queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.datasets.steps import Collection, Queries
from raypipe.evaluation.ranking import rerank
from raypipe.inference.pair_job import PairJob
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import Reading
from raypipe.models.any_model import AnyModel
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.resources import Context
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows

CHUNK = 128


@dataclass(frozen=True)
class Reranking:
    """Candidate lists and what their documents are scored with."""

    candidates: Step
    queries: Queries
    collection: Collection
    query_tokens: Tokens
    doc_tokens: Tokens

    def steps(self, prefix: str = "") -> dict[str, Step]:
        """The steps by field name."""
        return {f"{prefix}{name}": step for name, step in vars(self).items()}


@dataclass(frozen=True)
class CrossEncoderRun(Step):
    """The first `depth` candidates re-ranked, the rest behind them in first-stage order."""

    weights: Step
    """A trained stage, or a backbone that ships a scorer (zero-shot)."""
    model: AnyModel
    truncation: Reading
    lists: Reranking
    depth: int
    precision: str

    kind: ClassVar[str] = "run"
    version: ClassVar[int] = 3  # bf16 is that of the weights, no longer autocast's
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @property
    def name(self) -> str:
        return f"{self.weights.name}-{self.lists.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "depth": self.depth,
            "precision": self.precision,
            "truncation": self.truncation.semantic(),
            "keep_layers": self.model.keep_layers,
        }

    def inputs(self) -> Mapping[str, Step]:
        return {"weights": self.weights, **self.lists.steps()}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(Rows(attempt.inputs["candidates"]))
        job = _Score(
            dict(attempt.inputs),
            self.model,
            self.truncation,
            self.depth,
            self.precision,
            context.batch_tokens(),
            context.device(),
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=True)


@dataclass(frozen=True)
class BiEncoderRun(CrossEncoderRun):
    """The first `depth` candidates re-ranked by the product of vectors, the rest behind them."""

    model: TrainedBiEncoder

    version: ClassVar[int] = 1

    def spec(self) -> Mapping[str, Any]:
        model = {k: v for k, v in self.model.semantic().items() if k != "backbone"}
        return {"depth": self.depth, "precision": self.precision, "model": model}


class _Score(PairJob):
    def build(self) -> Work:
        scored, candidates = self.open(), Rows(self.inputs["candidates"])

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            lists, counts = scored(chunk)
            scores = {pairs.query_id: values for pairs, values in lists}
            table = rerank(candidates.read(chunk), scores, self.depth)
            constant = sum(len(s) > 1 and float(np.ptp(s)) == 0.0 for s in scores.values())
            return table, {**counts, "queries_with_constant_scores": constant}

        return work
