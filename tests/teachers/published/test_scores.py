"""Files with a score per document, from text to the teacher table."""

from __future__ import annotations

import gzip
import math
import random

import pytest
from six_documents import CANDIDATES, DEPTH, DOCS, EXTRA, tabs

from raypipe.config import ConfigError
from raypipe.storage import files
from raypipe.tables import text_columns as tsv
from raypipe.tables.text_columns import Columns, blocks
from raypipe.teachers.published import wanted
from raypipe.teachers.published.scores import EnsembleScores, MonoScores


def test_mono_scores_are_log_softmax_of_true_and_all_else_is_counted(make):
    text = tabs(
        "q1 d0 1.0 0.0",
        "q9 d0 5.0 0.0",  # another query
        "q1 d3 1.0 0.0",  # below the depth
        "q1 dX 1.0 0.0",  # nowhere
        "q1 d1 -0.1 -3.0",
        "q1 d5 800 -800",  # extra; no overflow
        "q1 d2 nan 0",
        "q2 d2 0 -inf",
        "q2 d0 2 2",
    )
    values, counts = make(MonoScores, text)
    assert values["q1"] == pytest.approx(
        {"d0": -math.log(1 + math.exp(-1)), "d1": -math.log(1 + math.exp(-2.9)), "d5": 0.0}
    )
    assert values["q2"] == pytest.approx({"d0": math.log(0.5)})
    assert values["q3"] == {}
    assert counts == {
        "rows": 9,
        "rows_other_queries": 1,
        "rows_unknown_documents": 2,
        "values": 4,
        "values_not_finite": 2,
        "documents_without_value": 2,
        "queries_without_values": 1,
        "scores_averaged": 0,
    }


def test_three_columns_are_scores_as_they_are(make):
    values, counts = make(MonoScores, tabs("q2 d0 0.1", "q2 d2 -7e3"))
    assert values["q2"] == {"d0": 0.1, "d2": -7000.0}
    assert counts["documents_without_value"] == 4


def test_documents_keep_the_order_of_the_list(make):
    text = tabs("q1 d5 1", "q1 d2 1", "q1 d0 1", "q1 d1 1")  # all tied
    values, _ = make(MonoScores, text)
    assert list(values["q1"]) == ["d0", "d1", "d2", "d5"]


def test_a_document_scored_twice_has_the_mean(make):
    text = tabs("q1 d0 1", "q1 d0 2", "q1 d0 6", "q1 d1 .1", "q1 d1 .1", "q1 d1 .1", "q1 d2 1")
    values, counts = make(MonoScores, text + tabs("q1 d2 1.0005"))
    assert values["q1"] == {"d0": 3.0, "d1": 0.1, "d2": pytest.approx(1.00025)}
    assert counts["scores_averaged"] == 1


def test_ensemble_rows_score_their_positive_and_their_negative(make):
    text = tabs(
        "9.5 -1.0 q1 d0 d1",
        "9.5 3.0 q1 d0 dX",  # the negative is not listed, the positive is
        "9.5 -2.0 q1 d0 d1",
        "inf 2.0 q2 d2 d0",
        "1.0 1.0 q7 d0 d1",
    )
    values, counts = make(EnsembleScores, text)
    assert values["q1"] == {"d0": 9.5, "d1": -1.5}
    assert values["q2"] == {"d0": 2.0}
    assert counts == {
        "rows": 5,
        "rows_other_queries": 1,
        "rows_unknown_documents": 1,
        "values": 6,
        "values_not_finite": 1,
        "documents_without_value": 3,
        "queries_without_values": 1,
        "scores_averaged": 1,
    }


@pytest.mark.parametrize("small", [False, True])
def test_many_rows_against_a_naive_reader(make, monkeypatch, small):
    if small:  # many blocks, many lookups, many parts
        monkeypatch.setattr(tsv, "BLOCK", 512)
        monkeypatch.setattr(wanted, "CHUNK", 2)
    rng = random.Random(3)
    rows = [
        (
            rng.choice(["q1", "q2", "q3", "q4"]),
            rng.choice([*DOCS, "dX"]),
            rng.gauss(0, 2),
            rng.gauss(0, 2),
        )
        for _ in range(2000)
    ]
    text = "".join(f"{q}\t{d}\t{t!r}\t{f!r}\n" for q, d, t, f in rows)
    values, counts = make(MonoScores, text, name=f"many{small}.tsv")
    listed = {q: [*d[:DEPTH], *EXTRA.get(q, [])] for q, d in CANDIDATES.items()}
    naive: dict[str, dict[str, list[float]]] = {q: {} for q in listed}
    for q, d, t, f in rows:
        if d in listed.get(q, []):
            naive[q].setdefault(d, []).append(t - math.log(math.exp(t) + math.exp(f)))
    means = {q: {d: sum(v) / len(v) for d, v in said.items()} for q, said in naive.items()}
    for query_id, expected in means.items():
        assert values[query_id] == pytest.approx(expected)
    assert counts["rows"] == 2000
    assert counts["rows_other_queries"] == sum(q == "q4" for q, *_ in rows)
    kept = sum(len(v) for said in naive.values() for v in said.values())
    assert counts["values"] == kept
    assert counts["rows_unknown_documents"] == 2000 - counts["rows_other_queries"] - kept


