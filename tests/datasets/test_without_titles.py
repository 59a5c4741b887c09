"""Documents as their text alone: titles leave, everything else stays."""

from __future__ import annotations

import json

import pytest

from raypipe.datasets.beir import BeirFolder
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.datasets.without_titles import WithoutTitles
from raypipe.synthesis.synthetic import Synthetic

DOCS = [("a", "Bees", "Bees eat nectar."), ("b", "", "No title."), ("c", "Only a title", "")]


@pytest.fixture
def folder(tmp_path):
    lines = [json.dumps({"_id": i, "title": title, "text": text}) for i, title, text in DOCS]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "bees"}))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    return tmp_path


def test_titles_leave(folder):
    whole = BeirFolder(str(folder), "test")
    alone = WithoutTitles(whole)
    assert dict(whole.docs())["a"] == "Bees Bees eat nectar."
    assert dict(alone.docs()) == {"a": "Bees eat nectar.", "b": "No title.", "c": ""}
    assert list(alone.titles()) == []
    assert alone.beginning(2).docs == list(alone.docs())[:2]
    assert list(alone.queries()) == [("q", "bees")] and list(alone.qrels()) == [("q", "a", 1)]
    assert alone.identity() == {**whole.identity(), "fields": "text"}


@pytest.mark.parametrize("kind", [QuerySet, Synthetic])
def test_a_query_set_says_which_fields_are_read(folder, kind):
    given = {"dataset": f"beir:{folder}", **({} if kind is Synthetic else {"split": "test"})}
    whole, alone = kind(**given), kind(**given, fields="text")
    assert isinstance(alone.open(), WithoutTitles) and not isinstance(whole.open(), WithoutTitles)
    assert Collection(whole).digest != Collection(alone).digest
    assert whole.semantic() == kind(**given, fields="title_and_text").semantic()
    if kind is QuerySet:
        assert Queries(whole, True).digest != Queries(alone, True).digest
