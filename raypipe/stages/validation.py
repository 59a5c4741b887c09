"""Validation: re-rank the validation candidates with the model as it is, and measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch.distributed as dist
from torch import nn

from raypipe.datasets.steps import QRELS_FILE
from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.ranking import rerank
from raypipe.inference.lists import ListReader
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import Pair
from raypipe.storage.artifacts import Artifact

Scorer = Callable[[Sequence[Pair]], Any]
"""Gives a float32 score per pair."""


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

    @classmethod
    def of(
        cls,
        artifacts: Mapping[str, Artifact],
        depth: int,
        measures: Sequence[str],
        positive_relevance: int,
    ) -> Validation:
        """What the artifacts of a `Reranking` hold.

        Args:
            artifacts: by the names of the `Reranking`'s fields.
        """
        reader = ListReader(artifacts, depth)
        lists = reader.read(range(len(reader)))
        return cls(
            artifacts["candidates"].table(),
            pq.read_table(artifacts["queries"].local() / QRELS_FILE),
            [candidates.query_index for candidates in lists],
            [candidates.doc_indices.tolist() for candidates in lists],
            TokenReader(artifacts["query_tokens"].local()),
            TokenReader(artifacts["doc_tokens"].local()),
            measures,
            positive_relevance,
            depth,
        )

    def first(self, lists: int) -> Validation:
        """The same with the first `lists` queries only."""
        candidates = self.candidates.slice(0, lists)
        judged = pc.is_in(self.qrels["query_id"], candidates["query_id"].combine_chunks())
        return replace(
            self,
            candidates=candidates,
            qrels=self.qrels.filter(judged),
            query_rows=self.query_rows[:lists],
            doc_rows=self.doc_rows[:lists],
        )

    def run(self, model: nn.Module, scorer: Callable[[nn.Module], Scorer]) -> dict[str, float]:
        """Means of the measures; workers share the queries and all get the same values."""
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        model.eval()
        scores = self.scores(scorer(model), range(rank, len(self.query_rows), world))
        model.train()
        if world > 1:
            parts: list[Any] = [None] * world
            dist.all_gather_object(parts, scores)
            scores = {key: value for part in parts for key, value in part.items()}
        return self.measured(scores)

    def scores(self, score: Scorer, rows: Sequence[int]) -> dict[str, Any]:
        """Query id to the float32 scores of its documents, of some rows of the candidates."""
        ids = self.candidates.column("query_id").to_pylist()
        flat = score([pair for row in rows for pair in self._pairs(row)]) if rows else []
        ends = list(accumulate((len(self.doc_rows[row]) for row in rows), initial=0))
        parts = zip(rows, pairwise(ends), strict=True)
        return {ids[row]: flat[start:stop] for row, (start, stop) in parts}

    def measured(self, scores: Mapping[str, Any]) -> dict[str, float]:
        """Means of the measures for the candidates in the order of these scores."""
        run = rerank(self.candidates, scores, self.depth)
        return means(evaluate(run, self.qrels, self.measures, self.positive_relevance))

    def first_stage(self) -> dict[str, float]:
        """Means of the measures for the candidates as they are, to the same depth."""
        ids = self.candidates.column("query_id").to_pylist()
        order = {
            query: [-float(position) for position in range(len(docs))]
            for query, docs in zip(ids, self.doc_rows, strict=True)
        }
        return self.measured(order)

    def _pairs(self, row: int) -> list[Pair]:
        query = self.query_tokens[self.query_rows[row]]
        return [(query, self.doc_tokens[doc]) for doc in self.doc_rows[row]]


def lists_of(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts of a stage's validation lists, by the names of the `Reranking`'s fields."""
    return {
        name.removeprefix("validation_"): artifact
        for name, artifact in inputs.items()
        if name.startswith("validation_")
    }


def validation_of(stage: Any, inputs: Mapping[str, Artifact]) -> Validation:
    """The validation of a stage, from the artifacts of its inputs."""
    positive_relevance = stage.validation.queries.queries.positive_relevance
    return Validation.of(lists_of(inputs), stage.depth, stage.measures, positive_relevance)
