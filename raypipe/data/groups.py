"""Groups: one query, its positives and its negatives, as a loss sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
from pydantic import Field

from raypipe.config import Config
from raypipe.data.samplers import RandomWindow, Sampler, query_rng

Array = np.ndarray[Any, Any]


class Groups(Config):
    """How groups are formed. All stages that name the same groups train on the same artifact."""

    negatives: Sampler = RandomWindow()
    """Which candidates become negatives; a judged relevant document never does."""
    positives: Literal["inject", "drop", "keep_if_retrieved"] = "inject"
    """inject: positives join whether retrieved or not. drop: a query none of whose positives was
    retrieved is dropped. keep_if_retrieved: such a query stays, with negatives only (for losses on
    teacher values)."""
    max_positives: int = Field(1, ge=1)
    """Positives per group, drawn at random if there are more."""
    seed: int = 0
    """Of the sampling. Separate from the training seed, so that seeds share their groups."""


@dataclass(frozen=True)
class Formed:
    """A group before ids become indices; rank 0 marks a positive that was not retrieved."""

    doc_ids: list[str]
    relevance: list[int]
    ranks: list[int]


def form_group(
    groups: Groups,
    query_id: str,
    doc_ids: Sequence[str],
    ranks: Sequence[int],
    relevance: Mapping[str, int],
    positive_relevance: int,
) -> Formed | str:
    """Choose positives and negatives of one query.

    Args:
        doc_ids: the candidates, best first.
        ranks: their ranks, ascending from 1.
        relevance: the query's judgements; 0 < relevance < positive_relevance is neither positive
            nor negative.

    Returns:
        The group, positives first, or the name of the counter of queries that cannot form one.
    """
    rng = query_rng(groups.seed, query_id)
    rank_of = dict(zip(doc_ids, ranks, strict=True))
    relevant = sorted(d for d, value in relevance.items() if value >= positive_relevance)
    if not relevant:
        return "queries_without_positive"
    retrieved = [d for d in relevant if d in rank_of]
    pool = relevant if groups.positives == "inject" else retrieved
    if not pool and groups.positives == "drop":
        return "queries_with_no_positive_retrieved"
    chosen = sorted(rng.permutation(len(pool))[: groups.max_positives])
    positives = sorted((pool[i] for i in chosen), key=lambda d: (rank_of.get(d, 1 << 30), d))
    others = [d for d in doc_ids if relevance.get(d, 0) <= 0]
    picked = groups.negatives.sample([rank_of[d] for d in others], rng)
    negatives = [others[i] for i in picked]
    if not negatives:
        return "queries_without_negatives"
    if len(positives) + len(negatives) < 2:
        return "queries_with_one_document"
    members = positives + negatives
    return Formed(
        doc_ids=members,
        relevance=[relevance.get(d, 0) for d in members],
        ranks=[rank_of.get(d, 0) for d in members],
    )


class GroupReader:
    """A groups artifact, memory-mapped: arrays per group by row number."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("part-*.arrow"))
        tables = [pa.ipc.open_file(pa.memory_map(str(p))).read_all() for p in paths]
        self.table = pa.concat_tables(tables)
        column = {name: self.table.column(name) for name in self.table.column_names}
        self._queries: Array = column["query_index"].to_numpy()
        offsets, self._docs = _flat(column["doc_indices"])
        self._offsets = offsets
        self._relevance = _flat(column["relevance"])[1]
        teacher = column["teacher_values"]
        self._teacher = None if teacher.null_count else _flat(teacher)[1]

    def __len__(self) -> int:
        return len(self._queries)

    @property
    def has_teacher(self) -> bool:
        return self._teacher is not None

    @property
    def documents(self) -> int:
        """Query-document pairs in all groups."""
        return len(self._docs)

    @property
    def largest(self) -> int:
        """Documents of the largest group."""
        return int(np.diff(self._offsets).max())

    def __getitem__(self, row: int) -> tuple[int, Array, Array, Array]:
        """(query index, document indices [D], relevance [D], teacher values [D], NaN if none)."""
        part = slice(self._offsets[row], self._offsets[row + 1])
        docs = self._docs[part]
        teacher = np.full(len(docs), np.nan) if self._teacher is None else self._teacher[part]
        return int(self._queries[row]), docs, self._relevance[part], teacher


def _flat(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Offsets and values of a list column without nulls, chunks joined."""
    lengths = np.asarray(pa.compute.list_value_length(column))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return offsets, pa.compute.list_flatten(column).to_numpy()
