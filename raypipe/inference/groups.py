"""Negatives per query, then groups of indices: the Ray Data jobs behind a training set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.config import ConfigError
from raypipe.data.collection import index_of, read_docs
from raypipe.data.groups import Groups, form_group
from raypipe.data.sets import DOCS_FILE, QRELS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.records import GROUPS, NEGATIVES
from raypipe.resources import Context

CHUNK = 8192


def read_qrels(queries: Artifact) -> dict[str, dict[str, int]]:
    """Judgements by query id, then document id."""
    table = pq.read_table(queries.local() / QRELS_FILE)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in table.to_pylist():
        found[row["query_id"]][row["doc_id"]] = row["relevance"]
    return found


@dataclass(frozen=True)
class Negatives(Step):
    """Positives and sampled negatives of every query that can form a group."""

    candidates: Step
    queries: Queries
    collection: Collection
    groups: Groups

    kind: ClassVar[str] = "negatives"

    @property
    def name(self) -> str:
        return f"{self.groups.negatives.type}-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return self.groups.semantic()

    def inputs(self) -> Mapping[str, Step]:
        return {
            "candidates": self.candidates,
            "queries": self.queries,
            "collection": self.collection,
        }

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = attempt.inputs["candidates"].table().num_rows
        job = _Sample(dict(attempt.inputs), self.groups, self.queries.queries.positive_relevance)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False)
        if not counts.get("groups"):
            raise ConfigError(f"groups: none of {rows} queries can form a group: {counts}")
        return counts


@dataclass(frozen=True)
class _Sample:
    inputs: dict[str, Artifact]
    groups: Groups
    positive_relevance: int

    def build(self) -> Work:
        candidates = self.inputs["candidates"].table()
        qrels = read_qrels(self.inputs["queries"])
        known = read_docs(self.inputs["collection"].local() / DOCS_FILE).ids()
        judged = sorted({doc for docs in qrels.values() for doc in docs})
        has_text = {d for d, i in zip(judged, index_of(judged, known), strict=True) if i >= 0}

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            counts: Counter[str] = Counter()
            rows = []
            for row in candidates.slice(chunk.start, len(chunk)).to_pylist():
                judgements = qrels.get(row["query_id"], {})
                readable = {d: r for d, r in judgements.items() if d in has_text}
                counts["judged_documents_without_text"] += len(judgements) - len(readable)
                group = form_group(
                    self.groups,
                    row["query_id"],
                    row["doc_ids"],
                    row["ranks"],
                    readable,
                    self.positive_relevance,
                )
                if isinstance(group, str):
                    counts[group] += 1
                    continue
                counts["groups"] += 1
                counts["pairs"] += len(group.doc_ids)
                counts["positives_not_retrieved"] += sum(rank == 0 for rank in group.ranks)
                rows.append({"query_id": row["query_id"], **vars(group)})
            return pa.Table.from_pylist(rows, schema=NEGATIVES), dict(counts)

        return work


@dataclass(frozen=True)
class TrainingGroups(Step):
    """Groups with indices instead of ids and, with a teacher, its value per document."""

    negatives: Negatives
    teacher: Step | None

    kind: ClassVar[str] = "groups"

    @property
    def name(self) -> str:
        return self.negatives.name

    def inputs(self) -> Mapping[str, Step]:
        parts = {
            "negatives": self.negatives,
            "queries": self.negatives.queries,
            "collection": self.negatives.collection,
        }
        return {**parts, "teacher": self.teacher} if self.teacher is not None else parts

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = attempt.inputs["negatives"].table().num_rows
        job = _Index(dict(attempt.inputs))
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")
        if counts.get("groups_without_teacher") == rows:
            raise ConfigError("teacher: it has no value for any query of the training groups")
        return counts


@dataclass(frozen=True)
class _Index:
    inputs: dict[str, Artifact]

    def build(self) -> Work:
        negatives = self.inputs["negatives"].table()
        known = read_docs(self.inputs["collection"].local() / DOCS_FILE).ids()
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        teacher = self._teacher()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = negatives.slice(chunk.start, len(chunk))
            flat = index_of(part.column("doc_ids").combine_chunks().flatten(), known)
            queries = index_of(part.column("query_id"), query_ids)
            counts: Counter[str] = Counter()
            rows, at = [], 0
            for query_index, row in zip(queries, part.to_pylist(), strict=True):
                n_docs = len(row["doc_ids"])
                values = None
                if teacher is not None:
                    said = teacher.get(row["query_id"], {})
                    values = [said.get(d, np.nan) for d in row["doc_ids"]]
                    counts["documents_without_teacher"] += int(np.isnan(values).sum())
                    if not _teachable(np.array(values), np.array(row["relevance"])):
                        counts["groups_without_teacher"] += 1
                        at += n_docs
                        continue
                rows.append(
                    {
                        "query_index": query_index,
                        "doc_indices": flat[at : at + n_docs],
                        "relevance": row["relevance"],
                        "teacher_values": values,
                        "ranks": row["ranks"],
                    }
                )
                at += n_docs
            counts["groups"] += len(rows)
            counts["pairs"] += sum(len(row["doc_indices"]) for row in rows)
            return pa.Table.from_pylist(rows, schema=GROUPS), dict(counts)

        return work

    def _teacher(self) -> dict[str, dict[str, float]] | None:
        if "teacher" not in self.inputs:
            return None
        rows = self.inputs["teacher"].table().to_pylist()
        return {r["query_id"]: dict(zip(r["doc_ids"], r["values"], strict=True)) for r in rows}


def _teachable(values_D: np.ndarray[Any, Any], relevance_D: np.ndarray[Any, Any]) -> bool:
    """Two documents with a teacher value, on both sides if the group has a positive."""
    known = np.isfinite(values_D)
    relevant = relevance_D > 0
    if relevant.any():
        return bool((known & relevant).any() and (known & ~relevant).any())
    return bool(known.sum() >= 2)
