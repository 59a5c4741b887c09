"""A collection in files of any place: what is read, and which line is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.own_files import files_id
from raypipe.datasets.queries import select_queries
from raypipe.datasets.steps import QuerySet

DOCS = [("d1", "A title The first text"), ("d2", "Second")]
RECORDS = [
    {"_id": "d1", "title": "A title", "text": "The first text"},
    {"_id": "d2", "text": "Second"},
]


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def opened(tmp_path: Path, corpus: Path, **other: Path):
    queries = other.pop("queries", None) or write(tmp_path / "q.tsv", "q1\twhat\nq2\twho\n")
    dataset = open_dataset(files_id(corpus=corpus, queries=queries, **other))
    dataset.check()
    return dataset


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.tsv", "d1\tA title\tThe first text\nd2\t\tSecond\n"),
        ("c.tsv", "d1\tA title The first text\nd2\tSecond\n"),
        ("c.tsv.gz", "d1\thttp://x\tA title\tThe first text\r\nd2\thttp://y\t\tSecond\r\n"),
        ("c.jsonl", "\n".join(map(json.dumps, RECORDS))),
        ("c.jsonl.gz", "\ufeff" + "\n\n".join(map(json.dumps, RECORDS))),
        (
            "c.jsonl",
            '{"id": "d1", "contents": "A title The first text"}\n{"docid": "d2", "body": "Second"}',
        ),
    ],
)
def test_what_people_have(tmp_path, name, text):
    dataset = opened(tmp_path, write(tmp_path / name, text))
    assert list(dataset.docs()) == DOCS
    assert list(dataset.queries()) == [("q1", "what"), ("q2", "who")]
    assert list(dataset.qrels()) == []


def test_a_line_of_names_is_no_text(tmp_path):
    corpus = write(tmp_path / "c.tsv", "docid\ttitle\tText\nd1\tone\ttwo\n")
    queries = write(tmp_path / "q.tsv", "qid\tquery\nq1\twhat\n")
    dataset = opened(tmp_path, corpus, queries=queries)
    assert list(dataset.docs()) == [("d1", "one two")]
    assert list(dataset.queries()) == [("q1", "what")]
    data = write(tmp_path / "d.tsv", "id\tsome words that are none\n")
    assert list(opened(tmp_path, data).docs()) == [("id", "some words that are none")]


def test_judgements_choose_the_queries(tmp_path):
    corpus = write(tmp_path / "c.tsv", "d1\tone\n")
    qrels = write(tmp_path / "qrels.txt", "q2 0 d1 1\n")
    dataset = opened(tmp_path, corpus, qrels=qrels)
    chosen = select_queries(dataset)
    assert chosen.queries["query_id"].to_pylist() == ["q2"]
    assert chosen.counts["queries_without_qrels"] == 1
    everything = select_queries(dataset, keep_unjudged=True).queries["query_id"].to_pylist()
    assert sorted(everything) == ["q1", "q2"]


def test_content_decides_the_identity(tmp_path):
    one = write(tmp_path / "c.tsv", "d1\tone\n")
    (tmp_path / "other").mkdir()
    same = write(tmp_path / "other" / "renamed.tsv", "d1\tone\n")
    assert opened(tmp_path, one).identity() == opened(tmp_path, same).identity()
    assert opened(tmp_path, write(tmp_path / "c2.tsv", "d1\ttwo\n")).identity() != (
        opened(tmp_path, one).identity()
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.tsv", "d1\tone\nd2 two\n", r"c\.tsv:2: expected 2 to 4 tab-separated columns"),
        ("c.jsonl", '{"text": "one"}', r"c\.jsonl:1: expected an id under"),
        ("c.jsonl", '{"id": "d1", "words": "one"}', r"c\.jsonl:1: expected text under"),
        ("c.jsonl", '{"id": "d1"', r"c\.jsonl:1: expected one JSON object"),
        ("c.jsonl", "[1]", r"c\.jsonl:1: expected a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        list(opened(tmp_path, write(tmp_path / name, text)).docs())


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("files:corpus=/c.tsv", "name queries=FILE too"),
        ("files:corps=/c.tsv", "did you mean 'corpus'"),
        ("files:corpus=c.tsv,queries=/q.tsv", "absolute paths"),
        ("files:corpus=/none/c.tsv,queries=/q.tsv", "no file there"),
    ],
)
def test_an_id_that_names_no_files(dataset, words):
    with pytest.raises(ConfigError, match=words):
        QuerySet(dataset=dataset).open().check()


def test_files_have_no_split():
    with pytest.raises(ConfigError, match="files have no split 'test'"):
        QuerySet(dataset="files:corpus=/c.tsv,queries=/q.tsv", split="test").open()
