"""The terms that an index starts from, its weights and its shards, against bm25s on the whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from bm25_tiny import (
    METHODS,
    PLAIN,
    Made,
    attempt_at,
    best,
    got,
    index_of,
    search_of,
    terms_of,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.candidates.bm25 import search as bm25_search
from raypipe.candidates.bm25 import terms as bm25_terms
from raypipe.candidates.bm25.index import Bm25Index
from raypipe.candidates.bm25.search import Bm25Search
from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.bm25.terms import (
    NumberedTerms,
    TermCounts,
    TermOptions,
    terms_table,
)
from raypipe.candidates.bm25.vocabulary import VOCABULARY_FILE, Bm25Options, write_vocabulary
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet


def corpus(size: int, seed: int) -> dict[str, str]:
    """Documents of Zipf-distributed words, ties and documents of stop words among them."""
    rng = np.random.default_rng(seed)
    words = np.array(["the", "of", *(f"word{i}" for i in range(60)), "running", "runs", "naïve"])
    odds = 1 / np.arange(1, len(words) + 1)
    ids = [f"d{i:03d}" for i in rng.permutation(size)]
    lengths = rng.integers(1, 12, size)
    texts = [" ".join(rng.choice(words, n, p=odds / odds.sum())) for n in lengths]
    return dict(zip(ids, texts, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("numba", [False, True])
def test_shards_rank_and_score_as_bm25s_does_on_the_whole(tmp_path, monkeypatch, method, numba):
    monkeypatch.setattr(bm25_search, "NUMBA_WORK", 0 if numba else 10**18)
    options = Bm25Options(method=method, k1=1.2, b=0.6)
    docs = corpus(150, seed=3)
    ids, index = list(docs), whole(docs, options)
    queries = [*corpus(30, seed=4).values(), "word3", "word3 word3", "unheard", "the"]
    terms = options.tokenize(queries)
    stored = terms_of(tmp_path, docs, options)
    for shard_docs in (1000, 50, 22, 1):
        made, _ = index_of(tmp_path, stored, len(docs), options, shard_docs)
        assert len(list(made.path.glob("part-*"))) == -(-150 // shard_docs)
        search = Bm25Search(made.local(), options)
        for depth in (1, 10, 100, 150, 400):
            assert got(search, ids, terms, depth) == [best(index, ids, t, depth) for t in terms]


@settings(deadline=None, max_examples=20, database=None)
@given(
    st.lists(st.text("abc ", min_size=1, max_size=12), min_size=1, max_size=40),
    st.lists(st.text("abc ", max_size=8), min_size=1, max_size=4),
    st.sampled_from(METHODS),
    st.integers(1, 50),
    st.integers(1, 20),
    st.integers(1, 45),
)
def test_any_cut_gives_the_same(tmp_path_factory, texts, queries, method, shard, size, depth):
    options = PLAIN.replace(method=method)
    docs = {f"d{i * 7 % 41:02d}": text for i, text in enumerate(texts)}
    folder, terms = tmp_path_factory.getbasetemp() / "cut", options.tokenize(queries)
    stored = terms_of(folder, docs, options, size)
    if not stored.counts["tokens"]:
        return
    made, _ = index_of(folder, stored, len(docs), options, shard)
    search, index = Bm25Search(made.local(), options), whole(docs, options)
    assert got(search, list(docs), terms, depth) == [
        best(index, list(docs), one, depth) for one in terms
    ]


@pytest.mark.parametrize("method", METHODS)
def test_every_weight_is_that_of_bm25s(tmp_path, method):
    options = Bm25Options(method=method)
    docs = corpus(120, seed=5)
    index = whole(docs, options)
    made, _ = index_of(tmp_path, terms_of(tmp_path, docs, options), 120, options, 50)
    with pa.memory_map(str(made.path / VOCABULARY_FILE)) as source:
        words = pa.ipc.open_file(source).read_all()["term"].to_pylist()
    assert words == sorted(set(index.vocab_dict) - {""})
    dense = []
    for path in sorted(made.path.glob("part-*")):
        (row,) = pa.ipc.open_file(str(path)).read_all().to_pylist()
        matrix = np.zeros((row["docs"], len(words)), np.float32)
        for term, (start, stop) in enumerate(pairwise(row["starts"])):
            matrix[row["rows"][start:stop], term] = row["scores"][start:stop]
        dense.append(matrix)
    theirs = np.zeros((120, len(words)), np.float32)
    for column, word in enumerate(words):
        span = slice(*index.scores["indptr"][index.vocab_dict[word] :][:2])
        theirs[index.scores["indices"][span], column] = index.scores["data"][span]
    np.testing.assert_array_equal(np.concatenate(dense), theirs)


def test_a_document_with_none_of_the_terms_is_no_candidate_of_bm25plus(tmp_path):
    """bm25+ gives it log(4 / 1) * 0.5; the query counts the term twice."""
    docs = {"a": "fig plum", "b": "kiwi", "c": "plum"}
    search = search_of(tmp_path / "i", docs, PLAIN.replace(method="bm25+"), shard_docs=1)
    ((positions, scores),) = search(["fig fig"], 3)
    assert positions.tolist() == [0]
    norm = 1.5 * (0.25 + 0.75 * 2 / (4 / 3))
    expected = 2 * np.log(4 / 1) * (2.5 / (norm + 1) + 0.5)
    assert scores.tolist() == pytest.approx([expected], rel=1e-6)


def test_ties_across_shards_are_broken_by_document_id(tmp_path):
    ids = [f"d{i:02d}" for i in np.random.default_rng(1).permutation(90)]
    docs = dict.fromkeys(ids, "fig kiwi") | {"zz": "fig fig fig"}
    search = search_of(tmp_path / "i", docs, shard_docs=13)
    for depth in (1, 2, 40, 91):
        ((positions, _),) = search(["fig"], depth)
        assert [list(docs)[p] for p in positions] == ["zz", *sorted(ids)][:depth]


def test_terms_are_those_of_the_whole(tmp_path):
    docs = corpus(100, seed=6)
    options = TermOptions()
    stored = terms_of(tmp_path, docs, options, size=13)
    counts = TermCounts(stored.local())
    assert len(counts) == 100 and len(counts.vocabularies) == 8
    expected = [Counter(terms) for terms in options.tokenize(docs.values())]
    rows = [{} for _ in range(100)]
    for start, stop in ((0, 1), (1, 40), (40, 100)):
        at = start
        for part in counts.slices(range(start, stop)):
            words = counts.vocabularies[part.part].to_pylist()
            ends = np.cumsum(part.sizes)
            for end, size, length in zip(ends, part.sizes, part.lengths, strict=True):
                span = slice(end - size, end)
                named = [words[term] for term in part.terms[span]]
                rows[at] = dict(zip(named, part.counts[span].tolist(), strict=True))
                assert length == expected[at].total()
                at += 1
        assert at == stop
    assert rows == expected
    empty = sum(not one for one in expected)
    assert stored.counts == {
        "tokens": sum(one.total() for one in expected),
        "documents_without_terms": empty,
    }
    assert empty > 0


def test_blocks_do_not_show(monkeypatch):
    words, lengths = np.array([2, 0, 2, 1, 0, 0, 3, 0, 1, 3]), np.array([3, 0, 1, 5, 1])
    numbered = NumberedTerms(words, lengths, np.array([2, 1, 0, -1]), ["apple", "fig", "pear"])
    table, counts = terms_table(numbered)
    assert counts == {"tokens": 8, "documents_without_terms": 2}
    assert table["terms"].to_pylist() == [["apple", "pear"], [], ["fig"], ["fig", "pear"], []]
    assert table["counts"].to_pylist() == [[2, 1], [], [1], [1, 3], []]
    for block in (1, 2, 3):
        monkeypatch.setattr(bm25_terms, "BLOCK", block)
        again, _ = terms_table(numbered)
        assert again.equals(table)


def test_counts(tmp_path):
    docs = {"a": "the fig", "b": "of the", "c": "figs, fig and plums"}
    options = Bm25Options()
    stored = terms_of(tmp_path, docs, options, size=2)
    _, counts = index_of(tmp_path, stored, 3, options, 2)
    assert counts == {"docs": 3, "terms": 2, "tokens": 4, "documents_without_terms": 1}


def test_a_collection_without_terms_is_an_error(tmp_path):
    options = Bm25Options()
    stored = terms_of(tmp_path, {"a": "the of", "b": "x y z"}, options)
    attempt = attempt_at(tmp_path, "index", collection=Made(tmp_path), terms=stored)
    with pytest.raises(ConfigError, match=r"tiny: no term is left in any of 2 documents; .*en$"):
        write_vocabulary(attempt, options)


SOME = st.sampled_from(
    [*"aİß黄山ก ", "the ", "Running ", "runs, ", "of", "naïve ", "x1", "\u0130I "]
)


@settings(max_examples=200, database=None)
@given(
    st.lists(st.lists(SOME, max_size=12).map("".join) | st.text(max_size=30), min_size=1),
    st.sampled_from(["words", "ngrams"]),
    st.sampled_from(["english", "german", None]),
    st.sampled_from(["en", "de", None]),
)
def test_numbered_terms_are_those_of_bm25s(texts, analyser, stemmer, stopwords):
    options = TermOptions(analyser=analyser, stemmer=stemmer, stopwords=stopwords)
    numbered = options.numbered(texts)
    ranks = numbered.ranks[numbered.words].tolist()
    ends = np.cumsum(numbered.lengths)
    found = [
        [numbered.terms[rank] for rank in ranks[end - length : end] if rank >= 0]
        for end, length in zip(ends, numbered.lengths, strict=True)
    ]
    terms = options.tokenize(texts)
    assert found == terms
    assert numbered.terms == sorted({term for one in terms for term in one})


# --- the recipe ---------------------------------------------------------------


def test_an_unknown_stemmer_or_list_of_stop_words_is_an_error():
    for known in (None, "english", "porter", "german", "de"):
        assert Bm25(stemmer=known).stemmer == known
    with pytest.raises(ValidationError, match=r"PyStemmer \(arabic, .*, english, .*\) or null"):
        Bm25(stemmer="klingon")
    with pytest.raises(ValidationError, match="PyStemmer"):
        Bm25(stemmer="")
    with pytest.raises(ValidationError, match=r"'en', .*'chinese'"):
        Bm25(stopwords="klingon")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Bm25(shard_docs=0)


def test_lists_of_stop_words_are_those_of_bm25s():
    from typing import get_args

    from bm25s import stopwords
    from bm25s.tokenization import _infer_stopwords

    named = [_infer_stopwords(name) for name in get_args(bm25_terms.StopWords)]
    theirs = [getattr(stopwords, name) for name in vars(stopwords) if name.startswith("STOP")]
    assert all(one in theirs for one in named) and all(one in named for one in theirs)


def test_what_is_shared_and_what_is_not(beir_folder):
    query_set = QuerySet(dataset=f"beir:{beir_folder}", split="test")
    collection, queries = Collection(query_set), Queries(query_set, False)

    def index(**fields) -> Bm25Index:
        return Bm25(**fields).candidates(collection, queries, "fp32").index

    base = index()
    assert index(shard_docs=7).options.shard_docs == 7
    assert index(shard_docs=7).digest == base.digest
    assert index(k1=0.9).digest != base.digest
    assert index(k1=0.9, method="atire").inputs()["terms"].digest == base.inputs()["terms"].digest
    assert index(stopwords=None).inputs()["terms"].digest != base.inputs()["terms"].digest


@pytest.mark.parametrize(
    ("text", "analyser"),
    [("黄山是名山", "ngrams"), ("Mount Huangshan", "words"), ("Mount Huangshan (黄山)", "words")],
)
def test_the_collection_chooses_the_analyser(tmp_path, text, analyser):
    """Words are in no digest, so that indexes of earlier versions stay in use."""
    query_set = QuerySet(dataset=f"beir:{tmp_path}", split="test")
    (tmp_path / "corpus.jsonl").write_text(f'{{"_id": "a", "text": "{text}"}}\n' * 3, "utf-8")
    collection = Collection(query_set)
    options = Bm25()
    assert options.settled(collection).analyser == analyser
    index = Bm25Index(collection, options)
    for step in (index, index.inputs()["terms"]):
        assert step.spec().get("analyser", "words") == analyser
    assert index.digest == Bm25Index(collection, Bm25(analyser=analyser)).digest
    other = {"words": "ngrams", "ngrams": "words"}[analyser]
    assert index.digest != Bm25Index(collection, Bm25(analyser=other)).digest
