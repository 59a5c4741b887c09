"""Candidates less the query itself, in collections whose queries are documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from raypipe.config import Config
from raypipe.records import CANDIDATES
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.flat import array, positions
from raypipe.tables.rows import Rows

CHUNK = 4096


class DepthOptions(Config):
    """How many candidates a query has, and whether its own document may be one of them."""

    type: str
    """Declared here, so that recipes are printed with `type` before these two."""
    depth: int = Field(100, ge=1)
    """Candidates per query."""
    exclude_query_id: bool = False
    """Leave out the document that has the query's id, as BEIR does: for collections such as ArguAna
    whose queries are documents."""

    @property
    def retrieved(self) -> int:
        """Documents to retrieve per query: one more than `depth` where its own is left out."""
        return self.depth + self.exclude_query_id

    def cut(self, retrieved: Step) -> Step:
        """The candidates among the retrieved documents."""
        return WithoutSelf(retrieved, self.depth) if self.exclude_query_id else retrieved


@dataclass(frozen=True)
class WithoutSelf(Step):
    """The first `depth` documents whose id is not the query's; ranks count anew.

    BEIR leaves such documents out of every run: in ArguAna the query is an argument of the corpus,
    in Quora a question of it, and would rank first. The candidates must be one deeper.
    """

    candidates: Step
    depth: int

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{self.candidates.name}-without-self"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {"candidates": self.candidates}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        job = _Drop(attempt.inputs["candidates"], self.depth)
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Drop:
    candidates: Artifact
    depth: int

    def build(self) -> Work:
        rows = Rows(self.candidates)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            return without_self(rows.read(chunk), self.depth)

        return work


def without_self(candidates: pa.Table, depth: int) -> tuple[pa.Table, Counts]:
    """CANDIDATES less each query's own document, cut to `depth`.

    Returns:
        Counts: `queries_among_documents` (dropped), `beyond_depth`, and of what is left
        `candidates` and `queries_without_candidates`.
    """
    table = candidates.combine_chunks()
    lists = {name: array(table, name) for name in CANDIDATES.names[1:]}
    sizes = pc.list_value_length(lists["doc_ids"]).to_numpy()
    query = np.repeat(np.arange(len(sizes)), sizes)
    own = array(table, "query_id").take(pa.array(query))
    other = pc.not_equal(lists["doc_ids"].flatten(), own).to_numpy(zero_copy_only=False)
    position = positions(_offsets(query[other], len(sizes)))
    keep = np.flatnonzero(other)[position < depth]
    offsets = _offsets(query[keep], len(sizes))
    columns = {name: column.flatten().take(pa.array(keep)) for name, column in lists.items()}
    columns["ranks"] = pa.array(positions(offsets) + 1, pa.int32())
    nested = [pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), c) for c in columns.values()]
    counts = {
        "queries_among_documents": int((~other).sum()),
        "beyond_depth": int((position >= depth).sum()),
        "candidates": len(keep),
        "queries_without_candidates": int((np.diff(offsets) == 0).sum()),
    }
    return pa.table([table["query_id"], *nested], schema=CANDIDATES), counts


def _offsets(query: np.ndarray[Any, Any], queries: int) -> np.ndarray[Any, Any]:
    """Where each query's rows begin, and the end of the last ones; `query` ascends."""
    return np.searchsorted(query, np.arange(queries + 1))
