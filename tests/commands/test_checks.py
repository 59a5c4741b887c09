"""What is checked before work: held-out queries, what trials have in common, sets of suites."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.commands.checks import (
    available,
    check_held_out,
    check_judged,
    differences,
    missing_notes,
)
from raypipe.commands.compare import plan_of
from raypipe.commands.mine import run
from raypipe.commands.query_sets import contents
from raypipe.commands.search import run_or_plan as search
from raypipe.config import ConfigError
from raypipe.datasets.ir import IrDataset
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import Trial, expand
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable

# --- queries that train, that choose, and that judge ----------------------------------------------


def check(recipe: Path, *overrides: str) -> Experiment:
    experiment = load(Experiment, recipe, overrides)
    check_held_out([experiment], contents(Builder(experiment.store()), make=True))
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


def other_folder(beir_folder, tmp_path, texts: dict[str, str]) -> str:
    """The same collection and a split `again` of further queries, which copy these texts."""
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        (other / name).write_bytes((beir_folder / name).read_bytes())
    with (other / "queries.jsonl").open("a") as file:
        file.writelines(json.dumps({"_id": q, "text": t}) + "\n" for q, t in texts.items())
    lines = ["query-id\tcorpus-id\tscore", *(f"{q}\td000\t1" for q in texts)]
    (other / "qrels" / "again.tsv").write_text("\n".join(lines) + "\n")
    return f"{{dataset: 'beir:{other}', split: again}}"


def texts_of(beir_folder) -> list[str]:
    lines = (beir_folder / "queries.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("role", ["test", "validation"])
def test_the_same_questions_under_other_ids(recipe, beir_folder, tmp_path, role):
    """Half of the set and more: it measures nothing."""
    train = texts_of(beir_folder)[:3]
    texts = {"n1": train[0].upper(), "n2": train[1].replace(" ", "  "), "n3": "something new"}
    message = refused(recipe, f"data.{role}={other_folder(beir_folder, tmp_path, texts)}")
    assert message.startswith(
        f"data.{role}: 2 of its 3 queries have the text of a query in data.train, for example"
    )


def test_some_equal_questions_are_said(recipe, beir_folder, tmp_path):
    new = {f"n{i}": f"question number {i}" for i in range(3)}
    texts = {"same": texts_of(beir_folder)[40], **new}  # of a validation query
    split = other_folder(beir_folder, tmp_path, texts)
    experiment = load(Experiment, recipe, [f"data.test={split}"])
    read = contents(Builder(experiment.store()), make=True)
    (note,) = check_held_out([experiment], read)
    assert note.startswith(
        "data.test: 1 of its 4 queries have the text of a query in data.validation, for example "
        "'same'"
    )


def test_equal_questions_of_another_collection_are_said(recipe, beir_folder, tmp_path):
    texts = {f"n{i}": text for i, text in enumerate(texts_of(beir_folder)[:3])}
    split = other_folder(beir_folder, tmp_path, texts)
    with (tmp_path / "other" / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "more", "text": "another document"}\n')
    experiment = load(Experiment, recipe, [f"data.test={split}"])
    read = contents(Builder(experiment.store()), make=True)
    (note,) = check_held_out([experiment], read)
    assert "3 of its 3 queries have the text of a query in data.train" in note


def test_mining_refuses_before_a_cluster_starts(recipe, beir_folder, monkeypatch):
    monkeypatch.setattr("raypipe.commands.mine.connect", lambda *a: pytest.fail("started"))
    train = f"data.train={{dataset: 'beir:{beir_folder}', split: test}}"
    with pytest.raises(ConfigError, match="12 of its 12 queries are in"):
        run(load(Experiment, recipe, [train]), lambda line: None)


# --- what the trials of a sweep have in common ----------------------------------------------------


def read(recipe, space, *more: str, mode: str = "compare") -> Experiment:
    sweep = json.dumps({"mode": mode, "space": space})
    given = [f"sweep={sweep}", "order=contrastive", "reference=null", *more]
    return load(Experiment, recipe, given)


def trials(recipe, space, *more: str) -> list[Trial]:
    return expand(read(recipe, space, *more))


TWO = ["nDCG@10", "AP"]
SETS = 'evaluation.sets={"deep": {"queries": %s, "depth": 15}}'


@pytest.mark.parametrize(
    ("key", "values", "named"),
    [
        ("data.test.limit", [4, 8], "data.test.limit: 8 in trial '8', 4 in '4'"),
        ("data.test.skip", [0, 2], "data.test.skip: 2"),
        ("data.test.positive_relevance", [1, 2], "data.test.positive_relevance: 2"),
        ("evaluation.measures", {"a": TWO[:1], "b": TWO}, "evaluation.measures: AP"),
        ("evaluation.suites", {"a": [], "b": ["nanobeir"]}, "evaluation.suites: nanobeir"),
        (
            "evaluation.sets.deep.measures",
            {"a": ["nDCG@10"], "b": ["AP"]},
            "evaluation.sets.deep.measures: AP",
        ),
        ("evaluation.sets.deep.queries.limit", [3, 4], "evaluation.sets.deep.queries.limit: 4"),
        ("recipe", {"a": {"data.test.limit": 4}, "b": {"seed": 2}}, "data.test.limit: None"),
    ],
)
def test_other_queries_or_measures_are_an_error_before_work(recipe, key, values, named):
    data = load(Experiment, recipe).data.test.dataset
    further = SETS % json.dumps({"dataset": data, "split": "test"})
    with pytest.raises(ConfigError) as error:
        plan_of(read(recipe, {key: values}, further))
    assert str(error.value).startswith(named)
    assert "take this key out of sweep.space" in str(error.value)


def test_a_search_is_judged_on_the_same_queries_too(recipe):
    for key in ("data.test.limit", "data.validation.limit"):
        with pytest.raises(ConfigError, match=rf"{key}: 8 in trial '8', 4 in '4'"):
            search(read(recipe, {key: [4, 8]}, mode="search"), True)


def test_what_is_trained_may_differ(recipe):
    space = {"stages.contrastive.lr": [1e-3, 1e-4], "groups.negatives.count": [1, 2]}
    found = trials(recipe, space)
    check_judged(found)
    assert len(found) == 4 and differences(found) == []


@pytest.mark.parametrize(
    ("key", "values", "named"),
    [
        ("candidates.depth", [20, 30], "candidates"),
        ("evaluation.depth", [5, 10], "evaluation.depth"),
        ("truncation.max_length", [32, 48], "truncation"),
        ("data.validation.limit", [4, 8], "data.validation"),
        ("evaluation.sets.deep.depth", [5, 15], "evaluation.sets.deep.depth"),
    ],
)
def test_what_is_shown_once_is_named(recipe, key, values, named):
    data = load(Experiment, recipe).data.test.dataset
    further = SETS % json.dumps({"dataset": data, "split": "test"})
    comparison, _ = plan_of(read(recipe, {key: values}, further))
    assert differences(comparison.trials) == [named]
    assert comparison.shown_once() == [
        f"the trials differ in {named}: titles, first stage, teacher and oracle are those of "
        f"'{values[0]}'"
    ]


# --- test sets of suites --------------------------------------------------------------------------


def test_what_cannot_be_had_is_listed_and_the_rest_is_there(recipe, monkeypatch):
    def queries(self):
        if "2019" in self.dataset_id:
            raise ConnectionError("no network\nand more")
        if "2020" in self.dataset_id:
            raise RuntimeError("please sign the agreement")
        yield "q1", "a question"

    monkeypatch.setattr(IrDataset, "queries", queries)
    monkeypatch.setattr(IrDataset, "qrels", lambda self: iter([("q1", "d1", 2)]))
    monkeypatch.setattr(IrDataset, "docs", lambda self: iter([("d1", "an answer")]))
    one = load(Experiment, recipe, ["evaluation.suites=[trec-dl]"])
    roles, missing = available(one, Builder(one.store()))
    assert roles == ("test", "DL hard")
    assert missing == {"DL 2019": "no network", "DL 2020": "please sign the agreement"}
    assert missing_notes(one, missing)[0] == (
        "DL 2019 (msmarco-passage/trec-dl-2019/judged) could not be had: no network"
    )


def test_a_recipes_own_set_must_be_there(recipe):
    given = "evaluation.sets={a: {queries: {dataset: 'beir:/nowhere', split: test}}}"
    with pytest.raises(ConfigError, match=r"evaluation\.sets\.a: "):
        load(Experiment, recipe, [given]).check()
