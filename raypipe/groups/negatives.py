"""The step that mines: every group's positives and sampled negatives, by id."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.datasets.steps import DOCS_FILE, QRELS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.datasets.text_hashes import TextHashes, read_hashes
from raypipe.groups.form import Formed, Groups, Material, form_groups
from raypipe.groups.pool import QRELS, RankedList
from raypipe.records import NEGATIVES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.plain_text import text_hash
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable
from raypipe.teachers.values import TeacherValues, check_finite

CHUNK = 8192
"""Queries per file."""
BLOCK = 1024
"""Queries whose lists are Python objects at a time: 1,000 candidates each are about 150 MB."""
OTHER = "other_"
"""Before the name of further candidates among a step's inputs."""

_NO_NEGATIVES = (
    ". Lists without a negative hold relevant documents only, or none: raise candidates.depth, "
    "take another source (dense, trec_run), or negatives of the whole collection "
    "(negatives.type=uniform)"
)

Judgements = dict[str, dict[str, int]]
"""Relevance by query id, then document id."""


@dataclass(frozen=True)
class Negatives(Step):
    """Positives and sampled negatives of every query that can form a group."""

    candidates: Step
    queries: Queries
    collection: Collection
    groups: Groups
    others: tuple[tuple[str, Step], ...] = ()
    """Further candidates of the same queries, by the name of a mixed sampler's part; those that no
    part reads are left out."""
    scores: Step | None = None
    """Teacher scores of candidates, further candidates and positives, where a filter reads them."""

    kind: ClassVar[str] = "negatives"
    version: ClassVar[int] = 3  # copies of relevant documents and of the query are left out

    def __post_init__(self) -> None:
        names = {name for name, _ in self.others}
        if missing := self.groups.negatives.sources - names:
            raise ConfigError(
                f"groups.negatives: expected further candidates for the parts {sorted(missing)}, "
                f"found {sorted(names) or 'none'}; name the source of each part"
            )
        if self.groups.filters_need_scores and self.scores is None:
            raise ConfigError("groups.filters: they compare teacher scores; name a score teacher")

    @property
    def name(self) -> str:
        return f"{self.groups.negatives.type}-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return self.groups.semantic()

    def inputs(self) -> Mapping[str, Step]:
        read = self.groups.negatives.sources
        steps: dict[str, Step] = {
            "candidates": self.candidates,
            "queries": self.queries,
            "collection": self.collection,
            **{f"{OTHER}{name}": step for name, step in self.others if name in read},
        }
        if self.groups.leaves_copies_out:
            steps["hashes"] = TextHashes(self.collection)
        return {**steps, "scores": self.scores} if self.scores is not None else steps

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        if "scores" in attempt.inputs:
            check_finite(attempt.inputs["scores"])
        rows = len(Rows(attempt.inputs["candidates"]))
        least = self.queries.queries.positive_relevance
        groups = self._settled(attempt.inputs, least)
        job = _Sampling(dict(attempt.inputs), groups, least)
        counts = run_chunks(job, rows, CHUNK, attempt, context, model=False)
        if groups is not self.groups and groups.groups_per_query == "each_positive":
            counts = {**counts, "auto_chose_each_positive": 1}
        if not counts.get("groups"):
            raise ConfigError(
                f"groups: none of {rows} queries can form a group: {counts}; the counters say why"
                f"{_NO_NEGATIVES if counts.get('queries_without_negatives') else ''}"
            )
        return counts

    def _settled(self, inputs: Mapping[str, Artifact], least: int) -> Groups:
        """The groups with `auto` decided by the positives with text."""
        if self.groups.groups_per_query != "auto":
            return self.groups
        qrels, _ = readable_qrels(inputs["queries"], inputs["collection"])
        numbers = [sum(value >= least for value in docs.values()) for docs in qrels.values()]
        return self.groups.settled(sum(numbers), sum(map(bool, numbers)))


def read_qrels(queries: Artifact) -> Judgements:
    """The judgements of a query set."""
    table = pq.read_table(queries.local() / QRELS_FILE)
    judgements: Judgements = defaultdict(dict)
    for row in table.to_pylist():
        judgements[row["query_id"]][row["doc_id"]] = row["relevance"]
    return judgements


def readable_qrels(queries: Artifact, collection: Artifact) -> tuple[Judgements, dict[str, int]]:
    """Judgements of documents with text, and by query the number of judgements of others."""
    qrels = read_qrels(queries)
    judged = sorted({doc for docs in qrels.values() for doc in docs})
    rows = TextTable(collection.local() / DOCS_FILE).rows_of(judged)
    has_text = {doc_id for doc_id, row in zip(judged, rows, strict=True) if row >= 0}
    readable = {q: {d: r for d, r in docs.items() if d in has_text} for q, docs in qrels.items()}
    return readable, {q: len(docs) - len(readable[q]) for q, docs in qrels.items()}


class _Corpus(Sequence[str]):
    """The collection's ids by row."""

    def __init__(self, docs: TextTable) -> None:
        self._ids = docs.ids()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, row: Any) -> Any:
        return self._ids[row].as_py()


