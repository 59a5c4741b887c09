"""Passages that say what another says, and the drawing of those that queries are written for."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest

from raypipe.config import ConfigError
from raypipe.datasets.steps import Queries, QuerySet
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.synthesis.contained import contained, plain_form
from raypipe.synthesis.held_out import HeldOut, without_documents
from raypipe.synthesis.passages import (
    LEFT_OUT_FILE,
    body_of,
    drawn_order,
    read_left_out,
    read_passages,
)
from raypipe.synthesis.synthetic import Synthetic


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Émile's  3rd BOOK.", "emile s rd book"),
        ("ﬁne １２ x_y", "fine x y"),  # a ligature, full width digits  # noqa: RUF001
        ("  2 + 2 = 4 ", ""),
        ("蛋白质 结构。", "蛋白质 结构"),
    ],
)
def test_plain_forms(text, form):
    assert plain_form(text) == form


def test_a_text_within_another_leaves_and_of_equal_ones_the_first_stays():
    beginning, whole, end = "alpha beta", "alpha beta gamma delta", "gamma delta"
    assert contained([beginning, whole, end, "epsilon", whole]) == {0, 2, 4}


def test_only_the_next_nine_of_a_sorted_list_are_looked_at():
    def between(letters: str) -> list[str]:
        """Both lists put `letters` many texts between "aab" and the one that contains it."""
        return ["aab", *[f"aac{letter}" for letter in letters], "xaaby"]

    assert contained(between("cdefghij")) == {0}
    assert contained(between("cdefghijk")) == set()


def test_a_body_is_the_text_without_its_title():
    assert body_of("Cats Cats purr.", "Cats") == "Cats purr."
    assert body_of("Dogs bark.", "Cats") == "Dogs bark."


def test_a_larger_draw_only_adds():
    ids = [f"d{i}" for i in range(50)]
    order = drawn_order(ids, 1)
    assert order == drawn_order(reversed(ids), 1) != drawn_order(ids, 2)
    assert [i for i in drawn_order([*ids, "new"], 1) if i != "new"] == order


# --- the step -------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    """Thirty documents with titles; one short, one copy, one without title; no queries at all."""
    letters = "abcdefghijklmnopqrstuvwxyzβδζλ"
    docs = [
        {"_id": f"d{i}", "title": f"Title {i}", "text": f"{letters[i] * 5} says {letters[i] * 9}."}
        for i in range(30)
    ]
    docs[3]["text"] = "1 2 3"
    docs[4]["text"] = "fffff says"
    docs[6]["title"] = ""
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return folder


def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def of(corpus, **fields) -> Synthetic:
    return Synthetic(dataset=f"beir:{corpus}", **fields)


def test_a_corpus_alone_is_enough_and_splits_share_no_passage(corpus, tmp_path):
    synthetic = of(corpus, passages=20, validation_share=0.2, hold_out=HeldOut(passages=5))
    synthetic.check()
    artifact = builder(tmp_path).get(synthetic.drawn())
    rows = read_passages(artifact).to_pylist()
    assert Counter(row["split"] for row in rows) == {"train": 16, "validation": 4, "test": 5}
    assert len({row["doc_id"] for row in rows}) == 25
    drawn = {row["doc_id"]: row["title"] for row in rows}
    assert not {"d3", "d4"} & drawn.keys()
    assert all(title == f"Title {i[1:]}" for i, title in drawn.items() if i != "d6")
    assert artifact.counts["documents_left_out_copy"] == 1
    assert artifact.counts["documents_left_out_too_short"] == 1
    assert artifact.counts["documents_left_out_held_out"] == 5
    held_out = {row["doc_id"] for row in rows if row["split"] == "test"}
    assert read_left_out(artifact) == held_out | {"d3", "d4"}


def test_more_passages_than_there_are_is_counted(corpus, tmp_path):
    artifact = builder(tmp_path).get(of(corpus, passages=100).drawn())
    assert artifact.counts["passages_missing"] == 72
    assert artifact.counts["passages_train"] + artifact.counts["passages_validation"] == 28


def test_a_corpus_smaller_than_what_is_held_out_is_refused(corpus, tmp_path):
    small = of(corpus, hold_out=HeldOut(passages=27))
    with pytest.raises(ConfigError, match=r"at least 2 beside the 27 .* found 28 that .*_copy.: 1"):
        builder(tmp_path).get(small.drawn())


def test_what_the_test_judges_is_held_out(corpus, tmp_path):
    (corpus / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "what"}) + "\n")
    (corpus / "qrels").mkdir()
    lines = "query-id\tcorpus-id\tscore\nq1\td7\t1\nq1\td8\t0\n"
    (corpus / "qrels" / "test.tsv").write_text(lines)
    human = QuerySet(dataset=f"beir:{corpus}", split="test")
    synthetic = of(corpus, passages=None, hold_out="test_judged").judged_by(human)
    assert synthetic.test == human and synthetic.judged_by(synthetic) is synthetic
    drawn = synthetic.drawn()
    assert isinstance(drawn.judged, Queries)
    artifact = builder(tmp_path).get(drawn)
    assert not {"d7", "d8"} & set(read_passages(artifact)["doc_id"].to_pylist())
    reasons = pq.read_table(artifact.local() / LEFT_OUT_FILE).to_pylist()
    assert [r["doc_id"] for r in reasons if r["reason"] == "held_out"] == ["d7", "d8"]


def test_what_is_held_out_needs_test_queries_of_people_over_the_same_documents(corpus, beir_folder):
    with pytest.raises(ConfigError, match="needs test queries that people judged"):
        of(corpus, hold_out="test_judged").judged_by(of(corpus)).drawn()
    other = QuerySet(dataset=f"beir:{beir_folder}", split="test")
    with pytest.raises(ConfigError, match="other documents"):
        of(corpus, hold_out="test_judged").judged_by(other).drawn()


def test_lists_without_documents_count_their_ranks_anew():
    row = {
        "query_id": "q",
        "doc_ids": ["a", "b", "c"],
        "ranks": [1, 2, 3],
        "scores": [3.0, 2.0, 1.0],
        "sources": ["bm25"] * 3,
    }
    left = without_documents(row, {"b"})
    assert (left["doc_ids"], list(left["ranks"]), left["scores"]) == (["a", "c"], [1, 2], [3, 1])
