"""Run files as candidates; no cluster is needed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_source import DOCS, QUERIES, read, small_data

from raypipe.candidates.trec_run import TrecRun
from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.evaluation.ranking import ranking
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables import spill
from raypipe.tables import text_columns as columns
from raypipe.tables.text_table import TextTable
from raypipe.tables.trec_run import read_trec_run

SHARED = Path(__file__).resolve().parents[3] / "shared"
PUBLISHED = SHARED / "data" / "msmarco-dl"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> QuerySet:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


def trec(folder: Path, text: str | bytes, name: str = "x.run", **fields) -> TrecRun:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return TrecRun(paths=(str(path),), **fields)


@pytest.mark.filterwarnings("ignore:run file .* share a rank:UserWarning")
def test_every_drop_is_counted_and_the_depth_is_of_the_file(builder, data, tmp_path):
    text = (
        "q1 Q0 d3 5 1 t\nq1 Q0 nowhere 1 9 t\nother Q0 d1 1 1 t\n"
        "q1 Q0 d2 2 8 t\nq4 Q0 d7 1 1 t\nq1 Q0 d2 3 7 t\nq1 Q0 d1 2 6 t\n"
    )
    found, counts, rows = read(builder, data, trec(tmp_path, text, depth=3, name="x.run"))
    assert {q: d for q, d in found.items() if d} == {"q1": ["d2", "d1"], "q4": ["d7"]}
    (one,) = (r for r in rows if r["query_id"] == "q1")
    assert one["scores"] == [8.0, 6.0] and one["sources"] == ["run", "run"]
    assert counts == {
        "lines": 7,
        "other_queries": 1,
        "duplicates": 1,
        "beyond_depth": 1,
        "kept": 4,
        "unknown_documents": 1,
        "candidates": 3,
        "queries_without_candidates": 4,
        "queries_with_constant_scores": 0,
        "queries_with_scores_against_ranks": 0,
        "queries_ordered_by_score": 1,
    }


def naive(lines: list[tuple[str, str, int]], depth: int) -> dict[str, list[str]]:
    best: dict[str, dict[str, int]] = {q: {} for q in QUERIES}
    for q, d, rank in lines:
        if q in best:
            best[q][d] = min(rank, best[q].get(d, rank))
    listed = {(q, d, rank): number for number, (q, d, rank) in reversed([*enumerate(lines)])}
    cut = {
        q: sorted(docs, key=lambda d: (docs[d], listed[q, d, docs[d]]))[:depth]
        for q, docs in best.items()
    }
    return {q: [d for d in docs if d in DOCS] for q, docs in cut.items()}


@settings(deadline=None, max_examples=40)
@given(
    lines=st.lists(
        st.tuples(
            st.sampled_from([*QUERIES, "r"]), st.sampled_from([*DOCS, "x", "y"]), st.integers(0, 5)
        ),
        max_size=50,
    ),
    depth=st.integers(1, 5),
    chunk=st.integers(1, 7),
    pending=st.sampled_from([0, 200, 10_000]),
    block=st.integers(20, 200),
)
def test_spilled_lists_equal_naive_ones_however_they_are_cut(
    lines, depth, chunk, pending, block, builder, data, tmp_path_factory
):
    # q0 d0 is always there, so that something matches
    lines = [*lines, ("q0", "d0", -1)]
    text = "".join(f"{q} Q0 {d} {rank} {-rank} t\n" for q, d, rank in lines)
    source = trec(tmp_path_factory.mktemp("runs"), text, depth=depth)
    step = source.candidates(Collection(data), Queries(data, False), "fp32")
    fresh = Builder(Store(str(tmp_path_factory.mktemp("storage"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "CHUNK", chunk)
        patch.setattr(spill, "PENDING", pending)
        patch.setattr(columns, "BLOCK", block)
        artifact = fresh.get(step)
    order = builder.get(Queries(data, False)).local()
    rows = artifact.table().to_pylist()
    assert len(artifact.files) == -(-len(QUERIES) // chunk)
    assert {r["query_id"]: r["doc_ids"] for r in rows} == naive(lines, depth)
    assert [r["query_id"] for r in rows] == TextTable(order / "queries.arrow").ids().to_pylist()
    counts = artifact.counts
    drops = ("other_queries", "duplicates", "beyond_depth", "kept")
    assert counts["lines"] == len(lines) == sum(counts[name] for name in drops)
    assert counts["kept"] == counts["candidates"] + counts["unknown_documents"]
    empty = [q for q, docs in naive(lines, depth).items() if not docs]
    assert counts["queries_without_candidates"] == len(empty)


ZEROS = (  # as BEIR writes them
    "q1 Q0 d3 0 1.5 t\nq1 Q0 d2 0 2.5 t\nq1 Q0 d1 0 7 t\nq2 Q0 d4 1 3 t\nq2 Q0 d1 2 9 t\n"
    "q3 Q0 d2 0 5 t\nq3 Q0 d1 0 5 t\n"
)


def test_lists_with_one_rank_stand_by_score_counted_and_said(builder, data, tmp_path):
    with pytest.warns(UserWarning, match=r"x\.run: documents of 1 queries share a rank or have"):
        found, counts, _ = read(builder, data, trec(tmp_path, ZEROS, depth=2))
    assert found["q1"] == ["d1", "d2"]  # the depth cuts the worst
    assert found["q2"] == ["d4", "d1"]  # ranks against scores stay
    assert found["q3"] == ["d2", "d1"]  # neither rank nor score: as the lines are
    named = ("ordered_by_score", "with_scores_against_ranks", "with_constant_scores")
    assert [counts[f"queries_{name}"] for name in named] == [1, 1, 1]


def test_only_files_with_one_rank_twice_have_new_digests(data, tmp_path):
    def spec(text: str, name: str) -> dict:
        source = trec(tmp_path, text, name)
        return dict(source.candidates(Collection(data), Queries(data, False), "fp32").spec())

    assert spec(ZEROS, "zero.run")["ties"] == "score as written"
    assert "ties" not in spec("q1 Q0 d1 1 2 t\nq1 Q0 d2 2 1 t\n", "plain.run")
    assert "ties" not in spec("q1 Q0 d1 broken\n", "broken.run")


def test_no_temporary_file_stays(builder, data, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(spill, "PENDING", 0)
    read(builder, data, trec(tmp_path, "q2 Q0 d1 1 1 t\nq3 Q0 d1 1 1 t\n"))
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 my doc 1 2 t\n", r"x\.run, line 1: expected six columns .* found 7"),
        (
            "q1 Q0 d1 1 2 t\nq1 Q0 d2 1.5 2 t\n",
            r"line 2: expected an integer rank .*'1\.5'",
        ),
        (b"q1 Q0 d1 1 2 t\nq1 Q0 d\xff 2 2 t\n", r"x\.run, line 2: expected UTF-8"),
        (
            gzip.compress(b"q1 Q0 d1 1 2 t\n" * 99, mtime=0)[:-9],
            r"x\.run: expected a complete gzip file",
        ),
        ("", "none of the 6 queries is in it"),
        ("\n\r\n", "none of the 6 queries is in it"),
        ("Q1 Q0 d1 1 2 t\n", "none of the 6 queries is in it"),
        ("q1 Q0 D1 1 2 t\nq1 Q0 D2 1 2 t\n", "none of its 2 documents is in the collection"),
    ],
)
def test_bad_files_are_errors_before_anything_is_committed(text, message, builder, data, tmp_path):
    source = trec(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        read(builder, data, source)
    step = source.candidates(Collection(data), Queries(data, False), "fp32")
    assert builder.find(step) is None


def test_a_query_may_stand_in_several_blocks_but_not_in_two_files(builder, data, tmp_path):
    one = trec(tmp_path, "q1 Q0 d1 2 1 t\nq2 Q0 d1 1 1 t\r\nq1 Q0 d2 1 1 t\n", "a.run")
    found, counts, _ = read(builder, data, one)
    assert found["q1"] == ["d2", "d1"] and counts["lines"] == 3
    two = trec(tmp_path, "q5 Q0 d1 1 1 t\nq2 Q0 d2 1 1 t\n", "b.run")
    both = TrecRun(paths=one.paths + two.paths)
    with pytest.raises(ConfigError, match=r"b\.run: query q2 is in .*a\.run too"):
        read(builder, data, both)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="no ../shared")
def test_colbert_on_msmarco_dl(builder):
    """84-87 % of the top 100 have text; the rank column, not the score, is the order."""
    for year, known, kept in (("dl19", 3726, 4300), ("dl20", 4525, 5400)):
        path = PUBLISHED / "runs" / f"colbert.{year}.run.gz"
        data = QuerySet(dataset=f"beir:{PUBLISHED}", split=year)
        found, counts, _ = read(builder, data, TrecRun(paths=(str(path),), depth=100))
        assert (counts["candidates"], counts["kept"]) == (known, kept)
        whole, _ = read_trec_run(path, depth=100)
        for query_id, doc_ids in ranking(whole).items():
            assert [d for d in doc_ids if d in set(found[query_id])] == found[query_id]