@dataclass(frozen=True)
class _Sampling:
    """The job of `Negatives`: rows of candidates become rows of groups."""

    inputs: Mapping[str, Artifact]
    groups: Groups
    positive_relevance: int

    def build(self) -> Work:
        miner = _Miner(self)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            counts: Counter[str] = Counter()
            rows = []
            for query_id, formed in miner.mine(chunk, counts):
                counts["queries"] += bool(formed)
                for group in formed:
                    self._tally(group, counts)
                    rows.append({"query_id": query_id, **vars(group)})
            return pa.Table.from_pylist(rows, schema=NEGATIVES), dict(counts)

        return work

    def _tally(self, group: Formed, counts: Counter[str]) -> None:
        """Count a group and its documents."""
        positives = sum(value >= self.positive_relevance for value in group.relevance)
        # with `any` the sampler chose every document, relevant ones too; else the others alone
        sampled = len(group.doc_ids) - (0 if self.groups.positives == "any" else positives)
        counts["groups"] += 1
        counts["pairs"] += len(group.doc_ids)
        counts["positives"] += positives
        counts["positives_not_retrieved"] += group.sources.count(QRELS)
        counts["groups_with_fewer_negatives"] += sampled < self.groups.negatives.count
        for source, value in zip(group.sources, group.relevance, strict=True):
            if value <= 0:
                counts[f"negatives_from_{source}"] += 1


class _Miner:
    def __init__(self, job: _Sampling) -> None:
        inputs = job.inputs
        self._job = job
        self._candidates = Rows(inputs["candidates"])
        self._qrels, self._unreadable = readable_qrels(inputs["queries"], inputs["collection"])
        self._others = {
            name.removeprefix(OTHER): Rows(artifact)
            for name, artifact in inputs.items()
            if name.startswith(OTHER)
        }
        self._scores = TeacherValues(inputs["scores"]) if "scores" in inputs else None
        self._docs = TextTable(inputs["collection"].local() / DOCS_FILE)
        self._queries = TextTable(inputs["queries"].local() / QUERIES_FILE)
        self._hashes = read_hashes(inputs["hashes"]) if "hashes" in inputs else None
        self._corpus = _Corpus(self._docs)

    def mine(self, chunk: range, counts: Counter[str]) -> Iterator[tuple[str, list[Formed]]]:
        """(query id, groups) of every query of the chunk; a query may form no group."""
        for start in range(chunk.start, chunk.stop, BLOCK):
            part = self._candidates.read(range(start, min(start + BLOCK, chunk.stop)))
            rows = part.select(["query_id", "doc_ids", "ranks"]).to_pylist()
            material = self._material([row["query_id"] for row in rows], counts)
            for row in rows:
                query_id = row["query_id"]
                counts["judged_documents_without_text"] += self._unreadable.get(query_id, 0)
                judged = self._qrels.get(query_id, {})
                least = self._job.positive_relevance
                counts["judged_positives"] += sum(value >= least for value in judged.values())
                formed = form_groups(
                    self._job.groups,
                    query_id,
                    row["doc_ids"],
                    row["ranks"],
                    judged,
                    least,
                    material=material[query_id],
                    counts=counts,
                )
                yield query_id, formed

    def _material(self, query_ids: list[str], counts: Counter[str]) -> dict[str, Material]:
        further = {name: rows.of_queries(query_ids) for name, rows in self._others.items()}
        scores = None if self._scores is None else self._scores.of_queries(query_ids)
        return {
            query_id: Material(
                others={
                    name: _ranked(lists.get(query_id, []), f"queries_without_{name}", counts)
                    for name, lists in further.items()
                },
                corpus=self._corpus,
                scores=None if scores is None else _finite(scores.get(query_id, {}), counts),
                text=self._text,
                hash_of=self._hash_of,
                query_hash=self._query_hash(query_id),
            )
            for query_id in query_ids
        }

    def _hash_of(self, doc_id: str) -> int | None:
        row = -1 if self._hashes is None else self._docs.row_of(doc_id)
        return None if self._hashes is None or row < 0 else int(self._hashes[row])

    def _query_hash(self, query_id: str) -> int | None:
        row = -1 if self._hashes is None else self._queries.row_of(query_id)
        return None if row < 0 else text_hash(self._queries.text(row))

    def _text(self, doc_id: str) -> str:
        return self._docs.text(self._docs.row_of(doc_id))


def _ranked(rows: list[dict[str, Any]], missing: str, counts: Counter[str]) -> RankedList:
    doc_ids = [doc_id for row in rows for doc_id in row["doc_ids"]]
    counts[missing] += not doc_ids
    return RankedList(doc_ids, [rank for row in rows for rank in row["ranks"]])


def _finite(values: dict[str, float], counts: Counter[str]) -> dict[str, float]:
    finite = {doc_id: value for doc_id, value in values.items() if np.isfinite(value)}
    counts["teacher_values_not_finite"] += len(values) - len(finite)
    return finite
