"""The candidates that an ir_datasets id ships."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.candidates.without_self import WithoutSelf
from raypipe.config import Config, ConfigError
from raypipe.datasets.dataset import Dataset, file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.progress import counting
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.flat import FLAT
from raypipe.tables.spill import spill, write_candidates
from raypipe.tables.text_table import TextTable


class ScoredDocs(Config):
    """The scoreddocs of an ir_datasets id, such as an official top 1000; ties by doc_id.

    Where all scores of a query are equal, its order means nothing: such queries are counted as
    `queries_with_constant_scores`.
    """

    type: Literal["scored_docs"] = "scored_docs"
    dataset: str | None = None
    """The id that has them; null is each query set's own data set."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""
    name: str = "scoreddocs"
    """What the source is called in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads them."""
        depth = self.depth + self.exclude_query_id
        found = ScoredDocsCandidates(self.dataset, depth, self.name, collection, queries)
        return WithoutSelf(found, self.depth) if self.exclude_query_id else found

    def check(self) -> None:
        """The id has scoreddocs; a query set's own id is checked when the step is planned.

        Raises:
            ConfigError: it does not, or there is no such id.
        """
        if self.dataset is not None:
            QuerySet(dataset=self.dataset).open().scoreddocs()


BATCH = 1 << 17  # scored documents held as Python objects
_ORDERED = FLAT.set(FLAT.get_field_index("order"), pa.field("order", pa.float32()))


@dataclass(frozen=True)
class ScoredDocsCandidates(Step):
    """By score, highest first, ties by doc_id; a query that has none has no candidates."""

    dataset: str | None
    """An ir_datasets id; None is the query set's own data set."""
    depth: int
    label: str
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        own = self.queries.queries
        return own.open() if self.dataset is None else QuerySet(dataset=self.dataset).open()

    @property
    def name(self) -> str:
        return f"{file_safe(self.label)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        dataset = self._dataset
        dataset.scoreddocs()  # whether it has any, before work starts
        return {"scoreddocs": dataset.identity(), "depth": self.depth, "source": self.label}

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.dataset or self.queries.queries.dataset}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        counts: Counter[str] = Counter(scored_docs=0, other_queries=0)
        total = self._dataset.count("scoreddocs")
        with counting("scoreddocs", total) as at, spill(_ORDERED) as rows:
            for batch in self._batches(queries, counts):
                rows.add(batch)
                at(counts["scored_docs"])
            found = write_candidates(rows, attempt, queries, docs, self.depth, self.label)
        counts.update(found)
        if not counts["candidates"]:
            raise ConfigError(
                f"scoreddocs of {self._dataset.name}: none of them is of a query and a document "
                f"that are used here; found {dict(counts)}"
            )
        return dict(counts)

    def _batches(self, queries: list[str], counts: Counter[str]) -> Iterator[pa.Table]:
        number = {query_id: n for n, query_id in enumerate(queries)}
        dataset = self._dataset
        rows = iter(dataset.scoreddocs())
        while batch := list(islice(rows, BATCH)):
            wanted = [(number[q], d, score) for q, d, score in batch if q in number]
            counts.update(scored_docs=len(batch), other_queries=len(batch) - len(wanted))
            for n, doc_id, score in wanted:
                if not math.isfinite(score):
                    raise ConfigError(
                        f"scoreddocs of {dataset.name}: query {queries[n]}, document {doc_id}: "
                        f"expected a finite score, found {score}"
                    )
            if wanted:
                query, doc_ids, values = zip(*wanted, strict=True)
                score = np.array(values, np.float32)
                yield pa.table([query, doc_ids, -score, score], schema=_ORDERED)
