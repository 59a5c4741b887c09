"""From candidates, judgements and teacher scores to groups of indices, without a cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.config import ConfigError
from raypipe.datasets.steps import (
    DOCS_FILE,
    QRELS_FILE,
    QUERIES_FILE,
    Collection,
    Queries,
    QuerySet,
)
from raypipe.groups.form import Groups, form_group
from raypipe.groups.negatives import Negatives
from raypipe.groups.positives import Positives
from raypipe.groups.samplers import Mixed, MixedPart, RandomWindow, TopK, Uniform
from raypipe.groups.training_groups import TrainingGroups
from raypipe.records import (
    CANDIDATES,
    DOCS,
    GROUPS,
    NEGATIVES,
    PAIRWISE,
    PAIRWISE_GROUPS,
    QRELS,
    QUERIES,
    TEACHER,
)
from raypipe.tables.rows import Rows

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

        for module in ("negatives", "indices"):
            monkeypatch.setattr(f"raypipe.groups.{module}.run_chunks", chunks)
        attempt = Filled(inputs)
        counts = dict(step.run(attempt, None))
        here.parts = [len(table) for table in attempt.tables]
        return pa.concat_tables(tables or attempt.tables).to_pylist(), counts

    return here


def negatives(groups: Groups, **more) -> Negatives:
    return Negatives(STEPS[0], *STEPS, groups, **more)


def only(counts: dict[str, int], *prefixes: str) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n and name.startswith(prefixes)}


def test_rows_by_hand(run, inputs):
    """q1: d5 joins unseen, d2 is neither; q2: d8; q3's only positive has no text."""
    groups = Groups(negatives=TopK(count=2), groups_per_query="each_positive")
    rows, counts = run(negatives(groups), inputs)
    assert rows == [
        {
            "query_id": "q1",
            "doc_ids": ["d1", "d3", "d4"],
            "relevance": [2, 0, 0],
            "ranks": [1, 3, 4],
            "sources": ["candidates"] * 3,
        },
        {
            "query_id": "q1",
            "doc_ids": ["d5", "d3", "d4"],
            "relevance": [2, 0, 0],
            "ranks": [0, 3, 4],
            "sources": ["qrels", "candidates", "candidates"],
        },
        {
            "query_id": "q2",
            "doc_ids": ["d8", "d5", "d2"],
            "relevance": [2, 0, 0],
            "ranks": [4, 1, 2],
            "sources": ["candidates"] * 3,
        },
    ]
    assert counts == {
        "rows": 3,
        "queries": 2,
        "groups": 3,
        "pairs": 9,
        "positives": 3,
        "positives_not_retrieved": 1,
        "groups_with_fewer_negatives": 0,
        "negatives_from_candidates": 6,
        "judged_documents_without_text": 2,
        "queries_without_positive": 1,
    }


def test_rows_are_those_of_form_group_in_any_chunks(run, inputs):
    groups = Groups(negatives=RandomWindow(count=2), max_positives=2)
    rows, counts = run(negatives(groups), inputs)
    assert [row["query_id"] for row in rows] == ["q1", "q2"]
    for row in rows:
        query_id = row["query_id"]
        judged = {d: r for d, r in JUDGED[query_id].items() if d in TEXTS}
        formed = form_group(groups, query_id, LISTS[query_id], [1, 2, 3, 4], judged, 2)
        assert row == {"query_id": query_id, **vars(formed)}
    assert run(negatives(groups), inputs, size=1) == (rows, counts)


def test_fewer_negatives_are_counted(run, inputs):
    _, counts = run(negatives(Groups(negatives=TopK(count=3))), inputs)
    assert only(counts, "groups", "negatives") == {
        "groups": 2,
        "groups_with_fewer_negatives": 1,  # q1 has d3 and d4 only
        "negatives_from_candidates": 5,
    }


def test_a_random_negative_is_no_missed_positive(run, inputs):
    rows, counts = run(negatives(Groups(negatives=Uniform(count=4))), inputs)
    assert counts["positives_not_retrieved"] == sum(row["ranks"][0] == 0 for row in rows) <= 1
    assert only(counts, "negatives") == {"negatives_from_corpus": 8}
    for row in rows:
        judged = JUDGED[row["query_id"]]
        assert set(row["doc_ids"][1:]) <= {d for d in TEXTS if judged.get(d, 0) <= 0}


def test_counts_where_the_sampler_takes_relevant_documents_too(run, inputs):
    """q1: d1 (2), d2 (1), d3, d4; q2: d5, d2, d1, d8 (2), the relevant one last; q3: d4, d6 (1)."""
    rows, counts = run(negatives(Groups(negatives=TopK(count=4), positives="any")), inputs)
    assert [row["relevance"] for row in rows] == [[2, 1, 0, 0], [0, 0, 0, 2], [0, 1]]
    assert only(counts, "groups", "pairs", "positives", "negatives") == {
        "groups": 3,
        "groups_with_fewer_negatives": 1,  # q3 alone: the other two have the four they asked for
        "pairs": 10,
        "positives": 2,  # 2 is what counts as positive here
        "negatives_from_candidates": 6,
    }


