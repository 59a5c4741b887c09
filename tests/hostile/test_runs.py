"""Run files as strangers write them: the right order, a refusal in words, or a count that is said.

Every row of the tables is an input that no other test tries.
"""

from __future__ import annotations

import gzip
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from six_documents import said, six_lists
from small_source import read, small_data

from raypipe.candidates.trec_run import TrecRun
from raypipe.evaluation.ranking import ranking
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables.fields import INVISIBLE
from raypipe.tables.trec_run import read_trec_run
from raypipe.teachers.published.run_file import RunFile

quick = settings(deadline=None, max_examples=60, database=None)


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def written(folder: Path, content: bytes, name: str = "x.run") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# --- read in the right order ----------------------------------------------------------------------

ORDERS = {
    "constant ranks, scores that are one float32": (
        lines("q Q0 a 0 0.99999998 t", "q Q0 b 0 0.99999999 t", "q Q0 c 0 0.99999997 t"),
        "bac",
    ),
    "no ranks, probabilities below the least float32": (
        lines("q Q0 a 1e-60 t", "q Q0 b 1e-50 t", "q Q0 c 0 t"),
        "bac",
    ),
    "negative zero beside zero": (lines("q Q0 b 0 -0.0 t", "q Q0 a 0 0.0 t"), "ba"),
    "a tied block in the middle": (
        lines("q Q0 a 1 1 t", "q Q0 b 2 3 t", "q Q0 c 2 9 t", "q Q0 d 2 5 t", "q Q0 e 3 7 t"),
        "acdbe",
    ),
    "ranks below zero": (lines("q Q0 a -1 9 t", "q Q0 b -3 1 t", "q Q0 c 0 5 t"), "bac"),
    "ranks with plus signs and gaps": (lines("q Q0 a +30 9 t", "q Q0 b +4 +1.5 t"), "ba"),
    "ranks at both ends of 64 bits": (
        lines(f"q Q0 a {2**63 - 1} 1 t", f"q Q0 b {-(2**63)} 2 t"),
        "ba",
    ),
    "best line last, ranks upwards": (lines("q Q0 a 3 1 t", "q Q0 b 2 2 t", "q Q0 c 1 3 t"), "cba"),
    "two runs of one query in one file": (
        lines("q Q0 a 1 3 x", "q Q0 b 2 2 x", "q Q0 b 1 9 y", "q Q0 c 2 8 y"),
        "bac",
    ),
    "a query whose lines stand apart": (
        lines("q Q0 a 1 3 t", "p Q0 z 1 1 t", "q Q0 b 2 2 t"),
        "ab",
    ),
    "ids in quotes": (lines('q Q0 "a" 1 3 t', "q Q0 'b' 2 2 t"), ['"a"', "'b'"]),
    "tabs, spaces and vertical tabs together": (
        lines("q\tQ0  a \t1\x0b 3 t", " q Q0\x0cb 2\t\t2 t "),
        "ab",
    ),
    "the largest and smallest float32": (
        lines("q Q0 a 0 -3.4028234e38 t", "q Q0 b 0 3.4028234e38 t", "q Q0 c 0 1e-45 t"),
        "bca",
    ),
    "scores of forty digits": (
        lines(f"q Q0 a 0 0.{'3' * 40} t", f"q Q0 b 0 0.{'3' * 39}4 t"),
        "ab",  # equal as doubles: the order of the lines
    ),
    "ids that are numbers, no ranks": (lines("7 Q0 12 3.5 run", "7 Q0 13 9 run"), ["13", "12"]),
    "MS MARCO's three columns": (lines("q b 2", "q a 1"), "ab"),
    "packed twice over, as parts": (
        gzip.compress(lines("q Q0 a 2 1 t")) + gzip.compress(lines("q Q0 b 1 2 t")),
        "ba",
    ),
}


