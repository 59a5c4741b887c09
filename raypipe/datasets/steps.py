"""Collections and queries as artifacts, which later steps read instead of the data set."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.config import Config
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.queries import SelectedQueries, select_queries
from raypipe.records import DOCS
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.text_table import TextTable

DOCS_FILE = "docs.arrow"
QUERIES_FILE = "queries.arrow"
QRELS_FILE = "qrels.parquet"
BATCH = 4096
"""Documents that are written together."""


class QuerySet(Config):
    """Queries and judgements of one split, in an order that depends on the query ids only."""

    dataset: str
    """An ir_datasets id, `beir:/path/to/folder`, `pydoc`, `pydoc:PKG,PKG`, or
    `files:corpus=/c.tsv,queries=/q.tsv,qrels=/qrels.txt`."""
    split: str | None = None
    """The split of beir: and pydoc; an ir_datasets id names its split itself."""
    limit: int | None = Field(None, ge=1)
    """Take only this many queries, the first by the hash of their ids; null takes all."""
    skip: int = Field(0, ge=0)
    """Leave out this many queries, the first by hash. A set with skip n shares no query with a set
    with limit n."""
    positive_relevance: int = Field(1, ge=1)
    """Relevance from which a document counts as positive (2 on TREC DL)."""

    def open(self) -> Dataset:
        """The data set behind the id.

        Raises:
            ConfigError: unknown id or split.
        """
        return _open(self.dataset, self.split)


@functools.lru_cache(maxsize=8)
def _open(dataset: str, split: str | None) -> Dataset:
    return open_dataset(dataset, split)  # opened once: steps of one recipe ask many times


@dataclass(frozen=True)
class Collection(Step):
    """The documents with text in one memory-mapped file; a row's number is its index."""

    queries: QuerySet
    """Any split of the data set: splits of one corpus give the same collection."""

    kind: ClassVar[str] = "collection"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        return self.queries.open()

    @property
    def name(self) -> str:
        return self._dataset.docs_name

    def spec(self) -> Mapping[str, Any]:
        return self._dataset.docs_identity()

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.queries.dataset, "split": self.queries.split}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        with attempt.open(DOCS_FILE) as sink:
            return write_docs(self._dataset, sink)


@dataclass(frozen=True)
class Queries(Step):
    """The chosen queries and their judgements."""

    queries: QuerySet
    require_positive: bool
    """True leaves out queries without a positive, which training needs; evaluation takes every
    judged query."""
    keep_unjudged: bool = False
    """True keeps queries without judgements too, to distil published lists as they are."""

    kind: ClassVar[str] = "queries"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        return self.queries.open()

    @property
    def name(self) -> str:
        return self._dataset.name

    def spec(self) -> Mapping[str, Any]:
        chosen = {k: getattr(self.queries, k) for k in ("limit", "skip", "positive_relevance")}
        spec = {**self._dataset.identity(), **chosen, "require_positive": self.require_positive}
        return {**spec, "keep_unjudged": True} if self.keep_unjudged else spec

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.queries.dataset, "split": self.queries.split}

    def select(self) -> SelectedQueries:
        """Read and choose; write nothing."""
        return select_queries(
            self._dataset,
            self.queries.limit,
            self.queries.skip,
            self.queries.positive_relevance,
            self.require_positive,
            self.keep_unjudged,
        )

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        chosen = self.select()
        with (
            attempt.open(QUERIES_FILE) as sink,
            pa.ipc.new_file(sink, chosen.queries.schema) as writer,
        ):
            writer.write_table(chosen.queries)
        attempt.put_table(chosen.qrels, QRELS_FILE)
        return chosen.counts


@dataclass(frozen=True)
class Listed(Step):
    """The documents of a collection that candidate lists name; a small part of a large one."""

    collection: Collection
    candidates: Step
    depth: int
    """Documents of each list that are taken."""

    kind: ClassVar[str] = "collection"

    @property
    def name(self) -> str:
        return f"listed-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "candidates": self.candidates}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        lists = attempt.inputs["candidates"].table()["doc_ids"].to_pylist()
        named = {doc_id for doc_ids in lists for doc_id in doc_ids[: self.depth]}
        rows = np.sort(docs.rows_of(pa.array(sorted(named), pa.string())))
        ids, texts = docs.ids_at(rows), docs.texts(rows.tolist())
        table = pa.table([ids, pa.array(texts, DOCS.field(1).type)], schema=DOCS)
        with attempt.open(DOCS_FILE) as sink, pa.ipc.new_file(sink, DOCS) as writer:
            writer.write_table(table, max_chunksize=BATCH)
        return {"docs": len(rows), "docs_of_the_collection": len(docs)}