def test_the_list_of_an_unjudged_query_is_a_group_like_any_other(run, inputs):
    given = {**inputs, "candidates": candidates({"q8": ["d2", "d4"]})}
    rows, _ = run(negatives(Groups(negatives=TopK(count=4), positives="any")), given)
    assert rows[0]["doc_ids"] == ["d2", "d4"] and rows[0]["relevance"] == [0, 0]


MIXED = Mixed(
    count=4,
    parts={
        "dense": MixedPart(share=1, sampler=RandomWindow(high=3)),
        "candidates": MixedPart(share=1, sampler=TopK()),
    },
)


def test_further_candidates(run, inputs):
    step = negatives(Groups(negatives=MIXED), others=(("dense", STEPS[0]), ("unused", STEPS[1])))
    assert list(step.inputs()) == ["candidates", "queries", "collection", "other_dense"]
    rows, counts = run(step, {**inputs, "other_dense": candidates(FURTHER)})
    assert rows[0]["doc_ids"][1:] == ["d7", "d6", "d3", "d4"]
    assert rows[0]["ranks"][1:] == [1, 2, 3, 4]
    assert rows[0]["sources"][1:] == ["dense", "dense", "candidates", "candidates"]
    assert rows[1]["doc_ids"] == ["d8", "d5", "d2", "d1"]
    assert only(counts, "negatives", "queries_without_dense") == {
        "negatives_from_dense": 2,
        "negatives_from_candidates": 5,
        "negatives_moved_between_parts": 1,
        "queries_without_dense": 2,  # q2 has an empty list, q3 none
    }


def test_a_near_copy_of_a_positive_is_no_negative(run, inputs):
    groups = Groups(negatives=MIXED, filters=[{"type": "near_duplicate"}])
    step = negatives(groups, others=(("dense", STEPS[0]),))
    further = {**inputs, "other_dense": candidates(FURTHER)}
    rows, counts = run(step, further)
    # q1: d7 copies the positive d1; d5 is the other positive of q1, so all is compared with it too
    assert rows[0]["doc_ids"][1:] == ["d6", "d3", "d4"]
    assert counts["removed_by_near_duplicate"] == 1
    uniform = Groups(negatives=Uniform(count=8), filters=[{"type": "near_duplicate"}])
    (first, _), found = run(negatives(uniform), inputs)
    assert set(first["doc_ids"][1:]) == {"d3", "d4", "d6", "d8"}
    assert found["removed_by_near_duplicate"] == 1


SCORES = {
    "q1": {"d1": 0.9, "d2": 0.1, "d3": 0.8, "d4": 0.88, "d5": 0.7},
    "q2": {"d8": 0.9, "d5": float("nan"), "d2": 0.3, "d1": float("inf")},
}
MARGIN = Groups(
    negatives=TopK(count=2),
    filters=[{"type": "absolute_margin", "margin": 0.05}],
    groups_per_query="each_positive",
)


def test_filters_by_teacher_scores(run, inputs):
    step = negatives(MARGIN, scores=STEPS[0])
    assert list(step.inputs()) == ["candidates", "queries", "collection", "scores"]
    rows, counts = run(step, {**inputs, "scores": teacher(SCORES)})
    assert [row["doc_ids"] for row in rows] == [["d1", "d3"], ["d8", "d2"]]
    assert only(
        counts, "removed", "teacher", "candidates_", "positives_w", "queries", "groups"
    ) == {
        "queries": 2,
        "groups": 2,
        "groups_with_fewer_negatives": 2,
        "removed_by_absolute_margin": 3,  # d4 below d1; d3 and d4 below d5, which has no group
        "positives_without_group": 1,
        "teacher_values_not_finite": 2,
        "candidates_without_teacher_score": 2,
        "queries_without_positive": 1,
    }


def test_a_teacher_without_a_finite_value(run, inputs):
    nothing = {"q1": {"d1": float("nan"), "d3": None}, "q2": {"d8": float("-inf")}}
    given = {**inputs, "scores": teacher(nothing)}
    with pytest.raises(ConfigError, match="expected finite values, found 3 of which none is"):
        run(negatives(MARGIN, scores=STEPS[0]), given)


def test_a_teacher_of_other_queries(run, inputs):
    given = {**inputs, "scores": teacher({"other": {"d1": 1.0}})}
    with pytest.raises(ConfigError, match="'queries_without_positive_score': 2"):
        run(negatives(MARGIN, scores=STEPS[0]), given)


def test_what_a_plan_lacks_is_refused_before_work():
    with pytest.raises(ConfigError, match=r"for the parts \['dense'\], found none"):
        negatives(Groups(negatives=MIXED))
    with pytest.raises(ConfigError, match="compare teacher scores; name a score teacher"):
        negatives(MARGIN)


# --- positives -----------------------------------------------------------------------------------


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


# --- groups of indices ---------------------------------------------------------------------------


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