def test_gzip_by_content_windows_lines_quotes_and_a_mark(make):
    text = b'\xef\xbb\xbfq1\td0\t1.5\r\n\r\nq1\t"d1\t2\r\nq1\td1\t3'
    values, counts = make(MonoScores, gzip.compress(text), name="packed.tsv")
    assert values["q1"] == {"d0": 1.5, "d1": 3.0}
    assert counts["rows"] == 3
    assert counts["rows_unknown_documents"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td0\n", r"line 1: expected 4 columns .*query_id doc_id score_true.* found 2"),
        ("q1 d0 1.0\n", "line 1: expected 4 columns parted by tabs .* found 1"),
        (
            tabs("query_id doc_id score", "q1 d0 1"),
            "line 1: expected a number as score, found 'score'.*if it is a header, delete it",
        ),
        (tabs("q1 d0 1", "q1 d1"), "line 2: expected 3 columns .* found 2: 'q1"),
        (tabs("q1 d0 1", "q1 d1 x"), "line 2: expected a number as score, found 'x'"),
        (tabs("q1 d0 1") + "\nq1\td1\t\n", "line 3: expected a number as score, found ''"),
        (tabs("q1 d0 1 2", "q1 d1 1_0 2"), "line 2: expected a number as score_true"),
        (tabs("q1 d0 1", "q1 d1 ٣"), "line 2: expected a number as score, found '٣'"),
        (tabs("q1 d0 1", f"q1 {'d' * 5000} 1"), "line 2: expected an id of at most 4,096 char"),
        (tabs("q1 d0 1", "q1 d1 " + "x" * 9000), "line 2: expected a number as score, found 'xxx"),
        (b"q1\td0\t1\nq1\t\xff\t1\n", "line 2: expected UTF-8, found invalid start byte at byte 3"),
        (gzip.compress(tabs("q1 d0 1").encode() * 999, mtime=0)[:-20], "complete gzip file"),
        (b"\x1f\x8bno", "complete gzip file"),
        ("", "line 1: expected 4 columns .* or 3 columns .*, found 0"),
        (tabs("q1 d0 nan", "q2 d0 -inf"), "all 2 values of wanted documents are NaN or infinite"),
        (
            tabs("x7 d0 1", "x8 d0 1"),
            "none of its 2 rows is of one of the 3 queries; it has 'x7', the data set 'q",
        ),
        (
            tabs("q7 d0 1", "q2 D0 1"),
            "none of its documents .* for query 'q2' the file has 'D0', the list has 'd2'",
        ),
        (tabs("q3 d0 1"), "for query 'q3' the file has 'd0', the list is empty"),
    ],
)
def test_files_that_are_refused(make, text, message):
    with pytest.raises(ConfigError, match=message):
        make(MonoScores, text, name="bad.tsv")


def test_a_bad_line_far_down_a_packed_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tsv, "BLOCK", 256)
    path = tmp_path / "scores.gz"
    path.write_bytes(gzip.compress(("q\td\t1\n" * 4000 + "q\td\n" + "q\td\t1\n" * 4000).encode()))
    columns = Columns(("query_id", "doc_id", "score"), ("doc_id",), ("score",))
    read = 0
    with pytest.raises(ConfigError, match="line 4001: expected 3 columns"):
        for block in blocks(path, columns):
            read += len(block)
    assert 0 < read <= 4000


def test_a_packed_line_of_gigabytes_ends_the_reading(make, monkeypatch):
    monkeypatch.setattr(tsv, "BLOCK", 1000)
    monkeypatch.setattr(files, "LONGEST_LINE", 5000)
    bomb = gzip.compress(b"q1\td0\t1\n" + b"q" * 10_000_000)
    with pytest.raises(
        ConfigError, match="line 2: expected a line of at most 5,000 bytes"
    ) as error:
        make(MonoScores, bomb, name="bomb.gz")
    assert len(str(error.value)) < 400


def test_ids_that_look_like_others_are_counted_with_line_and_example(make):
    with pytest.warns(UserWarning, match=r"bad\.tsv, line 2: the id 'd1.*U\+00AD"):
        _, counts = make(MonoScores, tabs("q1 d0 1", "q1 d1\u00ad 1"), name="bad.tsv")
    assert counts["ids_with_invisible_characters"] == 1
