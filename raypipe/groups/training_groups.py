"""The step that makes training groups: mined groups with indices for ids, and teacher values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, WEIGHTS_FILE
from raypipe.records import GROUPS, PAIRWISE_GROUPS, WEIGHT
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable
from raypipe.teachers.values import Comparisons, TeacherValues, check_finite

CHUNK = 8192
"""Groups per file."""


@dataclass(frozen=True)
class TrainingGroups(Step):
    """What stages train on: groups of indices and, with a teacher, each document's value."""

    negatives: Any
    """`Negatives`, or any step with rows of `records.NEGATIVES` and attributes `queries` and
    `collection`; a query may have several rows."""
    teacher: Step | None

    kind: ClassVar[str] = "groups"
    version: ClassVar[int] = 2

    @property
    def name(self) -> str:
        return str(self.negatives.name)

    @property
    def compares(self) -> bool:
        """Whether the teacher compared pairs of documents: then groups hold comparisons too."""
        return bool(getattr(self.teacher, "compares", False))

    def spec(self) -> Mapping[str, Any]:
        return {"comparisons": True} if self.compares else {}

    def inputs(self) -> Mapping[str, Step]:
        steps = {
            "negatives": self.negatives,
            "queries": self.negatives.queries,
            "collection": self.negatives.collection,
        }
        return {**steps, "teacher": self.teacher} if self.teacher is not None else steps

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        if "teacher" in attempt.inputs:
            check_finite(attempt.inputs["teacher"])
        rows = len(Rows(attempt.inputs["negatives"]))
        threshold = self.negatives.queries.queries.positive_relevance
        job = _Indexing(dict(attempt.inputs), threshold, self.compares)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")
        if counts.get("groups_without_teacher") == rows:
            raise ConfigError(
                "teacher: it has no value for any query of the training groups; name a teacher of "
                "these queries"
            )
        return counts


@dataclass(frozen=True)
class _Indexing:
    """The job of `TrainingGroups`: rows of negatives become rows of groups."""

    inputs: dict[str, Artifact]
    positive_relevance: int
    compares: bool

    def build(self) -> Work:
        negatives = Rows(self.inputs["negatives"])
        collection = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        query_set = TextTable(self.inputs["queries"].local() / QUERIES_FILE)
        teacher = TeacherValues(self.inputs["teacher"]) if "teacher" in self.inputs else None
        comparisons = Comparisons(self.inputs["teacher"]) if self.compares else None
        weights = _weights(self.inputs["queries"])

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = negatives.read(chunk)
            rows = part.to_pylist()
            query_ids = set(part.column("query_id").to_pylist())
            values = {} if teacher is None else teacher.of_queries(query_ids)
            pairs = {} if comparisons is None else comparisons.of_queries(query_ids)
            flat = collection.rows_of([d for row in rows for d in row["doc_ids"]])
            docs = np.split(flat, np.cumsum([len(row["doc_ids"]) for row in rows])[:-1])
            queries = query_set.rows_of(part.column("query_id"))
            counts: Counter[str] = Counter()
            groups = []
            for query_index, doc_indices, row in zip(queries, docs, rows, strict=True):
                columns = self._teacher_columns(row, values, pairs, counts)
                if columns is not None:
                    judged = {name: row[name] for name in ("relevance", "ranks")}
                    indices = {"query_index": query_index, "doc_indices": doc_indices}
                    weight = {} if weights is None else {"weight": _weight(row, weights)}
                    groups.append({**judged, **indices, **columns, **weight})
            counts["groups"] += len(groups)
            counts["pairs"] += sum(len(group["doc_indices"]) for group in groups)
            schema = PAIRWISE_GROUPS if self.compares else GROUPS
            if weights is not None:
                schema = schema.append(WEIGHT)
            return pa.Table.from_pylist(groups, schema=schema), dict(counts)

        return work

    def _teacher_columns(
        self,
        row: Mapping[str, Any],
        values_by_query: Mapping[str, Mapping[str, float]],
        pairs_by_query: Mapping[str, Mapping[tuple[str, str], float]],
        counts: Counter[str],
    ) -> dict[str, Any] | None:
        """The teacher's columns of a group; None if too few of its documents have a value."""
        if "teacher" not in self.inputs:
            return {"teacher_values": None}
        query_id, doc_ids = row["query_id"], row["doc_ids"]
        values = _values(values_by_query.get(query_id, {}), doc_ids, counts)
        if not self._teachable(values, np.array(row["relevance"])):
            counts["groups_without_teacher"] += 1
            return None
        counts["groups_with_one_teacher_value"] += bool(np.nanmin(values) == np.nanmax(values))
        if not self.compares:
            return {"teacher_values": values}
        compared = _compared(pairs_by_query.get(query_id, {}), doc_ids, counts)
        return {"teacher_values": values, **compared}

    def _teachable(self, values_D: np.ndarray[Any, Any], relevance_D: np.ndarray[Any, Any]) -> bool:
        """Whether two documents have a teacher value: one positive and one not, if the group has a
        positive."""
        known = np.isfinite(values_D)
        positive = relevance_D >= self.positive_relevance
        if positive.any():
            return bool((known & positive).any() and (known & ~positive).any())
        return bool(known.sum() >= 2)


def _weights(queries: Artifact) -> dict[tuple[str, str], float] | None:
    """The weights of relevant documents by query and document; None where there are none."""
    path = queries.local() / WEIGHTS_FILE
    if not path.is_file():
        return None
    rows = pq.read_table(path).to_pylist()
    return {(row["query_id"], row["doc_id"]): row["weight"] for row in rows}


def _weight(row: Mapping[str, Any], weights: Mapping[tuple[str, str], float]) -> float:
    """The mean weight of a group's documents that have one; 1 where none has."""
    pairs = ((row["query_id"], doc_id) for doc_id in row["doc_ids"])
    known = [weights[pair] for pair in pairs if pair in weights]
    return float(np.mean(known)) if known else 1.0


def _values(
    by_doc: Mapping[str, float], doc_ids: list[str], counts: Counter[str]
) -> np.ndarray[Any, Any]:
    """The teacher's value per document; NaN where the teacher has none that is finite."""
    values = np.array([by_doc.get(d, np.nan) for d in doc_ids], dtype=np.float64)
    known = np.isfinite(values)
    counts["teacher_values_not_finite"] += sum(not np.isfinite(by_doc.get(d, 0)) for d in doc_ids)
    counts["documents_without_teacher"] += int((~known).sum())
    return np.where(known, values, np.nan)


def _compared(
    by_pair: Mapping[tuple[str, str], float], doc_ids: list[str], counts: Counter[str]
) -> dict[str, list[Any]]:
    """The comparisons of two documents of the group, as columns of PAIRWISE_GROUPS."""
    position = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    comparisons = [
        (position[first], position[second], probability)
        for (first, second), probability in by_pair.items()
        if first in position and second in position
    ]
    counts["comparisons"] += len(comparisons)
    counts["groups_without_comparison"] += not comparisons
    names = ("first", "second", "probabilities")
    return {name: [values[i] for values in comparisons] for i, name in enumerate(names)}
