"""Re-ranking with a cross-encoder: a Ray Data job over test queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.data.collection import index_of, read_docs
from raypipe.data.pairs import Template, Truncation
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.data.tokens import TokenReader
from raypipe.evaluation.runs import rerank
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.scoring import PairScorer
from raypipe.inference.tokens import Tokens, load_tokenizer
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.resources import Context

CHUNK = 128


@dataclass(frozen=True)
class Reranking:
    """Candidate lists and all that is needed to score them."""

    candidates: Step
    queries: Queries
    collection: Collection
    query_tokens: Tokens
    doc_tokens: Tokens

    def steps(self, prefix: str = "") -> dict[str, Step]:
        """By field name."""
        return {f"{prefix}{name}": step for name, step in vars(self).items()}


@dataclass(frozen=True)
class CrossEncoderRun(Step):
    """The first `depth` candidates re-ranked, the rest behind them in first-stage order."""

    weights: Step
    """A trained stage, or a backbone that ships a scorer (zero-shot)."""
    model: CrossEncoder
    truncation: Truncation
    lists: Reranking
    depth: int
    precision: str

    kind: ClassVar[str] = "run"

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
        rows = attempt.inputs["candidates"].table().num_rows
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
class _Score:
    inputs: dict[str, Artifact]
    model: CrossEncoder
    truncation: Truncation
    depth: int
    precision: str
    budget: int
    device: str

    def build(self) -> Work:
        folder = self.inputs["weights"].local()
        candidates = self.inputs["candidates"].table()
        known = read_docs(self.inputs["collection"].local() / DOCS_FILE).ids()
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        query_tokens = TokenReader(self.inputs["query_tokens"].local())
        doc_tokens = TokenReader(self.inputs["doc_tokens"].local())
        score = PairScorer(
            self.model.load(folder, 0, training=False, device=self.device),
            Template.of(load_tokenizer(folder)),
            self.truncation,
            self.budget,
            self.precision,
            self.device,
        )

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = candidates.slice(chunk.start, len(chunk))
            top = [ids[: self.depth] for ids in part.column("doc_ids").to_pylist()]
            query_id = part.column("query_id").to_pylist()
            queries = np.repeat(index_of(query_id, query_ids), [len(ids) for ids in top])
            docs = index_of([d for ids in top for d in ids], known)
            pairs = [(query_tokens[q], doc_tokens[d]) for q, d in zip(queries, docs, strict=True)]
            flat = score(pairs)
            splits = np.split(flat, np.cumsum([len(ids) for ids in top])[:-1])
            table = rerank(part, dict(zip(query_id, splits, strict=True)), self.depth)
            constant = sum(len(s) > 1 and float(np.ptp(s)) == 0.0 for s in splits)
            return table, {"pairs": len(pairs), "queries_with_constant_scores": constant}

        return work
