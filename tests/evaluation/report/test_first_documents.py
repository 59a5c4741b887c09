"""How rows' lists begin: written, read again, without texts, beside another job's."""

from __future__ import annotations

import json

from report_rows import FIRST

from raypipe.evaluation.report.first_documents import (
    MOST_CHARACTERS,
    ListHeads,
    beginning,
)


def test_json_is_read_as_it_was_written():
    assert ListHeads.of_json(json.loads(json.dumps(FIRST.json()))) == FIRST


def test_without_texts_there_are_ids():
    bare = FIRST.without_texts()
    assert bare.rows == FIRST.rows and not bare.queries and not bare.docs


def test_two_jobs_side_by_side():
    other = ListHeads({"BM25": {"q0": ["d9"]}}, {"q9": "nine"}, {"d9": "ninth"})
    found = FIRST.beside(other.renamed({"BM25": "BM25 (later)"}))
    assert set(found.rows) == {"BM25", "MiniLM | mnrl > kl", "BM25 (later)"}
    assert found.queries["q9"] == "nine" and found.docs["d1"] == "The first document"


def test_the_beginning_of_a_text_is_one_short_line():
    assert beginning("two\n  lines") == "two lines"
    long = beginning("x" * 1000)
    assert len(long) == MOST_CHARACTERS and long.endswith("…")
