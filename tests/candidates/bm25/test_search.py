"""BM25 search against the formula in plain Python, and its rules for ties and zeros."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from bm25_tiny import PLAIN, search_of
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.bm25 import search as bm25_search
from raypipe.candidates.bm25 import source
from raypipe.candidates.bm25.search import Bm25Search
from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.bm25.vocabulary import Bm25Options
from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries, QuerySet
from raypipe.records import QUERIES

WORDS = ["apple", "pear", "plum", "fig", "kiwi", "lime"]


@pytest.fixture(params=["numpy", "numba"])
def backend(request, monkeypatch) -> str:
    """Both ways to score, however small the work is."""
    monkeypatch.setattr(bm25_search, "NUMBA_WORK", 0 if request.param == "numba" else 10**18)
    return request.param


def found(search: Bm25Search, docs: dict[str, str], query: str, depth: int) -> dict[str, float]:
    """Document id to score, best first."""
    ((positions, scores),) = search([query], depth)
    assert positions.dtype == np.int64 and scores.dtype == np.float32
    ids = list(docs)
    return {ids[p]: float(s) for p, s in zip(positions, scores, strict=True)}


def naive(docs: dict[str, str], query: str, k1: float = 1.5, b: float = 0.75) -> dict[str, float]:
    """Lucene's BM25 (Kamphuis et al. 2020, without the constant k1 + 1), a term counted as often
    as the query has it; every document above 0, ties by id."""
    terms = {doc_id: Counter(text.split()) for doc_id, text in docs.items()}
    mean = sum(sum(t.values()) for t in terms.values()) / len(docs)
    scores = {}
    for doc_id, counts in terms.items():
        norm = k1 * (1 - b + b * sum(counts.values()) / mean)
        score = 0.0
        for word in query.split():
            having = sum(word in t for t in terms.values())
            idf = math.log(1 + (len(docs) - having + 0.5) / (having + 0.5))
            score += idf * counts[word] / (counts[word] + norm) if counts[word] else 0.0
        if score > 0:
            scores[doc_id] = score
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)


@settings(deadline=None, max_examples=25, database=None)
@given(st.lists(texts, min_size=2, max_size=50), texts, st.integers(1, 60), st.randoms())
def test_the_ranking_is_that_of_the_formula(tmp_path_factory, corpus, query, depth, rng):
    ids = [f"d{i:02d}" for i in range(len(corpus))]
    rng.shuffle(ids)  # rows are not in the order of ids
    docs = dict(zip(ids, corpus, strict=True))
    search = search_of(tmp_path_factory.getbasetemp() / "bm25", docs)
    got, full = found(search, docs, query, depth), naive(docs, query)
    assert len(got) == min(depth, len(full))
    for doc_id, score in got.items():
        assert score == pytest.approx(full[doc_id], rel=1e-5)
    order = list(got.items())
    assert order == sorted(order, key=lambda item: (-item[1], item[0]))
    missed = [score for doc_id, score in full.items() if doc_id not in got]
    assert not missed or max(missed) <= min(got.values()) * (1 + 1e-5)


@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.2, 0.0), (0.0, 0.75)])
def test_k1_and_b(tmp_path, k1, b):
    docs = {"a": "fig fig kiwi", "b": "fig lime lime lime lime", "c": "plum"}
    search = search_of(tmp_path / "i", docs, PLAIN.replace(k1=k1, b=b))
    expected = naive(docs, "fig lime", k1, b)
    got = found(search, docs, "fig lime", 3)
    assert list(got) == list(expected) and set(got) == {"a", "b"}
    assert list(got.values()) == pytest.approx(list(expected.values()), rel=1e-5)


def test_ties_are_broken_by_document_id_at_every_depth(tmp_path, backend):
    ids = [f"d{i:02d}" for i in np.random.default_rng(0).permutation(60)]
    docs = dict.fromkeys(ids, "fig kiwi") | {"zz": "fig fig fig", "yy": "plum plum"}
    search = search_of(tmp_path / "i", docs)
    for depth in (1, 2, 25, 28, 29, 30, 59, 61, 99):
        assert list(found(search, docs, "fig", depth)) == ["zz", *sorted(ids)][:depth]


def test_more_ties_than_are_fetched_at_first(tmp_path, backend):
    """Depth 10 fetches 42, then 168, then all 700: the first ids may be anywhere."""
    ids = [f"d{i:03d}" for i in range(700)][::-1]
    docs = dict.fromkeys(ids, "fig kiwi") | {"other": "plum"}
    search = search_of(tmp_path / "i", docs)
    assert list(found(search, docs, "kiwi", 10)) == [f"d{i:03d}" for i in range(10)]
    queries = ["kiwi", "plum", "none", "fig"]  # fetched again are those with ties alone
    results = [positions.tolist() for positions, _ in search(queries, 10)]
    assert results == [list(range(699, 689, -1)), [700], [], list(range(699, 689, -1))]


def test_score_zero_is_no_candidate(tmp_path, backend):
    docs = {"a": "fig", "b": "kiwi", "c": "kiwi fig", "d": "lime", "e": "plum"}
    search = search_of(tmp_path / "i", docs)
    assert list(found(search, docs, "kiwi", 5)) == ["b", "c"]
    assert list(found(search, docs, "kiwi unheard", 5)) == ["b", "c"]
    assert list(found(search, docs, "kiwi", 1)) == ["b"]


def test_depth_beyond_the_collection(tmp_path, backend):
    docs = {"a": "fig kiwi", "b": "fig"}
    search = search_of(tmp_path / "i", docs)
    assert list(found(search, docs, "fig", 1000)) == ["b", "a"]


@pytest.mark.parametrize("query", ["unheard", "of the", "", "x", "?!"])
def test_a_query_without_a_known_term_has_no_candidates(tmp_path, query):
    docs = {"a": "fig kiwi", "b": "fig plum", "c": "the of", "d": "?!"}  # c, d: no terms left
    search = search_of(tmp_path / "i", docs, Bm25Options())
    assert found(search, docs, query, 4) == {}
    results = search([query, "kiwi", query], 4)
    assert [positions.tolist() for positions, _ in results] == [[], [0], []]


def test_no_queries(tmp_path):
    assert search_of(tmp_path / "i", {"a": "fig"})([], 3) == []


def test_stems_and_stopwords(tmp_path):
    docs = {"a": "the running dogs", "b": "a dog is the best"}
    search = search_of(tmp_path / "i", docs, Bm25Options())
    assert set(found(search, docs, "Runs", 4)) == {"a"}
    assert set(found(search, docs, "DOG the", 4)) == {"a", "b"}
    assert Bm25Options().tokenize(["The running, dogs!"]) == [["run", "dog"]]
    assert PLAIN.tokenize(["The running, dogs!"]) == [["the", "running", "dogs"]]


@pytest.mark.parametrize(
    ("docs", "query", "best"),
    [
        ({"a": "黄山是名山", "b": "西湖在杭州"}, "西湖在哪里", "b"),
        ({"a": "東京タワーの高さ", "b": "富士山の高さ"}, "富士山はどこ", "b"),
        ({"a": "ภูเขาไฟฟูจิ", "b": "แม่น้ำเจ้าพระยา"}, "เจ้าพระยาอยู่ที่ไหน", "b"),
        ({"a": "山 river", "b": "BERT模型"}, "how bert works", "b"),
    ],
)
def test_scripts_without_spaces(tmp_path, docs, query, best):
    """By words, the first three queries find nothing."""
    options = Bm25Options(analyser="ngrams")
    assert next(iter(found(search_of(tmp_path / "i", docs, options), docs, query, 2))) == best
    by_words = search_of(tmp_path / "w", docs, Bm25Options(analyser="words"))
    assert found(by_words, docs, query, 2) == {}


@settings(deadline=None)
@given(st.text(alphabet="aB cé.1'\n", max_size=30))
def test_ngrams_leave_text_with_spaces_as_it_is(text):
    assert Bm25Options(analyser="ngrams").tokenize([text]) == Bm25Options().tokenize([text])


def test_a_query_does_not_depend_on_the_others(tmp_path):
    rng = np.random.default_rng(5)
    docs = {f"d{i:03d}": " ".join(rng.choice(WORDS, 5)) for i in range(200)}
    search = search_of(tmp_path / "i", docs)
    queries = [" ".join(rng.choice(WORDS, 3)) for _ in range(20)]
    together = search(queries, 15)
    for query, (positions, scores) in zip(queries, together, strict=True):
        ((alone, alone_scores),) = search([query], 15)
        np.testing.assert_array_equal(positions, alone)
        np.testing.assert_array_equal(scores, alone_scores)


def test_a_first_stage_that_finds_nothing_at_all_is_an_error(tmp_path, monkeypatch):
    """By words, a question in Chinese is one long word that no document has."""
    query_set = QuerySet(dataset=f"beir:{tmp_path}", split="test")
    queries = Queries(query_set, require_positive=False)
    table = pa.table([["q1", "q2"], ["西湖在哪里", "黄山在哪里"]], schema=QUERIES)
    with pa.ipc.new_file(str(tmp_path / QUERIES_FILE), QUERIES) as writer:
        writer.write_table(table)
    step = Bm25(analyser="words").candidates(Collection(query_set), queries, "fp32")
    inputs = {name: SimpleNamespace(local=lambda: tmp_path) for name in ("queries", "collection")}
    found = {"queries_without_candidates": 2}
    monkeypatch.setattr(source, "run_chunks", lambda *_, **__: dict(found))
    with pytest.raises(ConfigError) as error:
        step.run(SimpleNamespace(inputs=inputs), None)
    assert "BM25 finds no document for any of 2 queries, such as '西湖在哪里'" in str(error.value)
    assert "another `analyser` than words" in str(error.value)
    found["queries_without_candidates"] = 1
    assert step.run(SimpleNamespace(inputs=inputs), None) == found
