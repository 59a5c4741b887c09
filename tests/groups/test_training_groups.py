"""Groups of ids become groups of indices with teacher values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from mined_groups import QUERY_SET, STEPS, Known, teacher

from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries
from raypipe.groups.training_groups import TrainingGroups
from raypipe.records import GROUPS, NEGATIVES, PAIRWISE, PAIRWISE_GROUPS


@dataclass(frozen=True)
class Ready:
    """Any step that has what training groups ask for."""

    queries: Queries = STEPS[0]
    collection: Collection = STEPS[1]
    name: str = "ready"


READY = [
    {"query_id": "q1", "doc_ids": ["d1", "d3", "d4"], "relevance": [2, 0, 0], "ranks": [1, 3, 4]},
    {"query_id": "q1", "doc_ids": ["d5", "d2", "d3"], "relevance": [2, 1, 0], "ranks": [0, 2, 3]},
    {"query_id": "q2", "doc_ids": ["d8", "d5"], "relevance": [2, 0], "ranks": [4, 1]},
    {"query_id": "q2", "doc_ids": ["d2", "d1", "d5"], "relevance": [1, 0, 0], "ranks": [2, 3, 1]},
]


def indexed(run, inputs, said: Known | None):
    given = {**inputs, "negatives": Known(pa.Table.from_pylist(READY, schema=NEGATIVES))}
    step = TrainingGroups(Ready(), None if said is None else STEPS[0])
    assert step.name == "ready" and ("teacher" in step.inputs()) == (said is not None)
    return run(step, given if said is None else {**given, "teacher": said}, size=3)


def test_several_groups_of_a_query_become_indices(run, inputs):
    rows, counts = indexed(run, inputs, None)
    assert [(row["query_index"], row["doc_indices"]) for row in rows] == [
        (2, [0, 2, 3]),
        (2, [4, 1, 2]),
        (1, [7, 4]),
        (1, [1, 0, 4]),
    ]
    assert [row["teacher_values"] for row in rows] == [None] * 4
    assert [row["ranks"] for row in rows] == [one["ranks"] for one in READY]
    assert counts == {"rows": 4, "groups": 4, "pairs": 11}


def test_teacher_values_per_group(run, inputs):
    """A group needs a value on both sides of `positive_relevance`, or two without a positive."""
    said = {
        "q1": {"d1": 0.9, "d3": 0.9, "d4": float("inf"), "d5": 0.7, "d2": None},
        "q2": {"d1": 0.2, "d8": float("nan"), "d5": 1.0},
    }
    rows, counts = indexed(run, inputs, teacher(said))
    expected = [[0.9, 0.9, np.nan], [0.7, np.nan, 0.9], [np.nan, 0.2, 1.0]]
    assert len(rows) == 3
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row["teacher_values"], values)
    assert pa.Table.from_pylist(rows, schema=GROUPS).num_rows == 3
    assert counts == {
        "rows": 4,
        "groups": 3,  # the last one has no positive: d2 is judged 1 where 2 counts
        "pairs": 9,
        "documents_without_teacher": 4,
        "teacher_values_not_finite": 3,
        "groups_without_teacher": 1,
        "groups_with_one_teacher_value": 1,
    }


class Compares(Queries):
    """Stands in for the step of a pairwise teacher."""

    compares = True


def test_a_pairwise_teachers_comparisons_per_group(run, inputs):
    """Those of two documents of the group, in the direction that they were made."""
    row = {"query_id": "q1", "doc_ids": ["d4", "d1", "d3", "d5", "d2"], "values": [0.1] * 5}
    said = {"first": [1, 2, 3, 1], "second": [0, 1, 4, 4], "probabilities": [0.9, 0.3, 0.8, 0.7]}
    other = {"query_id": "q2", "doc_ids": ["d8", "d5"], "values": [0.5, 0.5]}
    silent = {"first": [], "second": [], "probabilities": []}
    table = pa.Table.from_pylist([row | said, other | silent], schema=PAIRWISE)
    ready = pa.Table.from_pylist(READY, schema=NEGATIVES)
    step = TrainingGroups(Ready(), Compares(QUERY_SET, True))
    given = {**inputs, "negatives": Known(ready), "teacher": Known(table)}
    rows, counts = run(step, given, size=3)
    assert [(r["first"], r["second"], r["probabilities"]) for r in rows] == [
        ([0, 1], [2, 0], [0.9, 0.3]),  # of d1, d3, d4
        ([0], [1], [0.8]),  # of d5, d2, d3
        ([], [], []),
    ]
    assert pa.Table.from_pylist(rows, schema=PAIRWISE_GROUPS).num_rows == 3
    assert (counts["comparisons"], counts["groups_without_comparison"]) == (3, 1)
    plain = TrainingGroups(Ready(), STEPS[0])
    assert step.spec() == {"comparisons": True} and plain.spec() == {}  # other digests stay


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"q1": {"d1": float("nan")}}, "expected finite values, found 1"),
        ({"q9": {"d1": 1.0}}, "no value for any query of the training groups"),
        ({}, "no value for any query"),
    ],
)
def test_a_teacher_that_says_nothing(run, inputs, said, message):
    with pytest.raises(ConfigError, match=message):
        indexed(run, inputs, teacher(said))
