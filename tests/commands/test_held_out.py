"""Queries that are trained on and queries that choose or judge; needs no cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.commands.checks import check_held_out
from raypipe.commands.mine import run
from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable


def check(recipe: Path, *overrides: str) -> Experiment:
    experiment = load(Experiment, recipe, overrides)
    check_held_out([experiment], Builder(experiment.store()))
    return experiment


def refused(recipe: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        check(recipe, *overrides)
    return str(error.value)


def own_queries(query_set: str) -> str:
    return f"stages.distil.groups={{negatives: {{type: top_k}}, queries: {query_set}}}"


@pytest.fixture
def whole(beir_folder) -> str:
    """All 36 training queries, as a stage of its own may name them."""
    return own_queries(f"{{dataset: 'beir:{beir_folder}', split: train}}")


def test_three_splits_are_disjoint(recipe):
    check(recipe)


def test_a_stage_that_trains_on_validation_queries(recipe, beir_folder, whole):
    """As in a recipe whose first stage skips the validation queries and whose second forgets to."""
    data = f"{{dataset: 'beir:{beir_folder}', split: train"
    apart = [f"data.train={data}, skip: 5}}", f"data.validation={data}, limit: 5}}"]
    check(recipe, *apart)
    message = refused(recipe, *apart, whole)
    assert message.startswith("stages.distil.groups.queries: 5 of its 36 queries are in data.")
    assert "set stages.distil.groups.queries.skip=5" in message
    check(recipe, *apart, whole.replace("split: train}", "split: train, skip: 5}"))


def test_the_remedy_is_right_where_the_two_sets_count_differently(recipe, beir_folder, tmp_path):
    """The larger set, of `positives: any`, has queries between those of the smaller one."""
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (other / name).write_bytes((beir_folder / name).read_bytes())
    for split, wanted in (("judged", range(0, 36, 2)), ("all", range(36))):
        lines = [f"q{i:02d}\td{i:03d}\t1" for i in wanted]
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines, ""])
        (other / "qrels" / f"{split}.tsv").write_text(text)
    data = f"{{dataset: 'beir:{other}', split: judged"
    apart = [f"data.train={data}, skip: 8}}", f"data.validation={data}, limit: 8}}",
             f"data.test={{dataset: 'beir:{beir_folder}', split: test}}"]  # fmt: skip
    larger = own_queries(f"{{dataset: 'beir:{other}', split: all, skip: SKIP}}")
    message = refused(recipe, *apart, larger.replace("SKIP", "0"))
    skip = int(message.split("skip=")[1].split(":")[0])
    assert skip > 8  # as many of the smaller set would not do
    check(recipe, *apart, larger.replace("SKIP", str(skip)))
    message = refused(recipe, *apart, larger.replace("SKIP", str(skip - 1)))
    assert "1 of its" in message and f"skip={skip}" in message


def test_the_recipes_own_training_queries(recipe, beir_folder):
    train = f"data.train={{dataset: 'beir:{beir_folder}', split: test}}"
    message = refused(recipe, train)
    assert message.startswith("data.train: 12 of its 12 queries are in data.test too, for example")
    assert "part these by `limit` in data.test and as large a `skip` in data.train" in message


def test_validation_queries_choose_and_so_are_no_test_queries(recipe, beir_folder):
    same = f"data.validation={{dataset: 'beir:{beir_folder}', split: test, limit: 4}}"
    assert refused(recipe, same).startswith("data.validation: 4 of its 4 queries are in data.test")


def test_further_test_sets_are_held_out_as_well(recipe, beir_folder):
    data = f"{{dataset: 'beir:{beir_folder}', split: train"
    again = f"{{queries: {data}, limit: 3}}, depth: 5}}"
    message = refused(recipe, f"evaluation.sets={{deep: {again}}}")
    assert message.startswith("data.train: 3 of its 36 queries are in evaluation.sets.deep.queries")
    assert "data.train.skip=3" in message
    same = f"{{queries: {data.replace('train', 'test')}}}, depth: 5}}"
    check(recipe, f"evaluation.sets={{deep: {same}}}")  # as data.test, over other lists


def test_equal_ids_of_another_collection_are_coincidence(recipe, beir_folder, tmp_path):
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    (other / "corpus.jsonl").write_text(json.dumps({"_id": "d048", "text": "else"}) + "\n")
    (other / "queries.jsonl").write_bytes((beir_folder / "queries.jsonl").read_bytes())
    qrels = (beir_folder / "qrels" / "test.tsv").read_text()
    (other / "qrels" / "test.tsv").write_text(qrels)
    experiment = check(recipe, f"data.train={{dataset: 'beir:{other}', split: test}}")
    store = experiment.store()
    ids = [
        set(TextTable(found.local() / QUERIES_FILE).ids().to_pylist())
        for found in (store.find(experiment.queries(role)) for role in ("train", "test"))
        if found is not None
    ]
    assert ids[0] & ids[1]


def test_mining_refuses_before_a_cluster_starts(recipe, beir_folder, monkeypatch):
    monkeypatch.setattr("raypipe.commands.mine.connect", lambda *a: pytest.fail("started"))
    train = f"data.train={{dataset: 'beir:{beir_folder}', split: test}}"
    with pytest.raises(ConfigError, match="12 of its 12 queries are in"):
        run(load(Experiment, recipe, [train]), lambda line: None)
