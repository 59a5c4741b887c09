"""Metrics of a run, and the run file beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from raypipe.datasets.steps import Queries, QuerySet
from raypipe.records import RUN
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.tables.trec_run import read_trec_run


@dataclass(frozen=True)
class OneList(Step):
    """A run of one query under any name."""

    label: str
    query_id: str

    kind: ClassVar[str] = "run"

    @property
    def name(self) -> str:
        return self.label

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        columns = [[self.query_id], [["d1", "d2"]], [[2.0, 1.0]]]
        attempt.put_table(pa.table(columns, schema=RUN))
        return {"rows": 1}


@pytest.mark.parametrize(
    ("name", "tag"),
    [("bm25-tiny", "bm25-tiny"), ("bert-first pass", "bert-first_pass"), ("a\n\tb", "a_b")],
)
def test_a_name_is_one_column_of_the_run_file(beir_folder, tmp_path, name, tag):
    queries = Queries(QuerySet(dataset=f"beir:{beir_folder}", split="test"), False)
    builder = Builder(Store(str(tmp_path)))
    query_id = str(queries.select().queries["query_id"][0])
    metrics = builder.get(Metrics(OneList(name, query_id), queries, ("nDCG@10",)))
    table, counts = read_trec_run(metrics.local() / "run.trec")
    assert counts["kept"] == 2 and set(table["sources"].to_pylist()[0]) == {tag}
