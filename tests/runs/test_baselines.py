"""A teacher's order of the candidates: by hand, and however many queries are held at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.datasets.steps import Queries, QuerySet
from raypipe.records import CANDIDATES, TEACHER
from raypipe.runs.baselines import TeacherRun

SAID = {
    "q1": {"a": 0.5, "c": 2.0, "b": 1.0, "x": 9.0},
    "q3": {"b": None, "a": -3.0},
    "q4": {"z": 1.0},
}
LISTS = {"q1": "abcd", "q2": "ba", "q3": "cba", "q4": ""}
RUN = {
    "q1": ("cbad", [2.0, 1.0, 0.5, 1.0]),  # d is below the depth, with its first-stage score
    "q2": ("ba", [-1.0, -2.0]),  # no value at all: the first stage's order
    "q3": ("acb", [-3.0, -4.0, -5.0]),  # what is not known stands below -3, in the order it had
    "q4": ("", []),
}


@dataclass
class Part:
    """Stands for an artifact of one part, or for an attempt at one."""

    path: Path
    files: tuple[str, ...] = ("part-00000.parquet",)
    inputs: dict[str, Part] = field(default_factory=dict)

    def local(self) -> Path:
        return self.path

    def put_table(self, table: pa.Table) -> None:
        self.path.mkdir()
        pq.write_table(table, self.path / self.files[0])


@pytest.fixture
def attempt(tmp_path) -> Part:
    lists = [
        {
            "query_id": query_id,
            "doc_ids": list(docs),
            "ranks": range(1, len(docs) + 1),
            "scores": [float(len(docs) - place) for place in range(len(docs))],
            "sources": ["x"] * len(docs),
        }
        for query_id, docs in LISTS.items()
    ]
    said = [
        {"query_id": query_id, "doc_ids": list(values), "values": list(values.values())}
        for query_id, values in reversed(SAID.items())
    ]
    candidates, teacher = Part(tmp_path / "candidates"), Part(tmp_path / "teacher")
    candidates.put_table(pa.Table.from_pylist(lists, schema=CANDIDATES))
    teacher.put_table(pa.Table.from_pylist(said, schema=TEACHER))
    return Part(tmp_path / "run", inputs={"candidates": candidates, "teacher": teacher})


@pytest.mark.parametrize("block", [1, 3, 100])
def test_by_hand(attempt, block, monkeypatch):
    monkeypatch.setattr("raypipe.runs.baselines.BLOCK", block)
    queries = Queries(QuerySet(dataset="beir:/nowhere"), False)
    counts = TeacherRun(queries, "score", queries, queries, 3).run(attempt, None)
    table = pq.read_table(attempt.path / "part-00000.parquet")
    found = {row["query_id"]: ("".join(row["doc_ids"]), row["scores"]) for row in table.to_pylist()}
    assert found == RUN
    assert counts == {"rows": 4, "documents_unknown_to_teacher": 4}
