"""Suites whose data cannot be had are listed, whatever a download or a parser raises."""

from __future__ import annotations

import pytest

from raypipe.commands.checks import available, missing_notes
from raypipe.datasets.ir import IrDataset
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.builder import Builder


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
    from raypipe.config import ConfigError

    given = "evaluation.sets={a: {queries: {dataset: 'beir:/nowhere', split: test}}}"
    with pytest.raises(ConfigError, match=r"evaluation\.sets\.a: "):
        load(Experiment, recipe, [given]).check()
