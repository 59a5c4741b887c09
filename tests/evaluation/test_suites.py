"""Suites against the registry of ir_datasets and what the field reports."""

from __future__ import annotations

import ir_datasets
import pytest

from raypipe.config import ConfigError
from raypipe.evaluation.measures import parse_measures
from raypipe.evaluation.suites import SUITES
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load

SETS = [one for members in SUITES.values() for one in members]


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_every_set_can_be_judged(one):
    data = ir_datasets.load(one.dataset)
    assert data.has_docs() and data.has_queries() and data.has_qrels()
    assert parse_measures(one.measures)
    assert one.positive_relevance == (2 if "trec-dl" in one.dataset else 1)


def test_sizes_and_names():
    sizes = {name: len(members) for name, members in SUITES.items()}
    assert sizes == {
        "trec-dl": 3, "dev-small": 1, "beir": 13, "nanobeir": 13, "lotte": 5, "robust04": 1
    }  # fmt: skip
    assert len({one.name for one in SETS}) == len({one.dataset for one in SETS}) == len(SETS)
    assert not any("/" in one.name for one in SETS)
    assert not any(one.dataset.startswith("beir/msmarco") for one in SETS)  # trained on


def test_a_recipe_names_suites_and_sets(recipe):
    given = [
        "evaluation.suites=[trec-dl, robust04]",
        "evaluation.suite_candidates={type: bm25, depth: 50}",
        "evaluation.sets={more: {queries: {dataset: vaswani}, depth: 5, measures: [AP]}}",
    ]
    one = load(Experiment, recipe, given)
    names = ["test", "more", "DL 2019", "DL 2020", "DL hard", "Robust04"]
    assert list(one.test_sets()) == names
    assert one.measures("DL 2019") == ("nDCG@10", "RR@10", "Judged@10", "AP@50")
    assert one.query_set("DL 2020").positive_relevance == 2
    assert (one.depth("more"), one.depth("DL hard"), one.depth()) == (5, 50, 10)
    assert one.source("DL 2019").depth == 50 and one.source("more") == one.candidates
    assert one.evaluation.suite_of("DL hard") == "trec-dl"
    assert one.evaluation.suite_of("more") == ""
    digests = {role: one.metrics(one.first_stage(role), role).digest for role in one.test_sets()}
    assert len(set(digests.values())) == len(names)


def test_beir_leaves_a_querys_own_text_out(recipe):
    one = load(Experiment, recipe, ["evaluation.suites=[beir, nanobeir, trec-dl]"])
    assert one.source("BEIR arguana").exclude_query_id is True
    assert one.source("Nano arguana").exclude_query_id is True
    assert one.source("DL 2019").exclude_query_id is False


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("evaluation.suites=[trec-dk]", "did you mean 'trec-dl'?"),
        ("evaluation.sets={test: {queries: {dataset: vaswani}}}", "sets.test: this name is taken"),
        ("evaluation.sets={a/b: {queries: {dataset: vaswani}}}", "expected a name without '/'"),
        (
            "evaluation.sets={a: {queries: {dataset: vaswani}, depth: 99}}",
            "evaluation.sets.a.depth: 99 is more than its candidates' depth=20",
        ),
        (
            "evaluation.sets={a: {queries: {dataset: vaswani}, measures: [nDGC@10]}}",
            "there is no 'nDGC'; did you mean 'nDCG'?",
        ),
    ],
)
def test_wrong_sets_are_refused(recipe, override, expected):
    with pytest.raises(ConfigError) as error:
        load(Experiment, recipe, [override])
    assert expected in str(error.value)
