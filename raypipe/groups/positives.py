"""The documents that a filtering teacher scores beside the training candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.datasets.steps import Collection, Queries
from raypipe.groups.negatives import OTHER, readable_qrels
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.parts import part_name
from raypipe.tables.rows import Rows

POSITIVES = pa.schema([("query_id", pa.string()), ("doc_ids", pa.list_(pa.string()))])
BLOCK = 8192
"""Queries of the further candidates in memory, and per file: with 1,000 ids each, 100 MB."""


@dataclass(frozen=True)
class Positives(Step):
    """The documents that a filtering teacher scores beside the training candidates: every query's
    positives with text, and the further candidates down to the depth that is sampled."""

    queries: Queries
    collection: Collection
    others: tuple[tuple[str, Step], ...] = ()
    """As in `Negatives`."""
    reach: tuple[tuple[str, int | None], ...] = ()
    """Deepest rank by name of `others`; None, or no entry, takes all."""

    kind: ClassVar[str] = "positives"

    @property
    def name(self) -> str:
        return self.queries.name

    def spec(self) -> Mapping[str, Any]:
        return {"reach": dict(self.reach)}

    def inputs(self) -> Mapping[str, Step]:
        others = {f"{OTHER}{name}": step for name, step in self.others}
        return {"queries": self.queries, "collection": self.collection, **others}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        threshold = self.queries.queries.positive_relevance
        qrels, missing = readable_qrels(attempt.inputs["queries"], attempt.inputs["collection"])
        rows = [
            {"query_id": q, "doc_ids": sorted(d for d, r in docs.items() if r >= threshold)}
            for q, docs in qrels.items()
        ]
        positives = pa.Table.from_pylist([r for r in rows if r["doc_ids"]], schema=POSITIVES)
        for number, table in enumerate([positives, *self._further(attempt)]):
            attempt.put_table(table, part_name(number))
        return {
            "queries": len(positives),
            "positives": sum(len(row["doc_ids"]) for row in rows),
            "judged_documents_without_text": sum(missing.values()),
        }

    def _further(self, attempt: Attempt) -> Iterator[pa.Table]:
        """The further candidates in tables of `BLOCK` queries, never as Python objects."""
        reach = dict(self.reach)
        for name, _ in self.others:
            rows = Rows(attempt.inputs[f"{OTHER}{name}"], POSITIVES.names)
            for start in range(0, len(rows), BLOCK):
                part = rows.read(range(start, min(start + BLOCK, len(rows))))
                yield _first(part, reach.get(name))


def _first(table: pa.Table, most: int | None) -> pa.Table:
    if most is None:
        return table
    cut = pc.list_slice(table.column("doc_ids"), 0, most)
    return pa.table([table.column("query_id"), cut], schema=POSITIVES)