@pytest.mark.parametrize("case", ORDERS)
def test_order(case, tmp_path):
    content, expected = ORDERS[case]
    table, _ = read_trec_run(written(tmp_path, content))
    assert next(iter(ranking(table).values())) == list(expected)


@quick
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-1, 2),
            st.one_of(
                st.floats(0.9999999, 1.0), st.floats(-1e-40, 1e-40), st.sampled_from([0.0, -0.0, 5])
            ),
        ),
        min_size=1,
        max_size=12,
    ),
    ranked=st.booleans(),
)
def test_any_ranks_and_scores_stand_by_rank_then_score_then_line(rows, ranked, tmp_path_factory):
    """Property: as a naive sort of doubles."""
    docs = [f"d{i}" for i in range(len(rows))]
    text = [f"q Q0 {d} {r} {s!r} t" for d, (r, s) in zip(docs, rows, strict=True)]
    if not ranked:
        text = [f"q Q0 {d} {float(s)!r} t" for d, (_, s) in zip(docs, rows, strict=True)]
    keys = [(r if ranked else 0, -s) for r, s in rows]
    expected = [docs[i] for i in sorted(range(len(docs)), key=keys.__getitem__)]
    table, _ = read_trec_run(written(tmp_path_factory.mktemp("run"), lines(*text)))
    assert ranking(table) == {"q": expected}


# --- refused in words -----------------------------------------------------------------------------

