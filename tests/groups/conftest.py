"""What the steps of groups read, and a runner without a cluster."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mined_groups import JUDGED, LISTS, TEXTS, Filled, Known, candidates

from raypipe.datasets.steps import DOCS_FILE, QRELS_FILE, QUERIES_FILE
from raypipe.records import DOCS, QRELS, QUERIES


@pytest.fixture
def inputs(tmp_path) -> dict[str, Known]:
    def write(name: str, rows: dict[str, str], schema: pa.Schema) -> None:
        table = pa.table([list(rows), list(rows.values())], schema=schema)
        with pa.ipc.new_file(str(tmp_path / name), schema) as writer:
            writer.write_table(table, max_chunksize=3)

    write(DOCS_FILE, TEXTS, DOCS)
    write(QUERIES_FILE, {"q3": "three", "q2": "two", "q1": "one"}, QUERIES)
    judged = [(q, d, r) for q, docs in JUDGED.items() for d, r in docs.items()]
    pq.write_table(pa.table(list(zip(*judged, strict=True)), schema=QRELS), tmp_path / QRELS_FILE)
    here = Known(folder=tmp_path)
    return {"candidates": candidates(LISTS), "queries": here, "collection": here}


@pytest.fixture
def run(monkeypatch):
    """Runs a step in this process, in chunks of `size` rows: (its rows, its counts)."""

    def here(step, inputs: dict[str, Known], size: int = 100) -> tuple[list[dict], dict[str, int]]:
        tables: list[pa.Table] = []

        def chunks(job, rows, chunk_rows, attempt, context, **kw):
            total: Counter[str] = Counter({"rows": rows})
            for start in range(0, rows, size):
                table, counts = job.build()(range(start, min(start + size, rows)))
                tables.append(table)
                total.update(counts)
            return dict(total)

        for module in ("negatives", "training_groups"):
            monkeypatch.setattr(f"raypipe.groups.{module}.run_chunks", chunks)
        attempt = Filled(inputs)
        counts = dict(step.run(attempt, None))
        here.parts = [len(table) for table in attempt.tables]
        return pa.concat_tables(tables or attempt.tables).to_pylist(), counts

    return here
