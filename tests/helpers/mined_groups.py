"""Small candidates, judgements and teachers for the steps that make groups, without a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.records import CANDIDATES, TEACHER

TEXTS = {f"d{i}": f"document number {i} with a few words of its own" for i in range(1, 9)}
TEXTS |= {"d7": "Document number 1 with a few  words of its own"}  # a copy of d1
LISTS = {"q1": ["d1", "d2", "d3", "d4"], "q2": ["d5", "d2", "d1", "d8"], "q3": ["d4", "d6"]}
FURTHER = {"q1": ["d7", "d6", "d1"], "q2": []}
JUDGED = {
    "q1": {"d1": 2, "d2": 1, "d5": 2, "gone": 2},
    "q2": {"d8": 2, "d2": 0},
    "q3": {"gone": 2, "d6": 1},
}
QUERY_SET = QuerySet(dataset="beir:/nowhere", positive_relevance=2)
STEPS = (Queries(QUERY_SET, True), Collection(QUERY_SET))


@dataclass
class Known:
    """Stands in for a committed artifact; rows are written in files of two."""

    rows: pa.Table | None = None
    folder: Path = Path()
    step_path: str = "teacher/x"

    def __post_init__(self) -> None:
        if self.rows is not None:
            self.kept = TemporaryDirectory()
            self.folder = Path(self.kept.name)
            for number, name in enumerate(self.files):
                pq.write_table(self.rows.slice(2 * number, 2), self.folder / name)

    def table(self) -> pa.Table:
        assert self.rows is not None
        return self.rows

    def local(self) -> Path:
        return self.folder

    @property
    def files(self) -> list[str]:
        assert self.rows is not None
        return [f"part-{n:05d}.parquet" for n in range(max(-(-len(self.rows) // 2), 1))]


@dataclass
class Filled:
    """Stands in for an attempt."""

    inputs: dict[str, Any]
    tables: list[pa.Table] = field(default_factory=list)

    def put_table(self, table: pa.Table, name: str) -> None:
        assert name == f"part-{len(self.tables):05d}.parquet"
        self.tables.append(table)


def candidates(lists: dict[str, list[str]]) -> Known:
    rows = [
        {
            "query_id": query_id,
            "doc_ids": doc_ids,
            "ranks": list(range(1, len(doc_ids) + 1)),
            "scores": [1.0 / rank for rank in range(1, len(doc_ids) + 1)],
            "sources": ["bm25"] * len(doc_ids),
        }
        for query_id, doc_ids in lists.items()
    ]
    return Known(pa.Table.from_pylist(rows, schema=CANDIDATES))


def teacher(values: dict[str, dict[str, float | None]]) -> Known:
    rows = [
        {"query_id": query_id, "doc_ids": list(said), "values": list(said.values())}
        for query_id, said in values.items()
    ]
    return Known(pa.Table.from_pylist(rows, schema=TEACHER))
