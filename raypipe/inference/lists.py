"""The documents that a teacher gives values to: candidates, and what training adds to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Listed, Queries
from raypipe.storage.artifacts import Artifact, Step
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable


@dataclass(frozen=True)
class Lists:
    """One list per query: the first `depth` candidates, then the documents of `extra`."""

    candidates: Step
    extra: Step | None
    """Rows with query_id and doc_ids, any number per query: negatives with their injected
    positives, or positives alone. None adds nothing."""
    collection: Collection | Listed
    queries: Queries
    depth: int

    @property
    def name(self) -> str:
        return self.candidates.name

    def inputs(self) -> dict[str, Step]:
        """For the inputs of a step that scores the lists; `depth` belongs in its spec."""
        parts: dict[str, Step] = {
            "candidates": self.candidates,
            "collection": self.collection,
            "queries": self.queries,
        }
        return {**parts, "extra": self.extra} if self.extra is not None else parts

    def named(self) -> dict[str, Step]:
        """For the inputs of a step that looks up pairs by their ids.

        At depth 0 no candidates are read, so they are no input: triples may have queries that the
        first stage does not know.
        """
        return {k: v for k, v in self.inputs().items() if self.depth or k != "candidates"}


@dataclass(frozen=True)
class ScoreList:
    """One query with the documents to be scored."""

    query_id: str
    query_index: int
    """Row of the query set."""
    doc_ids: list[str]
    """Candidates in rank order, then what `extra` adds; no document twice."""
    doc_indices: np.ndarray
    """Rows of the collection, int64."""
    first_stage: dict[str, float]
    """Scores of all candidates of the query, also those below the depth."""


class ListReader:
    """The lists by row number, one row per query of the candidates artifact."""

    def __init__(self, inputs: Mapping[str, Artifact], depth: int) -> None:
        self.depth = depth
        self._candidates = Rows(inputs["candidates"], ["query_id", "doc_ids", "scores"])
        self._extra = Rows(inputs["extra"], ["query_id", "doc_ids"]) if "extra" in inputs else None
        self._docs = TextTable(inputs["collection"].local() / DOCS_FILE)
        self._queries = TextTable(inputs["queries"].local() / QUERIES_FILE)

    def __len__(self) -> int:
        return len(self._candidates)

    def read(self, rows: range) -> list[ScoreList]:
        """The lists of consecutive rows. Documents without text do not occur in candidates; those
        that have text there alone, where texts are made otherwise, are left out."""
        part = self._candidates.read(rows).to_pylist()
        extra = self._extra.of_queries(r["query_id"] for r in part) if self._extra else {}
        merged = []
        for row in part:
            more = [d for added in extra.get(row["query_id"], ()) for d in added["doc_ids"]]
            merged.append(list(dict.fromkeys([*row["doc_ids"][: self.depth], *more])))
        merged, doc_rows = self._known(merged)
        queries = self._queries.rows_of([r["query_id"] for r in part])
        ends = np.cumsum([len(doc_ids) for doc_ids in merged])
        return [
            ScoreList(
                row["query_id"],
                int(query),
                doc_ids,
                doc_rows[end - len(doc_ids) : end],
                dict(zip(row["doc_ids"], row["scores"], strict=True)),
            )
            for row, query, doc_ids, end in zip(part, queries, merged, ends, strict=True)
        ]

    def _known(self, lists: list[list[str]]) -> tuple[list[list[str]], np.ndarray]:
        """The lists without documents that the collection lacks, and all their rows in a line."""
        rows = self._docs.rows_of([doc_id for doc_ids in lists for doc_id in doc_ids])
        if (rows >= 0).all():
            return lists, rows
        known = iter((rows >= 0).tolist())
        kept = [[doc_id for doc_id in doc_ids if next(known)] for doc_ids in lists]
        return kept, rows[rows >= 0]
