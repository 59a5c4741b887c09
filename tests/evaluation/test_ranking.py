from __future__ import annotations

import io
import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.ranking import (
    constant_lists,
    oracle,
    ranking,
    rerank,
    write_trec_run,
)
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


SCORES = st.floats(-(2.0**120), 2.0**120, width=32)


@pytest.mark.filterwarnings("ignore:.*a character that nobody sees:UserWarning")
@settings(deadline=None)
@given(
    lists=st.dictionaries(IDS, st.lists(IDS, min_size=1, max_size=5, unique=True), max_size=4),
    scores=st.lists(st.sampled_from([0.0, -0.0, 1e-45, -1e-45]) | SCORES, min_size=5),
    suffix=st.sampled_from([".run", ".run.gz"]),
)
def test_written_run_reads_back_equal(lists, scores, suffix, tmp_path_factory):
    rows = [{"query_id": q, "doc_ids": d, "scores": scores[: len(d)]} for q, d in lists.items()]
    run = pa.Table.from_pylist(rows, schema=RUN)
    path = tmp_path_factory.mktemp("runs") / f"x{suffix}"
    lines, lowered = write_trec_run(path, run, "tag")
    back, counts = read_trec_run(path)
    assert lines == counts["lines"] == sum(len(d) for d in lists.values())
    assert ranking(back) == ranking(run)
    written = back["scores"].to_pylist()
    for row, falling in zip(rows, written, strict=True):
        assert falling == naive_falling(row["scores"])
        assert all(a > b for a, b in pairwise(falling))
    pairs = zip(run["scores"].to_pylist(), written, strict=True)
    assert lowered == sum(a != b for own, new in pairs for a, b in zip(own, new, strict=True))
    header = path.read_bytes()[:8]
    # Magic number, deflate, no file name, no time stamp: same run, same bytes.
    assert (header == b"\x1f\x8b\x08\0\0\0\0\0") == (suffix == ".run.gz")


def naive_falling(scores: list[float]) -> list[float]:
    falling = [np.float32(score) for score in scores[:1]]
    for score in scores[1:]:
        below = np.nextafter(falling[-1], np.float32(-np.inf))
        falling.append(min(np.float32(score), below))
    return [float(score) for score in falling]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_no_reader_takes_are_not_written(score):
    rows = [{"query_id": "q", "doc_ids": ["a", "b"], "scores": [1.0, score]}]
    run = pa.Table.from_pylist(rows, schema=RUN)
    with pytest.raises(ValueError, match=r"query 'q': expected finite scores, .*document '[ab]'"):
        write_trec_run(io.StringIO(), run, "t")


def test_written_lines():
    out = io.StringIO()
    assert write_trec_run(out, candidates({"q": ["b", "a"]}), "mine") == (2, 0)
    assert out.getvalue() == "q Q0 b 1 10 mine\nq Q0 a 2 9 mine\n"


def test_ties_and_the_tail_are_lowered_to_the_next_float_and_the_tail_is_marked():
    """The model gave 2, 2 and -1, the first stage 7 and 6 to those behind."""
    run = rerank(candidates({"q": list("abcde")}), {"q": [-1.0, 2.0, 2.0]}, depth=3)
    out = io.StringIO()
    assert write_trec_run(out, run, "mine", depth=3) == (5, 3)
    assert out.getvalue().splitlines() == [
        "q Q0 b 1 2 mine",
        "q Q0 c 2 1.99999988 mine",
        "q Q0 a 3 -1 mine",
        "q Q0 d 4 -1.00000012 mine-first-stage",
        "q Q0 e 5 -1.00000024 mine-first-stage",
    ]


def test_scores_that_no_run_file_holds_are_refused():
    for score in (math.nan, math.inf, -math.inf):
        rows = [{"query_id": "q", "doc_ids": ["a", "b"], "scores": [score, 1.0]}]
        with pytest.raises(ValueError, match="'q': expected finite scores, document 'a' has"):
            write_trec_run(io.StringIO(), pa.Table.from_pylist(rows, schema=RUN), "t")


def test_a_tie_at_the_lowest_float_is_refused():
    lowest = float(np.finfo(np.float32).min)
    rows = [{"query_id": "q", "doc_ids": ["a", "b"], "scores": [lowest, lowest]}]
    with pytest.raises(ValueError, match=r"'q': .* no float32 below it for a tie"):
        write_trec_run(io.StringIO(), pa.Table.from_pylist(rows, schema=RUN), "t")


def test_constant_lists_are_those_of_the_re_ranked_documents():
    rows = [("q", [1.0, 1.0, 5.0]), ("r", [1.0, 2.0, 2.0]), ("s", [3.0]), ("t", [])]
    table = pa.Table.from_pylist(
        [{"query_id": q, "doc_ids": list("abc")[: len(s)], "scores": s} for q, s in rows], RUN
    )
    assert (constant_lists(table, 2), constant_lists(table, 1), constant_lists(table)) == (1, 0, 0)


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
        {"query_id": "q", "doc_ids": list("cdbzam"), "scores": [2.0, 0.5, 0.5, 7.0, 6.0, 5.0]},
        {"query_id": "r", "doc_ids": ["x"], "scores": [-1.0]},
        {"query_id": "s", "doc_ids": [], "scores": []},
    ]


def test_rerank_ties_are_decided_at_float32():
    run = rerank(candidates({"q": ["b", "a"]}), {"q": [1.0 + 1e-12, 1.0]}, depth=2)
    assert run["doc_ids"].to_pylist() == [["b", "a"]]
    run = rerank(candidates({"q": ["b", "a"]}), {"q": [1.0, 1.0 + 1e-6]}, depth=2)
    assert run["doc_ids"].to_pylist() == [["a", "b"]]


@settings(deadline=None)
@given(
    doc_ids=st.lists(IDS, min_size=1, max_size=9, unique=True),
    depth=st.integers(1, 9),
    value=st.floats(-10, 10),
)
def test_scores_that_say_nothing_change_nothing(doc_ids, depth, value):
    table = candidates({"q": doc_ids})
    run = rerank(table, {"q": [value] * min(depth, len(doc_ids))}, depth)
    assert run["doc_ids"].to_pylist() == [doc_ids]


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
