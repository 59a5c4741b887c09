"""What a filtering teacher scores beside the training candidates."""

from __future__ import annotations

import pyarrow as pa
from mined_groups import FURTHER, LISTS, STEPS, candidates

from raypipe.groups.positives import Positives
from raypipe.tables.rows import Rows


def test_positives_for_the_filtering_teacher(run, inputs):
    rows, counts = run(Positives(*STEPS), inputs)
    assert rows == [
        {"query_id": "q1", "doc_ids": ["d1", "d5"]},
        {"query_id": "q2", "doc_ids": ["d8"]},
    ]
    assert counts == {"queries": 2, "positives": 3, "judged_documents_without_text": 2}


def test_positives_with_further_candidates(run, inputs):
    more = {**inputs, "other_dense": candidates(FURTHER), "other_far": candidates(LISTS)}
    step = Positives(
        *STEPS, others=(("dense", STEPS[0]), ("far", STEPS[0])), reach=(("far", 1), ("dense", None))
    )
    assert list(step.inputs()) == ["queries", "collection", "other_dense", "other_far"]
    rows, _ = run(step, more)
    found: dict[str, list[str]] = {}
    for row in rows:  # any number of rows per query
        found.setdefault(row["query_id"], []).extend(row["doc_ids"])
    assert found == {
        "q1": ["d1", "d5", "d7", "d6", "d1", "d1"],
        "q2": ["d8", "d5"],
        "q3": ["d4"],
    }


def test_further_candidates_are_taken_in_blocks(run, inputs, monkeypatch):
    """500,000 queries with 200 candidates each are no list of Python strings on the driver."""
    more = {**inputs, "other_far": candidates(LISTS)}
    step = Positives(*STEPS, others=(("far", STEPS[0]),), reach=(("far", 2),))
    rows, _ = run(step, more)
    assert run.parts == [2, 3]
    monkeypatch.setattr("raypipe.groups.positives.BLOCK", 2)
    monkeypatch.setattr(
        Rows, "read", lambda self, rows, read=Rows.read: _bounded(read(self, rows), len(rows))
    )
    again, _ = run(step, more)
    assert again == rows and run.parts == [2, 2, 1]


def _bounded(table: pa.Table, rows: int) -> pa.Table:
    assert len(table) == rows <= 2
    return table
