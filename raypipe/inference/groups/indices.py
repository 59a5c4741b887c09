"""Groups of indices: negatives with rows for ids and, with a teacher, its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.config import ConfigError
from raypipe.data.collection import index_of, read_docs
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.rows import Rows
from raypipe.inference.teacher_values import TeacherValues, check_finite
from raypipe.records import GROUPS
from raypipe.resources import Context

CHUNK = 8192


@dataclass(frozen=True)
class TrainingGroups(Step):
    """Groups with indices instead of ids and, with a teacher, its value per document."""

    negatives: Any
    """`Negatives`, or any step with rows of `records.NEGATIVES` and attributes `queries` and
    `collection`; a query may have several rows."""
    teacher: Step | None

    kind: ClassVar[str] = "groups"
    version: ClassVar[int] = 2

    @property
    def name(self) -> str:
        return str(self.negatives.name)

    def inputs(self) -> Mapping[str, Step]:
        parts = {
            "negatives": self.negatives,
            "queries": self.negatives.queries,
            "collection": self.negatives.collection,
        }
        return {**parts, "teacher": self.teacher} if self.teacher is not None else parts

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        if "teacher" in attempt.inputs:
            check_finite(attempt.inputs["teacher"])
        rows = len(Rows(attempt.inputs["negatives"]))
        job = _Index(dict(attempt.inputs), self.negatives.queries.queries.positive_relevance)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")
        if counts.get("groups_without_teacher") == rows:
            raise ConfigError("teacher: it has no value for any query of the training groups")
        return counts


@dataclass(frozen=True)
class _Index:
    inputs: dict[str, Artifact]
    positive_relevance: int

    def build(self) -> Work:
        negatives = Rows(self.inputs["negatives"])
        known = read_docs(self.inputs["collection"].local() / DOCS_FILE).ids()
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        teacher = TeacherValues(self.inputs["teacher"]) if "teacher" in self.inputs else None

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = negatives.read(chunk)
            listed = part.to_pylist()
            asked = set(part.column("query_id").to_pylist())
            said = {} if teacher is None else teacher.of_queries(asked)
            flat = index_of([d for row in listed for d in row["doc_ids"]], known)
            docs = np.split(flat, np.cumsum([len(row["doc_ids"]) for row in listed])[:-1])
            queries = index_of(part.column("query_id"), query_ids)
            counts: Counter[str] = Counter()
            rows = []
            for query_index, doc_indices, row in zip(queries, docs, listed, strict=True):
                values = None
                if teacher is not None:
                    values = _values(said.get(row["query_id"], {}), row["doc_ids"], counts)
                    if not self._teachable(values, np.array(row["relevance"])):
                        counts["groups_without_teacher"] += 1
                        continue
                rows.append(
                    {
                        "query_index": query_index,
                        "doc_indices": doc_indices,
                        "relevance": row["relevance"],
                        "teacher_values": values,
                        "ranks": row["ranks"],
                    }
                )
            counts["groups"] += len(rows)
            counts["pairs"] += sum(len(row["doc_indices"]) for row in rows)
            return pa.Table.from_pylist(rows, schema=GROUPS), dict(counts)

        return work

    def _teachable(self, values_D: np.ndarray[Any, Any], relevance_D: np.ndarray[Any, Any]) -> bool:
        """Two documents with a teacher value, on both sides if the group has a positive."""
        known = np.isfinite(values_D)
        positive = relevance_D >= self.positive_relevance
        if positive.any():
            return bool((known & positive).any() and (known & ~positive).any())
        return bool(known.sum() >= 2)


def _values(
    said: Mapping[str, float], doc_ids: list[str], counts: Counter[str]
) -> np.ndarray[Any, Any]:
    """The teacher's value per document; NaN where it has none, or none that is finite."""
    values = np.array([said.get(d, np.nan) for d in doc_ids], dtype=np.float64)
    known = np.isfinite(values)
    counts["teacher_values_not_finite"] += sum(not np.isfinite(said.get(d, 0)) for d in doc_ids)
    counts["documents_without_teacher"] += int((~known).sum())
    return np.where(known, values, np.nan)
