from __future__ import annotations

import io

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.ranking import oracle, ranking, rerank, write_trec_run
from raypipe.records import CANDIDATES, QRELS, RUN
from raypipe.tables.trec_run import read_trec_run


def candidates(lists: dict[str, list[str]]) -> pa.Table:
    rows = [
        {
            "query_id": query_id,
            "doc_ids": doc_ids,
            "ranks": list(range(1, len(doc_ids) + 1)),
            "scores": [float(10 - i) for i in range(len(doc_ids))],
            "sources": ["bm25"] * len(doc_ids),
        }
        for query_id, doc_ids in lists.items()
    ]
    return pa.Table.from_pylist(rows, schema=CANDIDATES)


def qrels(rows: list[tuple[str, str, int]]) -> pa.Table:
    keys = ("query_id", "doc_id", "relevance")
    return pa.Table.from_pylist([dict(zip(keys, r, strict=True)) for r in rows], schema=QRELS)


# --- writing -----------------------------------------------------------------

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda t: t.encode().split() == [t.encode()] and not t.startswith("\ufeff")
)


@pytest.mark.filterwarnings("ignore:.*a character that nobody sees:UserWarning")
@settings(deadline=None)
@given(
    lists=st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=5, unique=True), max_size=4),
    scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=5),
    suffix=st.sampled_from([".run", ".run.gz"]),
)
def test_written_run_reads_back_equal(lists, scores, suffix, tmp_path_factory):
    rows = [{"query_id": q, "doc_ids": d, "scores": scores[: len(d)]} for q, d in lists.items()]
    run = pa.Table.from_pylist(rows, schema=RUN)
    path = tmp_path_factory.mktemp("runs") / f"x{suffix}"
    assert write_trec_run(path, run, "tag") == sum(len(d) for d in lists.values())
    back, _ = read_trec_run(path)
    assert back.select(RUN.names).to_pylist() == run.to_pylist()
    header = path.read_bytes()[:8]
    # Magic number, deflate, no file name, no time stamp: same run, same bytes.
    assert (header == b"\x1f\x8b\x08\0\0\0\0\0") == (suffix == ".run.gz")


def test_written_lines():
    table = candidates({"q": ["b", "a"]})
    out = io.StringIO()
    assert write_trec_run(out, table, "mine") == 2
    assert out.getvalue() == "q Q0 b 1 10 mine\nq Q0 a 2 9 mine\n"
    out = io.StringIO()
    write_trec_run(out, table, "mine", score_from_rank=True)
    assert out.getvalue() == "q Q0 b 1 -1 mine\nq Q0 a 2 -2 mine\n"


@pytest.mark.parametrize(
    ("query_id", "doc_id", "tag", "message"),
    [
        ("q 1", "d", "t", "query_id 'q 1'"),
        ("q", "d\t2", "t", "doc_id 'd\\\\t2'"),
        ("q", "", "t", "doc_id ''"),
        ("q", "d", "my tag", "tag 'my tag'"),
    ],
)
def test_ids_that_a_run_file_cannot_hold(query_id, doc_id, tag, message):
    with pytest.raises(ValueError, match=f"{message}: a TREC run needs ids without white space"):
        write_trec_run(io.StringIO(), candidates({query_id: [doc_id]}), tag)


# --- re-ranking --------------------------------------------------------------


def test_rerank_puts_the_head_first_and_keeps_the_tail_in_first_stage_order():
    table = candidates({"q": ["d", "c", "b", "z", "a", "m"], "r": ["x"], "s": []})
    run = rerank(table, {"q": [0.5, 2.0, 0.5], "r": [-1.0], "unknown": [1.0]}, depth=3)
    assert run.schema == RUN
    assert run.to_pylist() == [
        {"query_id": "q", "doc_ids": list("cbdzam"), "scores": [2.0, 0.5, 0.5, 7.0, 6.0, 5.0]},
        {"query_id": "r", "doc_ids": ["x"], "scores": [-1.0]},
        {"query_id": "s", "doc_ids": [], "scores": []},
    ]


def test_rerank_ties_are_decided_at_float32():
    run = rerank(candidates({"q": ["b", "a"]}), {"q": [1.0 + 1e-12, 1.0]}, depth=2)
    assert run["doc_ids"].to_pylist() == [["a", "b"]]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "expected 2 scores .*found 0"),
        ({"q": [1.0]}, "expected 2 scores .*found 1"),
        ({"q": [1.0, 2.0, 3.0]}, "expected 2 scores .*found 3"),
        ({"q": [1.0, float("nan")]}, "a score is NaN .document 'b'"),
    ],
)
def test_rerank_refuses_scores_that_do_not_fit(scores, message):
    with pytest.raises(ValueError, match=f"query 'q': {message}"):
        rerank(candidates({"q": ["a", "b", "c"]}), scores, depth=2)


def test_oracle_sorts_the_head_by_relevance_and_ties_by_rank():
    table = candidates({"q": ["spam", "z", "b", "a", "late"]})
    judged = qrels([("q", "a", 3), ("q", "b", 3), ("q", "spam", -2), ("q", "late", 3)])
    run = oracle(table, judged, depth=4)
    assert run["doc_ids"].to_pylist() == [["b", "a", "z", "spam", "late"]]
    assert run["scores"].to_pylist() == [[3.0, 3.0, 0.0, -2.0, 6.0]]


@settings(deadline=None)
@given(
    relevance=st.lists(st.integers(0, 3), min_size=3, max_size=8),
    order=st.permutations(range(8)),
    depth=st.integers(1, 8),
)
def test_no_reranking_beats_the_oracle(relevance, order, depth):
    doc_ids = [f"d{i}" for i in range(len(relevance))]
    table = candidates({"q": doc_ids})
    judged = qrels([("q", d, r) for d, r in zip(doc_ids, relevance, strict=True)])
    measures = ["nDCG@3", "nDCG@10", "RR@10", "AP", "P@2"]
    scores = {"q": [float(order[i]) for i in range(min(depth, len(doc_ids)))]}
    best = means(evaluate(oracle(table, judged, depth), judged, measures, 2))
    other = means(evaluate(rerank(table, scores, depth), judged, measures, 2))
    assert all(best[m] >= other[m] - 1e-12 for m in measures)
    if depth >= len(doc_ids) and any(relevance):
        assert best["nDCG@10"] == pytest.approx(1.0)


def test_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="depth of at least 1, found 0"):
        rerank(candidates({"q": ["a"]}), {"q": []}, depth=0)


def test_ranking_refuses_two_rows_and_double_documents():
    twice = pa.concat_tables([candidates({"q": ["a"]}), candidates({"q": ["b"]})])
    with pytest.raises(ValueError, match="query 'q' has two rows"):
        ranking(twice)
    with pytest.raises(ValueError, match="query 'q' ranks document 'a' twice"):
        ranking(candidates({"q": ["a", "b", "a"]}))
