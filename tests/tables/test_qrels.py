"""Judgements of TREC and of BEIR: what is read, and which line is wrong."""

from __future__ import annotations

import gzip

import pytest

from raypipe.config import ConfigError
from raypipe.tables.qrels import read_qrels

TREC = "q1 0 d1 2\nq1 Q0 d2\t0\n\nq2 0 d1 -1\n"
ROWS = [("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d1", -1)]


def read(tmp_path, text: str | bytes, name: str = "qrels.txt"):
    data = text.encode() if isinstance(text, str) else text
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    table, counts = read_qrels(tmp_path / name)
    return [tuple(row.values()) for row in table.to_pylist()], counts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TREC, "qrels.txt"),
        (TREC, "qrels.gz"),
        (TREC.replace("\n", "\r\n"), "crlf.txt"),
        ("\ufeff" + TREC, "bom.txt"),
        (TREC.replace("2\n", "2.0\n"), "pandas.txt"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n", "test.tsv"),
    ],
)
def test_what_people_have(tmp_path, text, name):
    assert read(tmp_path, text, name) == (ROWS, {"lines": 3, "duplicates": 0})


def test_of_two_judgements_the_highest_stays(tmp_path):
    rows, counts = read(tmp_path, "q1 0 d1 1\nq1 0 d1 3\nq1 0 d1 2\n")
    assert rows == [("q1", "d1", 3)] and counts == {"lines": 3, "duplicates": 2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q1 0 d1 1\nq1 d2 1\n", r"line 2: expected 4 columns .*found 3"),
        ("q1 0 d1 1\nq1 0 d2 yes\n", r"line 2: .*relevance, found 'yes'"),
        ("q1 0 d1 0.5\n", r"line 1: .*relevance, found '0\.5'"),
        ("q1 0 d1 nan\n", r"line 1: .*relevance"),
        ("q1 0 d1 inf\n", r"line 1: .*relevance"),
        ("q1 0 d1 3000000000\n", r"line 1: .*within 32 bits"),
        (b"q1 0 d\xff 1\n", r"line 1: expected UTF-8"),
        ("\n\n", r"expected judgements, found none"),
        ("", r"expected judgements, found none"),
        ("query-id\tcorpus-id\tscore\n", r"expected judgements, found none"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, text)


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="no file there"):
        read_qrels(tmp_path / "none")
