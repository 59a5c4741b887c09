from __future__ import annotations

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.evaluation import runs
from raypipe.evaluation.measures import evaluate, means
from raypipe.evaluation.runs import oracle, ranking, read_trec_run, rerank, write_trec_run
from raypipe.records import CANDIDATES, QRELS, RUN


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


def written(folder: Path, text: str | bytes, name: str = "x.run") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- reading -----------------------------------------------------------------


def test_rank_column_is_the_order_and_ties_go_by_doc_id(tmp_path):
    text = (
        "q2 Q0 b 0 1.5 t\nq1 Q0 d 7 9 t\nq2 Q0 a 3 99 u\nq1\tQ0\tc\t7\t-1\tt\nq1 Q0 e 5 0 t \r\n\n"
    )
    table, counts = read_trec_run(written(tmp_path, text))
    assert table.schema == CANDIDATES
    assert table.to_pylist() == [
        {
            "query_id": "q2",
            "doc_ids": ["b", "a"],
            "ranks": [1, 2],
            "scores": [1.5, 99.0],
            "sources": ["t", "u"],
        },
        {
            "query_id": "q1",
            "doc_ids": ["e", "c", "d"],
            "ranks": [1, 2, 3],
            "scores": [0.0, -1.0, 9.0],
            "sources": ["t", "t", "t"],
        },
    ]
    none = {"other_queries": 0, "duplicates": 0, "beyond_depth": 0}
    assert counts == {"lines": 5, "kept": 5, **none}


def test_duplicates_keep_the_best_rank_and_every_line_is_counted(tmp_path):
    text = "q Q0 a 5 1 t\nq Q0 b 2 2 t\nq Q0 a 1 3 t\nq Q0 c 9 4 t\nother Q0 a 1 1 t\n"
    table, counts = read_trec_run(written(tmp_path, text), query_ids=["q"], depth=2, source="mine")
    assert ranking(table) == {"q": ["a", "b"]}
    assert table["scores"].to_pylist() == [[3.0, 2.0]]
    assert table["sources"].to_pylist() == [["mine", "mine"]]
    dropped = {"other_queries": 1, "duplicates": 1, "beyond_depth": 1}
    assert counts == {"lines": 5, "kept": 2, **dropped}


@settings(deadline=None)
@given(
    lines=st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdefgé"), st.integers(-3, 6)),
        max_size=60,
    ),
    depth=st.none() | st.integers(1, 4),
    batch=st.integers(1, 5),
)
def test_reader_equals_the_naive_reader_at_any_batch_size(lines, depth, batch, tmp_path_factory):
    text = "".join(f"{q} Q0 {d} {r} {-r} t\n" for q, d, r in lines)
    path = written(tmp_path_factory.mktemp("runs"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_BATCH", batch)
        table, counts = read_trec_run(path, depth=depth)
    best: dict[str, dict[str, int]] = {}
    for q, d, r in lines:
        docs = best.setdefault(q, {})
        docs[d] = min(r, docs.get(d, r))
    expected = {q: sorted(docs, key=lambda d: (docs[d], d))[:depth] for q, docs in best.items()}
    assert ranking(table) == expected
    assert list(ranking(table)) == list(expected)  # order of first appearance
    assert counts.pop("lines") == sum(counts.values()) == len(lines)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 2.0", r"x.run, line 2: expected six columns \(query_id Q0 .*\), found 5"),
        ("q Q0 d 1 2.0 my tag", r"line 2: expected six columns .* found 7: 'q Q0 d 1 2.0 my tag'"),
        ("q Q0 d one 2.0 t", r"line 2: expected an integer rank and a score .* found b'one'"),
        ("q Q0 d 1 high t", r"line 2: expected an integer rank and a score .* b'high'"),
        ("q Q0 d 1 nan t", r"line 2: expected a finite rank and score, found .*b'nan'"),
        ("q Q0 d 99999999999999999999 1 t", r"line 2: expected a finite rank"),
    ],
)
def test_malformed_line_names_file_line_and_expectation(tmp_path, line, message):
    path = written(tmp_path, f"q Q0 a 1 3.0 t\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_trec_run(path)


def test_malformed_line_of_an_unwanted_query_is_an_error_too(tmp_path):
    with pytest.raises(ValueError, match="line 1: expected six columns"):
        read_trec_run(written(tmp_path, "other Q0 a 1\n"), query_ids={"q"})


def test_truncated_gzip_and_broken_utf8_name_the_file(tmp_path):
    packed = gzip.compress("".join(f"q Q0 d{i * i} {i} 1 t\n" for i in range(500)).encode())
    with pytest.raises(ValueError, match=r"cut\.run\.gz: expected a complete gzip file.*fetch"):
        read_trec_run(written(tmp_path, packed[: len(packed) // 2], "cut.run.gz"))
    damaged = packed[:30] + bytes([packed[30] ^ 0xFF]) + packed[31:]
    with pytest.raises(ValueError, match=r"bad\.run\.gz: expected a complete gzip file"):
        read_trec_run(written(tmp_path, damaged, "bad.run.gz"))
    with pytest.raises(ValueError, match=r"latin\.run, line 2: expected UTF-8.*iconv"):
        text = b"q Q0 a 1 1 t\nother Q0 caf\xe9 1 1 t\n"
        read_trec_run(written(tmp_path, text, "latin.run"), query_ids={"q"})


def test_byte_order_mark_is_no_part_of_the_first_query_id(tmp_path):
    table, _ = read_trec_run(written(tmp_path, "\ufeffq Q0 a 1 1 t\n"), query_ids={"q"})
    assert ranking(table) == {"q": ["a"]}


def test_empty_file_gives_an_empty_table(tmp_path):
    table, counts = read_trec_run(written(tmp_path, ""))
    assert (table.schema, table.num_rows, counts["lines"]) == (CANDIDATES, 0, 0)


def test_depth_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="depth of at least 1, found 0"):
        read_trec_run(written(tmp_path, ""), depth=0)
    with pytest.raises(ValueError, match="depth of at least 1, found 0"):
        rerank(candidates({"q": ["a"]}), {"q": []}, depth=0)


# --- writing -----------------------------------------------------------------

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(
    lambda t: t.encode().split() == [t.encode()] and not t.startswith("\ufeff")
)


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


def test_ranking_refuses_two_rows_and_double_documents():
    twice = pa.concat_tables([candidates({"q": ["a"]}), candidates({"q": ["b"]})])
    with pytest.raises(ValueError, match="query 'q' has two rows"):
        ranking(twice)
    with pytest.raises(ValueError, match="query 'q' ranks document 'a' twice"):
        ranking(candidates({"q": ["a", "b", "a"]}))
