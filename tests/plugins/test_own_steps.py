"""Sources and teachers of one's own that answer wrongly: counted, or an error that says what."""

from __future__ import annotations

import math

import pytest
from chunks_here import builder_here
from small_source import read, small_data

from raypipe.candidates.own_search import OwnSearch
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Store
from raypipe.teachers.own_teacher import OwnTeacher

HITS = [("d3", 1.0), ("d1", 5.0), ("nowhere", 9.0), ("d2", 5.0), ("d1", 2.0), ("d4", 0.5)]


class Fixed(OwnSearch):
    """The same hits for every query."""

    answer: str = "hits"

    def build(self, docs):
        assert (
            dict(zip(docs.ids().to_pylist(), docs.iter_texts(), strict=True))["d1"] == "text of d1"
        )
        answers = {
            "hits": lambda queries: [HITS for _ in queries],
            "few": lambda queries: [HITS],
            "nan": lambda queries: [[("d1", math.nan)] for _ in queries],
            "none": lambda queries: [[] for _ in queries],
        }
        return answers[self.answer]


class Lengths(OwnTeacher):
    """Something about each text."""

    answer: str = "values"

    def build(self, device):
        assert device == "cpu"

        def score(query, docs):
            assert query.startswith("about q")
            values = [float(doc[-1]) for doc in docs]
            return {"values": values, "nan": [math.nan, *values[1:]], "few": values[1:]}[
                self.answer
            ]

        return score


@pytest.fixture
def data(tmp_path):
    return small_data(tmp_path)


@pytest.fixture
def builder(tmp_path, monkeypatch):
    return builder_here(Store(str(tmp_path / "storage")), monkeypatch)


def test_hits_are_ordered_cut_and_counted(builder, data):
    found, counts, rows = read(builder, data, Fixed(depth=3))
    assert found["q0"] == ["d1", "d2", "d3"] and rows[0]["scores"] == [5.0, 5.0, 1.0]
    assert {k: v for k, v in counts.items() if k != "rows"} == {
        "candidates": 18, "queries_without_candidates": 0, "duplicates": 6,
        "unknown_documents": 6, "beyond_depth": 6,
    }  # fmt: skip


def test_queries_without_hits_are_counted(builder, data):
    found, counts, _ = read(builder, data, Fixed(answer="none"))
    assert set(map(tuple, found.values())) == {()} and counts["queries_without_candidates"] == 6


@pytest.mark.parametrize(
    ("answer", "words"),
    [("few", "expected hits of 6 queries, found 1"), ("nan", "a finite score, found nan")],
)
def test_wrong_hits_are_an_error(builder, data, answer, words):
    with pytest.raises(ValueError, match=words):
        read(builder, data, Fixed(answer=answer))


def values(builder, data, teacher):
    collection, queries = Collection(data), Queries(data, False)
    candidates = Fixed(depth=3).candidates(collection, queries, "fp32")
    lists = Lists(candidates, None, collection, queries, 2)
    artifact = builder.get(teacher.scores(lists, "fp32"))
    rows = {row["query_id"]: row for row in artifact.table().to_pylist()}
    return rows["q0"], artifact.counts


def test_a_teacher_gives_values_of_the_listed_documents(builder, data):
    row, counts = values(builder, data, Lengths())
    assert row == {"query_id": "q0", "doc_ids": ["d1", "d2"], "values": [1.0, 2.0]}
    assert counts["pairs"] == 12 and counts["values_not_finite"] == 0


def test_documents_without_a_value_are_left_out_and_counted(builder, data):
    row, counts = values(builder, data, Lengths(answer="nan"))
    assert row["doc_ids"] == ["d2"] and counts["values_not_finite"] == 6


def test_a_wrong_number_of_values_is_an_error(builder, data):
    with pytest.raises(ValueError, match=r"query 'q\d': expected 2 values, found 1"):
        values(builder, data, Lengths(answer="few"))


def test_what_changes_values_changes_the_digest(data):
    collection, queries = Collection(data), Queries(data, False)

    def digest(source, depth):
        lists = Lists(source.candidates(collection, queries, "fp32"), None, collection, queries, 2)
        return Lengths().scores(lists, "fp32").digest

    class Ranks(Lengths):
        """Another kind of values."""

        values = "rank"

    lists = Lists(Fixed().candidates(collection, queries, "fp32"), None, collection, queries, 2)
    steps = [Lengths(), Lengths(answer="nan"), Ranks()]
    assert len({teacher.scores(lists, "fp32").digest for teacher in steps}) == 3
    assert digest(Fixed(), 2) != digest(Fixed(answer="none"), 2)


def test_check_is_asked_before_work():
    class Absent(OwnSearch):
        """Needs an index."""

        def build(self, docs):
            return lambda queries: [[] for _ in queries]

        def check(self):
            raise ConfigError("there is no index; make one")

    with pytest.raises(ConfigError, match="no index"):
        Absent().check()
