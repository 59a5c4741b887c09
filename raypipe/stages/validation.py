"""Validation: re-rank the validation candidates with the model as it is, and measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch.distributed as dist
from torch import nn

from raypipe.datasets.steps import QRELS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.ranking import rerank
from raypipe.inference.lists import ListReader
from raypipe.inference.scoring import PairScorer
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import Pair
from raypipe.storage.artifacts import Artifact


@dataclass(frozen=True)
class Validation:
    """Everything that validation reads; it reads no test query."""

    candidates: pa.Table
    qrels: pa.Table
    query_rows: Sequence[int]
    """Index of every candidate row's query."""
    doc_rows: Sequence[Sequence[int]]
    """Indices of every candidate row's documents, to the depth."""
    query_tokens: TokenReader
    doc_tokens: TokenReader
    measures: Sequence[str]
    positive_relevance: int
    depth: int

    def run(self, model: nn.Module, scorer: Callable[[nn.Module], PairScorer]) -> dict[str, float]:
        """Means of the measures; workers share the queries and all get the same values."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        share = range(rank, len(self.query_rows), world)  # this worker's rows
        model.eval()
        score = scorer(model)
        scores: dict[str, Any] = {}
        ids = self.candidates.column("query_id").to_pylist()
        sizes = [len(self.doc_rows[row]) for row in share]
        flat = score([pair for row in share for pair in self._pairs(row)]) if sizes else []
        start = 0
        for row, size in zip(share, sizes, strict=True):
            scores[ids[row]] = flat[start : start + size]
            start += size
        model.train()
        if world > 1:
            parts: list[Any] = [None] * world
            dist.all_gather_object(parts, scores)
            scores = {key: value for part in parts for key, value in part.items()}
        run = rerank(self.candidates, scores, self.depth)
        return means(evaluate(run, self.qrels, self.measures, self.positive_relevance))

    def first_stage(self) -> dict[str, float]:
        """Means of the measures for the candidates as they are, to the same depth."""
        ids = self.candidates.column("query_id").to_pylist()
        order = {
            query: [-float(position) for position in range(len(docs))]
            for query, docs in zip(ids, self.doc_rows, strict=True)
        }
        run = rerank(self.candidates, order, self.depth)
        return means(evaluate(run, self.qrels, self.measures, self.positive_relevance))

    def _pairs(self, row: int) -> list[Pair]:
        query = self.query_tokens[self.query_rows[row]]
        return [(query, self.doc_tokens[doc]) for doc in self.doc_rows[row]]


def validation_of(stage: Any, inputs: Mapping[str, Artifact]) -> Validation:
    """The validation of a stage, from the artifacts of its inputs."""
    artifacts = {
        name.removeprefix("validation_"): artifact
        for name, artifact in inputs.items()
        if name.startswith("validation_")
    }
    reader = ListReader(artifacts, stage.depth)
    lists = reader.read(range(len(reader)))
    return Validation(
        artifacts["candidates"].table(),
        pq.read_table(artifacts["queries"].local() / QRELS_FILE),
        [candidates.query_index for candidates in lists],
        [candidates.doc_indices.tolist() for candidates in lists],
        TokenReader(artifacts["query_tokens"].local()),
        TokenReader(artifacts["doc_tokens"].local()),
        stage.measures,
        stage.validation.queries.queries.positive_relevance,
        stage.depth,
    )