REFUSED = {
    "ranks with exponents": (lines("q Q0 a 1e0 3 t"), "an integer rank and a score .* '1e0'"),
    "scores in hexadecimal": (lines("q Q0 a 1 0x1p3 t"), "a score .* found '1' and '0x1p3'"),
    "decimal commas": (lines("q Q0 a 1 3,5 t"), "a score .* found '1' and '3,5'"),
    "columns parted by commas": (lines("q,Q0,a,1,3,t"), r"expected six columns .*\), found 1"),
    "lines that end in CR alone": (b"q Q0 a 1 3 t\rq Q0 b 2 2 t\r", "six columns .* found 12"),
    "UTF-16": ("q Q0 a 1 3 t\n".encode("utf-16"), "line 1: expected UTF-8, .* with iconv"),
    "columns parted by no-break spaces": (
        "q\xa0Q0\xa0a\xa01\xa03\xa0t\n".encode(),
        "expected six columns .* found 1",
    ),
    "a header of names": (
        lines("qid Q0 docid rank score tag", "q Q0 a 1 3 t"),
        "line 1: expected an integer rank and a score .* found 'rank' and 'score'",
    ),
    "a score beyond doubles": (lines("q Q0 a 1 1e400 t"), "a finite rank and score, .*'1e400'"),
    "infinity in words": (lines("q Q0 a 1 -Infinity t"), "a finite rank and score, .*'-Infinity'"),
    "the first number that is no float32": (
        lines("q Q0 a 1 3.4028235678e38 t"),
        "a finite rank and score",
    ),
    "judgements": (lines("q 0 a 1"), "line 1: expected a run, .* looks like judgements"),
    "no ranks, a number as tag": (lines("q Q0 12 3.5 7"), "expected six columns .* found 5"),
    "ends of lines that only Unicode knows": (
        "q Q0 a 1 3 t\u2028q Q0 b 2 2 t\n".encode(),
        "six columns .* found 11",
    ),
    "JSON lines": (lines('{"qid": "q", "doc": "a", "rank": 1}'), "expected a list retrieved_pass"),
    "a page of a server": (lines("<html> <body> 404 not found </html>"), "rank and a score"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    content, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        read_trec_run(written(tmp_path, content))
    assert "x.run, line 1" in str(error.value)


# --- counted and said -----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\xa0", "\u2007", "\u202f"], ids=ascii)
def test_an_id_that_ends_in_a_space_that_is_none(mark, tmp_path):
    """It looks like the collection's and matches none."""
    path = written(tmp_path, lines(f"q Q0 a{mark} 1 3 t", "q Q0 b 2 2 t"))
    with pytest.warns(UserWarning, match=f"line 1: the id 'a.*U\\+{ord(mark):04X}"):
        _, counts = read_trec_run(path)
    assert counts[INVISIBLE] == 1


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


COUNTED = {
    "two runs of other documents in one file": (
        lines("q1 Q0 d0 1 3 x", "q1 Q0 d1 2 2 x", "q1 Q0 d2 1 9 y", "q1 Q0 d3 2 8 y"),
        {"queries_ordered_by_score": 1, "duplicates": 0},
        ["d2", "d0", "d3", "d1"],
        "documents of 1 queries share a rank",
    ),
    "scores that fall where ranks rise, lower is better": (
        lines("q1 Q0 d0 1 0.1 t", "q1 Q0 d1 2 0.4 t", "q1 Q0 d2 3 0.9 t"),
        {"queries_with_scores_against_ranks": 1, "queries_ordered_by_score": 0},
        ["d0", "d1", "d2"],
        None,
    ),
    "one score for all, no ranks": (
        lines("q1 Q0 d4 1.5 t", "q1 Q0 d1 1.5 t", "q1 Q0 d2 1.5 t"),
        {"queries_with_constant_scores": 1, "queries_ordered_by_score": 0},
        ["d4", "d1", "d2"],
        None,
    ),
    "ids in another case": (
        lines("q1 Q0 D0 1 3 t", "q1 Q0 d1 2 2 t", "Q1 Q0 d2 1 3 t"),
        {"unknown_documents": 1, "other_queries": 1},
        ["d1"],
        None,
    ),
    "ids as whole floats": (
        lines("q1 Q0 d0.0 1 3 t", "q1 Q0 d1 2 2 t"),
        {"unknown_documents": 1},
        ["d1"],
        None,
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_counted(case, builder, tmp_path_factory):
    content, counted, expected, warning = COUNTED[case]
    folder = tmp_path_factory.mktemp("counted")
    source = TrecRun(paths=(str(written(folder, content)),), depth=5, name="x.run")
    with warnings.catch_warnings(record=True) as said_by:
        warnings.simplefilter("always", UserWarning)
        found, counts, _ = read(builder, small_data(folder), source)
    assert found["q1"] == expected
    assert {name: counts[name] for name in counted} == counted
    sentences = [str(w.message) for w in said_by if issubclass(w.category, UserWarning)]
    assert warning is None or any(warning in sentence for sentence in sentences)


def test_a_teacher_of_distances_is_said(builder, tmp_path):
    """The scores of its run rise: column=score would teach the reverse."""
    lists = six_lists(tmp_path / "six")
    content = lines("q1 Q0 d0 1 0.1 t", "q1 Q0 d1 2 0.4 t", "q2 Q0 d2 1 0.2 t", "q2 Q0 d0 2 0.3 t")
    path = str(written(tmp_path, content))
    with pytest.warns(UserWarning, match=r"2 of 2 lists rank a document above .* set column=rank"):
        builder.get(RunFile(paths=(path,), column="score").scores(lists, "fp32"))
    by_rank = builder.get(RunFile(paths=(path,)).scores(lists, "fp32"))
    assert said(by_rank)["q1"] == {"d0": 1.0, "d1": 2.0}


def test_teachers_ranks_follow_scores_that_are_one_float32(builder, tmp_path):
    lists = six_lists(tmp_path / "six")
    content = lines("q1 Q0 d0 0 0.99999998 t", "q1 Q0 d1 0 0.99999999 t")
    teacher = RunFile(paths=(str(written(tmp_path, content)),))
    with pytest.warns(UserWarning, match="documents of 1 queries share a rank"):
        ranks = said(builder.get(teacher.scores(lists, "fp32")))["q1"]
    assert ranks == {"d1": 1.0, "d0": 2.0}
    assert math.isclose(np.float32(0.99999998), np.float32(0.99999999), rel_tol=0)
