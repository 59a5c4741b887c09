"""A training file as a data set of its own, with and without a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.queries import select_queries
from raypipe.datasets.text_match import hash_id

LINES = [
    {"query": "what is four", "pos": ["Four is a  number"], "neg": ["one is a number", ""]},
    {"query": "who is five", "pos": ["five is a number"], "neg": ["four is a number"]},
    {"query": "what is four", "pos": ["one is a number"], "neg": ["six is a number"]},
]
FOUR, ONE, FIVE, SIX = (f"{word} is a number" for word in ("four", "one", "five", "six"))


def written(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_texts_are_a_collection(tmp_path):
    dataset = open_dataset(f"training:{written(tmp_path / 'train.jsonl', LINES)}")
    dataset.check()
    texts = ["Four is a  number", ONE, FIVE, SIX]
    assert list(dataset.docs()) == [(hash_id(text), text) for text in texts]
    chosen = select_queries(dataset)
    assert dict(zip(*chosen.queries.to_pydict().values(), strict=True)) == {
        hash_id(text): text for text in ("what is four", "who is five")
    }
    judged = {(row["query_id"], row["doc_id"]) for row in chosen.qrels.to_pylist()}
    first, second = hash_id("what is four"), hash_id("who is five")
    assert judged == {(first, hash_id(FOUR)), (first, hash_id(ONE)), (second, hash_id(FIVE))}
    assert dataset.counts() == {}
    assert dataset.place_of("query", second) == f"{tmp_path / 'train.jsonl'}:2"
    again = open_dataset(f"training:{written(tmp_path / 'renamed.jsonl', LINES)}")
    assert again.identity() == dataset.identity()


def test_a_corpus_gives_its_ids_first(tmp_path):
    corpus = written(
        tmp_path / "c.jsonl",
        [{"sku": 7, "t": "FOUR", "b": "is a number"}, {"sku": 8, "t": "other", "b": None}],
    )
    train = written(tmp_path / "train.jsonl", LINES)
    named = f"training:{train},corpus={corpus},text={{t}} {{b}},doc_id=sku"
    dataset = open_dataset(named)
    dataset.check()
    counts = write_docs(dataset, tmp_path / "docs.arrow")
    assert counts == {
        "docs": 5,
        "empty_docs": 0,
        "duplicate_docs": 0,
        "training_texts_in_corpus": 1,
        "training_texts_not_in_corpus": 3,
    }
    assert [d for d, _ in dataset.docs()] == ["7", "8", hash_id(ONE), hash_id(FIVE), hash_id(SIX)]
    judged = [doc_id for _, doc_id, _ in dataset.qrels()]
    assert judged == ["7", hash_id(FIVE), hash_id(ONE)]
    assert dataset.identity() != open_dataset(f"training:{train}").identity()
    assert dataset.text_template == "{t} {b}"


def test_ids_of_the_file_stay(tmp_path):
    passages = {"positive_passages": [{"docid": "4", "title": "", "text": FOUR}]}
    line = {"query_id": "10", "query": "what", **passages, "negative_passages": []}
    train = written(tmp_path / "train.jsonl", [line])
    dataset = open_dataset(f"training:{train}")
    assert list(dataset.docs()) == [("4", FOUR)] and list(dataset.qrels()) == [("10", "4", 1)]
    corpus = written(tmp_path / "c.jsonl", [{"id": "4", "text": "another text"}])
    beside = open_dataset(f"training:{train},corpus={corpus}")
    assert list(beside.qrels()) == [("10", hash_id(FOUR), 1)]  # no other document's id


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("training:train.jsonl", "an absolute path"),
        ("training:/none/train.jsonl", "no file there"),
        ("training:/a.jsonl,corpus=c.jsonl", "expected absolute paths"),
        ("training:IDS", "found ColBERT triples, which have ids alone; .* groups.triples.path"),
        ("training:LINES", "found lines of ids, which have ids alone"),
    ],
)
def test_what_is_no_data_set(tmp_path, dataset, words):
    (tmp_path / "IDS").write_text("[10, 4, 1]\n")
    (tmp_path / "LINES").write_text("10\t4\t1\n")
    with pytest.raises(ConfigError, match=words):
        open_dataset(
            dataset.replace("IDS", f"{tmp_path}/IDS").replace("LINES", f"{tmp_path}/LINES")
        ).check()


def test_a_file_has_no_split(tmp_path):
    with pytest.raises(ConfigError, match="a file has no split 'train'"):
        open_dataset(f"training:{tmp_path}/train.jsonl", "train")
