"""Queries without a model: what is taken of a passage, what is dropped and counted."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest

from raypipe.recipe.reading import validate
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.synthesis.extractive import (
    Extraction,
    Extractive,
    WordCounts,
    first_sentence,
    keywords,
)
from raypipe.synthesis.generated import is_copy, why_dropped
from raypipe.synthesis.synthetic import Synthetic


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Cats  purr. Dogs bark.", "Cats purr."),
        ("Version 1.5 is out! Take it.", "Version 1.5 is out!"),
        ("No stop at all", "No stop at all"),
        ("A heading\n\nThe text.", "A heading"),
        ("一句话。第二句。", "一句话。"),
    ],
)
def test_first_sentences(text, sentence):
    assert first_sentence(text) == sentence


def test_keywords_weigh_frequency_and_rarity_and_stand_in_the_order_of_the_text():
    idf = {"the": 0.0, "cell": math.log(2), "kinase": math.log(10), "wall": math.log(4)}
    text = "the cell of the kinase: cell wall 17 and the wall of the cell"
    # tf x idf: cell 3 x .69, wall 2 x 1.39, kinase 1 x 2.30
    assert keywords(text, idf, 2) == "kinase wall"
    assert keywords(text, idf, 3) == "cell kinase wall"


def test_a_copy_is_more_than_half_of_the_passage():
    assert is_copy("Cats PURR", "cats  purr")
    assert is_copy("cats purr at night", "cats purr at night, often")
    assert not is_copy("cats purr", "cats purr, and dogs bark at the moon")
    assert not is_copy("purr cats", "cats purr")


def test_reasons_for_a_drop():
    assert why_dropped("?!", "passage", 5) == "dropped_empty"
    assert why_dropped("a b c d e f", "passage", 5) == "dropped_too_long"
    assert why_dropped("pas-sage", "Pas-sage", 5) == "dropped_copies_of_the_passage"
    assert why_dropped("a b", "passage", 5) is None


@pytest.fixture
def made(tmp_path):
    """Queries of six documents, and the counts."""
    docs = [
        {"_id": "a", "title": "On cats", "text": "Cats purr. They sleep and purr all day long."},
        {"_id": "b", "title": "", "text": "One single sentence about dogs that bark."},
        {"_id": "c", "title": "Moon", "text": "Moon. The moon is a satellite of the earth, dry."},
        {"_id": "d", "title": "Suns", "text": " ".join(f"w{i}x" for i in range(40)) + ". Suns."},
    ]
    lines = "".join(json.dumps(doc) + "\n" for doc in docs)
    (tmp_path / "corpus.jsonl").write_text(lines)

    def run(**fields):
        generator = Extractive(**fields)
        corpus = f"files:corpus={tmp_path}/corpus.jsonl"
        passages = Synthetic(dataset=corpus, generator=generator, passages=None).drawn()
        builder = Builder(Store(str(tmp_path / "storage")))
        inputs = {
            "passages": builder.get(passages),
            "collection": builder.get(passages.collection),
            "words": builder.get(WordCounts(passages)),
        }
        table, counts = Extraction(generator, inputs).build()(range(4))
        return {row["query_id"]: row for row in table.to_pylist()}, Counter(counts)

    return run


def test_queries_of_a_small_corpus(made):
    rows, counts = made(queries=("title", "first_sentence"))
    texts = {query_id: row["text"] for query_id, row in rows.items()}
    assert texts == {
        "a#title": "On cats",
        "a#first_sentence": "Cats purr.",
        "c#title": "Moon",
        "c#first_sentence": "Moon.",
        "d#title": "Suns",
    }
    assert all(row["query_id"] == f"{row['doc_id']}#{row['type']}" for row in rows.values())
    assert counts["passages_without_title"] == counts["dropped_copies_of_the_passage"] == 1
    assert counts["dropped_too_long"] == 1 and counts["queries"] == len(rows) == 5
    assert counts["queries_title"] == 3 and counts["queries_first_sentence"] == 2


def test_a_text_of_two_types_is_one_query(made):
    rows, counts = made(queries=("title", "keywords"), longest=5)
    assert len(rows["a#keywords"]["text"].split()) == 5
    assert "purr" in rows["a#keywords"]["text"]
    assert counts["dropped_repeated_for_a_passage"] == 0
    same = {"doc_id": "x", "split": "train", "title": ""}
    from raypipe.synthesis.generated import rows_of

    tally: Counter[str] = Counter()
    assert [r["type"] for r in rows_of(same, [("title", "A b"), ("web", "a  B")], tally)] == [
        "title"
    ]
    assert tally == {"queries_title": 1, "dropped_repeated_for_a_passage": 1}


def test_a_type_twice_is_refused():
    with pytest.raises(ValueError, match="found 'title' twice"):
        validate(Extractive, {"queries": ["title", "title"]}, "generator")
