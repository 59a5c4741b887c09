"""The candidates that an ir_datasets id ships."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raypipe.candidates.without_self import DepthOptions
from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset, file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.names import Name
from raypipe.progress import counting
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.flat import FLAT, FLOAT32_LIMIT
from raypipe.tables.spill import spill, write_candidates
from raypipe.tables.text_table import TextTable


class ScoredDocs(DepthOptions):
    """The scoreddocs of an ir_datasets id, such as an official top 1000; ties by doc_id.

    Where all scores of a query are equal, its order means nothing: such queries are counted as
    `queries_with_constant_scores`.
    """

    type: Literal["scored_docs"] = "scored_docs"
    dataset: str | None = None
    """The id that has them; null is each query set's own data set."""
    name: Name = "scoreddocs"
    """The source's name in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the scoreddocs."""
        return self.cut(ScoredDocsCandidates(self, collection, queries))

    def check(self) -> None:
        """The id has scoreddocs; a query set's own id is checked when the step is planned.

        Raises:
            ConfigError: there is no such id, or it has no scoreddocs.
        """
        if self.dataset is not None:
            QuerySet(dataset=self.dataset).open().scoreddocs()


def check_score(dataset: Dataset, query_id: str, doc_id: str, score: float) -> None:
    """Refuse a score that no float32 holds.

    Raises:
        ConfigError: it is NaN, infinite or too large.
    """
    if not abs(score) < FLOAT32_LIMIT:  # NaN compares false
        raise ConfigError(
            f"scoreddocs of {dataset.name}: query {query_id}, document {doc_id}: expected a finite "
            f"score, found {score}; use another source of candidates"
        )


BATCH = 1 << 17  # scored documents held as Python objects
_ORDERED = FLAT.set(FLAT.get_field_index("order"), pa.field("order", pa.float32()))


@dataclass(frozen=True)
class ScoredDocsCandidates(Step):
    """One row per query of the set: its scoreddocs by score, highest first, ties by doc_id."""

    source: ScoredDocs
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        name = self.source.dataset
        queries = self.queries.queries if name is None else QuerySet(dataset=name)
        return queries.open()

    @property
    def name(self) -> str:
        return f"{file_safe(self.source.name)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        dataset = self._dataset
        dataset.scoreddocs()  # whether it has any, before work starts
        depth, source = self.source.retrieved, self.source.name
        return {"scoreddocs": dataset.identity(), "depth": depth, "source": source}

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.source.dataset or self.queries.queries.dataset}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        counts: Counter[str] = Counter(scored_docs=0, other_queries=0)
        total = self._dataset.count("scoreddocs")
        depth, source = self.source.retrieved, self.source.name
        with counting("scoreddocs", total) as at, spill(_ORDERED) as rows:
            for batch in self._batches(queries, counts):
                rows.add(batch)
                at(counts["scored_docs"])
            counts.update(write_candidates(rows, attempt, queries, docs, depth, source))
        if not counts["candidates"]:
            raise ConfigError(
                f"scoreddocs of {self._dataset.name}: none of them is of a query and a document "
                f"of the collection, found {dict(counts)}; set `dataset` to the id that has its own"
            )
        return dict(counts)

    def _batches(self, queries: list[str], counts: Counter[str]) -> Iterator[pa.Table]:
        row_of = {query_id: row for row, query_id in enumerate(queries)}
        dataset = self._dataset
        rows = iter(dataset.scoreddocs())
        while batch := list(islice(rows, BATCH)):
            wanted = [(row_of[q], d, score) for q, d, score in batch if q in row_of]
            counts.update(scored_docs=len(batch), other_queries=len(batch) - len(wanted))
            for row, doc_id, score in wanted:
                check_score(dataset, queries[row], doc_id, score)
            if wanted:
                query, doc_ids, values = zip(*wanted, strict=True)
                score = np.array(values, np.float32)
                yield pa.table([query, doc_ids, -score, score], schema=_ORDERED)
