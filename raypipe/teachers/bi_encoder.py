"""A bi-encoder as a teacher, alone or fused with the first stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.inference.embeddings import Embeddings, Vectors
from raypipe.inference.lists import ListReader, Lists
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.scales import zscore

CHUNK = 4096
Array = np.ndarray[Any, Any]


class BiEncoderTeacher(BiEncoder):
    """Cosine (or dot product) of query and document vectors."""

    type: Literal["bi_encoder"] = "bi_encoder"

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "bi-encoder"
    needs_lists: ClassVar[bool] = False

    @property
    def weight_of_first_stage(self) -> float:
        """w of (1 - w) z(bi-encoder) + w z(first stage); 0 is the bi-encoder alone, unscaled."""
        return 0.0

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that scores the lists; texts are encoded once for all lists."""
        backbone = Backbone(self.backbone)
        doc_vectors = Embeddings(Tokens(lists.collection, backbone), self, precision)
        query_vectors = Embeddings(Tokens(lists.queries, backbone), self, precision)
        return VectorScores(self, lists, doc_vectors, query_vectors)

    def check(self, field: str = "teacher") -> None:
        """As of every bi-encoder."""
        super().check(field)


class Fusion(BiEncoderTeacher):
    """Weighted mean of z-normalised bi-encoder and first-stage scores, per query.

    On pydoc the mean re-ranks better than either of the two, and a teacher worse than the first
    stage teaches worse.
    """

    type: Literal["fusion"] = "fusion"  # type: ignore[assignment]
    first_stage_weight: float = Field(0.5, gt=0, lt=1)
    """Weight of the first stage; the bi-encoder has the rest."""

    title: ClassVar[str] = "bi-encoder + first stage"
    negative: ClassVar[bool] = True
    """Some values are surely below 0, so that they are no gains."""
    needs_lists: ClassVar[bool] = True  # a z-score over eight documents says little

    @property
    def weight_of_first_stage(self) -> float:
        return self.first_stage_weight


@dataclass(frozen=True)
class VectorScores(Step):
    """Teacher values by dot product, optionally fused with the first stage."""

    teacher: BiEncoderTeacher
    lists: Lists
    doc_vectors: Embeddings
    query_vectors: Embeddings

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"{self.teacher.type}-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        weight = self.teacher.weight_of_first_stage
        return {"depth": self.lists.depth, "first_stage_weight": weight}

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "backbone": self.teacher.backbone}

    def inputs(self) -> Mapping[str, Step]:
        vectors = {"doc_vectors": self.doc_vectors, "query_vectors": self.query_vectors}
        return {**self.lists.inputs(), **vectors}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(Rows(attempt.inputs["candidates"]))
        weight = self.teacher.weight_of_first_stage
        job = _Dot(dict(attempt.inputs), self.lists.depth, weight)
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Dot:
    inputs: dict[str, Artifact]
    depth: int
    weight: float

    def build(self) -> Work:
        lists = ListReader(self.inputs, self.depth)
        docs = Vectors(self.inputs["doc_vectors"].local())
        queries = Vectors(self.inputs["query_vectors"].local())

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part, rows = lists.read(chunk), []
            query_vectors = queries.take([listed.query_index for listed in part])
            for listed, vector in zip(part, query_vectors, strict=True):
                values = (docs.take(listed.doc_indices) @ vector).astype(np.float64)
                if self.weight:
                    first = first_stage_scores(listed.first_stage, listed.doc_ids)
                    values = (1 - self.weight) * zscore(values) + self.weight * zscore(first)
                row = {"query_id": listed.query_id, "doc_ids": listed.doc_ids, "values": values}
                rows.append(row)
            pairs = sum(len(row["doc_ids"]) for row in rows)
            return pa.Table.from_pylist(rows, schema=TEACHER), {"pairs": pairs}

        return work


def first_stage_scores(known: Mapping[str, float], doc_ids: Sequence[str]) -> Array:
    """First-stage scores of `doc_ids`; a document that was not retrieved gets the lowest score.

    Its own score would be lower still, so this floor errs in the document's favour.
    """
    floor = min(known.values(), default=0.0)
    return np.array([known.get(d, floor) for d in doc_ids], dtype=np.float64)
