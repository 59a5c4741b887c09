"""Groups of indices: negatives with rows for ids and, with a teacher, its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.records import GROUPS, PAIRWISE_GROUPS
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable
from raypipe.teachers.values import Comparisons, TeacherValues, check_finite

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

    @property
    def compares(self) -> bool:
        """Whether the teacher compared documents with each other, so that groups hold that too."""
        return bool(getattr(self.teacher, "compares", False))

    def spec(self) -> Mapping[str, Any]:
        return {"comparisons": True} if self.compares else {}

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
        threshold = self.negatives.queries.queries.positive_relevance
        job = _Index(dict(attempt.inputs), threshold, self.compares)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")
        if counts.get("groups_without_teacher") == rows:
            raise ConfigError("teacher: it has no value for any query of the training groups")
        return counts


@dataclass(frozen=True)
class _Index:
    inputs: dict[str, Artifact]
    positive_relevance: int
    compares: bool

    def build(self) -> Work:
        negatives = Rows(self.inputs["negatives"])
        collection = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        query_set = TextTable(self.inputs["queries"].local() / QUERIES_FILE)
        teacher = TeacherValues(self.inputs["teacher"]) if "teacher" in self.inputs else None
        comparisons = Comparisons(self.inputs["teacher"]) if self.compares else None

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = negatives.read(chunk)
            listed = part.to_pylist()
            asked = set(part.column("query_id").to_pylist())
            said = {} if teacher is None else teacher.of_queries(asked)
            pairs = {} if comparisons is None else comparisons.of_queries(asked)
            flat = collection.rows_of([d for row in listed for d in row["doc_ids"]])
            docs = np.split(flat, np.cumsum([len(row["doc_ids"]) for row in listed])[:-1])
            queries = query_set.rows_of(part.column("query_id"))
            counts: Counter[str] = Counter()
            rows = []
            for query_index, doc_indices, row in zip(queries, docs, listed, strict=True):
                taught = self._taught(row, said, pairs, counts)
                if taught is not None:
                    group = {name: row[name] for name in ("relevance", "ranks")}
                    indices = {"query_index": query_index, "doc_indices": doc_indices}
                    rows.append({**group, **indices, **taught})
            counts["groups"] += len(rows)
            counts["pairs"] += sum(len(row["doc_indices"]) for row in rows)
            schema = PAIRWISE_GROUPS if self.compares else GROUPS
            return pa.Table.from_pylist(rows, schema=schema), dict(counts)

        return work

    def _taught(
        self,
        row: Mapping[str, Any],
        said: Mapping[str, Mapping[str, float]],
        pairs: Mapping[str, Mapping[tuple[str, str], float]],
        counts: Counter[str],
    ) -> dict[str, Any] | None:
        """The teacher's columns of a group; None if it said too little of it."""
        if "teacher" not in self.inputs:
            return {"teacher_values": None}
        query_id, doc_ids = row["query_id"], row["doc_ids"]
        values = _values(said.get(query_id, {}), doc_ids, counts)
        if not self._teachable(values, np.array(row["relevance"])):
            counts["groups_without_teacher"] += 1
            return None
        counts["groups_with_one_teacher_value"] += bool(np.nanmin(values) == np.nanmax(values))
        compared = _compared(pairs.get(query_id, {}), doc_ids, counts) if self.compares else {}
        return {"teacher_values": values, **compared}

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


def _compared(
    said: Mapping[tuple[str, str], float], doc_ids: list[str], counts: Counter[str]
) -> dict[str, list[Any]]:
    """The comparisons of two documents of the group, as columns of PAIRWISE_GROUPS."""
    place = {doc_id: i for i, doc_id in enumerate(doc_ids)}
    found = [(place[a], place[b], p) for (a, b), p in said.items() if a in place and b in place]
    counts["comparisons"] += len(found)
    counts["groups_without_comparison"] += not found
    names = ("first", "second", "probabilities")
    return {name: [pair[i] for pair in found] for i, name in enumerate(names)}
