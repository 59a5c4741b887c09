"""Judged documents that the collection lacks, and queries that are its documents; no cluster."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from raypipe.candidates.bm25.source import Bm25
from raypipe.commands.query_facts import QuerySetFacts, query_facts
from raypipe.commands.query_sets import NamedQueries, contents
from raypipe.config import ConfigError
from raypipe.datasets.steps import Queries, QuerySet
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder

DOCS = {"d1": "Mount Huangshan", "d2": "West Lake", "7": "the Great Wall"}
Facts = Callable[..., QuerySetFacts]


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    """Of judgements (query id, document id, relevance) and texts of queries by id."""

    def of(judged, texts=None, docs=DOCS, **source) -> QuerySetFacts:
        root = tmp_path / "set"
        (root / "qrels").mkdir(parents=True)
        asked = {q: f"question {q}" for q, _, _ in judged} | (texts or {})
        for name, rows in (("corpus", docs), ("queries", asked)):
            lines = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in rows.items())
            (root / f"{name}.jsonl").write_text("".join(lines))
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in judged)]
        (root / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
        queries = Queries(QuerySet(dataset=f"beir:{root}", split="test"), False)
        named = NamedQueries("data.test", queries, Bm25(**source))
        builder = Builder(Store(str(tmp_path / "store")))
        (found,) = query_facts([named], builder, contents(builder, make=True)).values()
        return found

    return of


def test_nothing_to_say(facts):
    found = facts([("q1", "d1", 1), ("q2", "d2", 0)])
    assert list(found.notes) == [] and found.counts == {
        "judged_documents": 2,
        "judged_documents_missing": 0,
        "queries_whose_relevant_documents_are_missing": 0,
        "queries_among_documents": 0,
    }


def test_missing_documents_are_counted_and_said(facts):
    found = facts([("q1", "d1", 1), ("q1", "x", 0), ("q2", "y", 1), ("q3", "d2", 1)])
    assert found.counts["judged_documents_missing"] == 2
    assert found.counts["queries_whose_relevant_documents_are_missing"] == 1
    (note,) = found.notes
    assert note.startswith("data.test: 2 of 4 judged documents are not in the collection")
    assert note.endswith("1 of 3 queries have no relevant document left")


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda doc_id: f"MED-{doc_id}", "(the collection has"),
        (str.lower, "4 of the first 4 of these are there in upper case"),
        (
            lambda doc_id: unicodedata.normalize("NFD", doc_id),
            "1 of the first 1 of these are there in another Unicode form (NFC)",
        ),
    ],
)
def test_judgements_of_another_id_scheme_are_an_error(facts, change, hint):
    ids = ["\u00c91"] if "NFC" in hint else ["A1", "A2", "A3", "A4"]
    judged = [(f"q{n}", change(doc_id), 1) for n, doc_id in enumerate(ids)]
    with pytest.raises(ConfigError) as error:
        facts(judged, docs=dict.fromkeys(ids, "text"))
    assert "none of the relevant ones is there" in str(error.value)
    assert hint in str(error.value)


def test_judged_but_irrelevant_documents_do_not_save_a_set(facts):
    with pytest.raises(ConfigError, match="every value would be 0"):
        facts([("q1", "d1", 0), ("q1", "gone", 2)])


def test_queries_that_are_documents(facts):
    """ArguAna: the query is a document, whose text begins with its title."""
    texts = {"d1": "huangshan", "d2": "West  Lake"}
    found = facts([("d1", "7", 1), ("d2", "7", 1), ("q", "7", 1)], texts)
    assert found.counts["queries_among_documents"] == 2
    (note,) = found.notes
    assert "2 of 3 queries are documents" in note and "exclude_query_id=true" in note


def test_a_recipe_that_leaves_them_out_hears_nothing(facts):
    found = facts([("d1", "7", 1)], {"d1": "Mount Huangshan"}, exclude_query_id=True)
    assert found.counts["queries_among_documents"] == 1 and not found.notes


def test_equal_numbers_are_coincidence(facts):
    found = facts([("7", "d1", 1)], {"7": "where is the lake"})
    assert found.counts["queries_among_documents"] == 0 and not found.notes
