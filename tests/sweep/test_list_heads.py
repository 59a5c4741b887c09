"""Texts of the user's own data reach a page only as the recipe says."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from given_runs import candidates, queries

from raypipe.evaluation.report.first_documents import ListHeads
from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.sweep import list_heads as module
from raypipe.sweep.list_heads import first_documents, first_ids, tracked_documents


def rows_of(experiment: Experiment, builder: Builder) -> list[Row]:
    step = Metrics(experiment.first_stage("test"), experiment.queries("test"), ("nDCG@10",))
    return [Row("BM25", "first_stage", {}, first={"test": first_ids([step], builder)})]


@pytest.fixture
def made(recipe):
    """A function of `report.texts`: the recipe, and how its first stage begins."""

    def of(texts: str | None) -> tuple[Experiment, dict[str, ListHeads]]:
        given = [] if texts is None else [f"report.texts={texts}"]
        experiment = load(Experiment, recipe, given)
        builder = Builder(experiment.store(), context=SimpleNamespace(slots=None, has_ray=False))
        builder.get(experiment.first_stage("test"))
        return experiment, first_documents(rows_of(experiment, builder), experiment, builder)

    return of


def test_own_texts_are_shown_where_they_are_asked_for(made):
    experiment, found = made(None)
    (lists,) = found["test"].rows.values()
    assert all(len(ids) <= 3 for ids in lists.values()) and any(lists.values())
    assert not found["test"].queries and not found["test"].docs
    assert tracked_documents(found, experiment) == found

    experiment, found = made("local")
    ids = {doc_id for of in found["test"].rows["BM25"].values() for doc_id in of}
    assert found["test"].docs.keys() == ids and all(found["test"].docs.values())
    assert found["test"].queries.keys() == found["test"].rows["BM25"].keys()
    tracked = tracked_documents(found, experiment)
    assert tracked["test"] == found["test"].without_texts()

    experiment, found = made("tracked")
    assert tracked_documents(found, experiment) == found and found["test"].docs


def test_texts_of_public_data_are_always_tracked(made, monkeypatch):
    monkeypatch.setattr("raypipe.datasets.beir.BeirFolder.public", True)
    experiment, found = made(None)
    assert found["test"].docs and tracked_documents(found, experiment) == found


def test_what_a_page_cannot_hold_is_left_out(made, monkeypatch):
    monkeypatch.setattr(module, "MOST_LISTS", 3)
    assert made("local")[1] == {}


def test_a_run_that_is_gone_begins_with_nothing(tmp_path):
    step = Metrics(candidates({"q": {"a": 1.0}}), queries(q="a"), ("nDCG@10",))  # type: ignore[arg-type]
    builder = Builder(Store(str(tmp_path)))
    assert first_ids([step], builder) == {}
    builder.get(step.run_step)
    assert first_ids([step], builder) == {"q": ["a"]}
