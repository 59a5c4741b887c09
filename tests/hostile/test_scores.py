"""Scores keep their meaning at the ends of what floats can hold, in files, teachers and runs."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
import pytrec_eval
from asked_model import ABC, judge
from hypothesis import given, settings
from hypothesis import strategies as st
from six_documents import said, six_lists

from raypipe.evaluation.measures import bounded, evaluate
from raypipe.evaluation.ranking import rerank, write_trec_run
from raypipe.inference.llm.base import Answer, choice_logprobs
from raypipe.inference.llm.thinking import cut_in_thinking
from raypipe.records import CANDIDATES, QRELS, RUN
from raypipe.runs.baselines import _unknown_last
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables.scales import min_max, zscore
from raypipe.tables.trec_run import read_trec_run
from raypipe.teachers.ensemble import combine
from raypipe.teachers.llm.pointwise import Pointwise
from raypipe.teachers.published.scores import EnsembleScores, MonoScores

quick = settings(deadline=None, max_examples=60, database=None)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
NEAR = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0, 1 + 2**-23, 16777216.0, 3e38, -3e38])


def run_of(docs: list[str], scores: list[float]) -> pa.Table:
    return pa.table([["q"], [docs], [scores]], schema=RUN)


# --- files of runs --------------------------------------------------------------------------------


@quick
@given(st.lists(NEAR | FINITE, min_size=1, max_size=12), st.randoms(), st.integers(0, 12))
def test_pytrec_eval_reads_the_reported_values_from_any_scores(scores, rng, depth):
    """Property: whatever floats a model gives, ties and both zeros among them."""
    docs = [f"d{i}" for i in range(len(scores))]
    rng.shuffle(docs)
    text = io.StringIO()
    try:
        write_trec_run(text, run_of(docs, scores), "t", depth=depth)
    except ValueError as error:
        assert "there is no float32 below it" in str(error)
        return
    found = {line.split()[2]: float(line.split()[4]) for line in text.getvalue().splitlines()}
    judged = {doc: i % 3 for i, doc in enumerate(docs)}
    qrels = pa.table([["q"] * len(docs), list(judged), list(judged.values())], schema=QRELS)
    names = ("nDCG@10", "RR", "AP")
    values = evaluate(run_of(docs, scores), qrels, names)
    reported = dict(zip(values["measure"].to_pylist(), values["value"].to_pylist(), strict=True))
    theirs = pytrec_eval.RelevanceEvaluator({"q": judged}, {"ndcg_cut.10", "recip_rank", "map"})
    measured = theirs.evaluate({"q": found})["q"]
    order = [measured["ndcg_cut_10"], measured["recip_rank"], measured["map"]]
    assert [reported[name] for name in names] == pytest.approx(order)
    assert sorted(found, key=found.__getitem__, reverse=True) == docs


FALLING = {
    "zeros of both signs": ([0.0, -0.0, 0.0], ["0", "-1.40129846e-45", "-2.80259693e-45"]),
    "a tie at the least float": ([1e-45, 0.0, 0.0], ["1.40129846e-45", "0", "-1.40129846e-45"]),
    "whole numbers where floats have no halves": (
        [16777216.0, 16777216.0],
        ["16777216", "16777215"],
    ),
    "a tie of the largest": ([3e38, 3e38], ["3.00000001e+38", "2.9999998e+38"]),
    "log-odds that clipped alike": ([50.0, 50.0, -50.0], ["50", "49.9999962", "-50"]),
}


@pytest.mark.parametrize("case", FALLING)
def test_ties_fall_by_one_float(case, tmp_path):
    scores, expected = FALLING[case]
    docs = [f"d{i}" for i in range(len(scores))]
    write_trec_run(tmp_path / "x.run", run_of(docs, scores), "t")
    text = (tmp_path / "x.run").read_text()
    assert [line.split()[4] for line in text.splitlines()] == expected
    assert read_trec_run(tmp_path / "x.run")[0]["doc_ids"].to_pylist() == [docs]


def test_the_tail_stays_below_a_head_at_the_least_float():
    run = run_of(["a", "b", "c"], [0.0, 9.0, 9.0])
    text = io.StringIO()
    assert write_trec_run(text, run, "t", depth=1) == (3, 2)
    scores = [float(line.split()[4]) for line in text.getvalue().splitlines()]
    assert scores[0] == 0 > scores[1] > scores[2] and text.getvalue().count("-first-stage") == 2


@quick
@given(st.lists(NEAR | FINITE, min_size=1, max_size=9), st.integers(1, 9))
def test_scores_equal_in_float32_change_nothing(scores, depth):
    """Property: doubles within half a float32 of each other are one score."""
    docs = [f"d{i}" for i in range(len(scores))]
    lists = [["q"], [docs], [list(range(1, len(docs) + 1))], [scores], [["s"] * len(docs)]]
    close = np.nextafter(np.float64(1.0), 2, dtype=np.float64)
    given_scores = [close if i % 2 else 1.0 for i in range(min(depth, len(docs)))]
    run = rerank(pa.table(lists, schema=CANDIDATES), {"q": given_scores}, depth)
    assert run["doc_ids"].to_pylist() == [docs]


# --- scales of teachers ---------------------------------------------------------------------------

SCALES = {
    "squares beyond doubles": ([1e200, -1e200], [1.0, -1.0], [1.0, 0.0]),
    "a span beyond doubles": ([1e308, -1e308], [1.0, -1.0], [1.0, 0.0]),
    "squares below doubles": ([1e-200, 3e-200], [-1.0, 1.0], [0.0, 1.0]),
    "the least double": ([5e-324, 0.0], [1.0, -1.0], [1.0, 0.0]),
    "one huge among usual": ([1e300, 1.0, 0.0], [2**0.5, -(0.5**0.5), -(0.5**0.5)], [1, 0, 0]),
    "both zeros": ([0.0, -0.0], [0.0, 0.0], [0.0, 0.0]),
}


@pytest.mark.parametrize("case", SCALES)
def test_scales(case):
    values, z, unit = (np.array(column) for column in SCALES[case])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(zscore(values), z, atol=1e-12)
        np.testing.assert_allclose(min_max(values), unit, atol=1e-12)


@quick
@given(
    st.lists(st.integers(-1000, 1000), min_size=2, max_size=8, unique=True), st.integers(-900, 900)
)
def test_a_teachers_scale_does_not_matter_however_large(values, power):
    """Property: an ensemble's values are those of any power of two of its members'."""
    docs = [f"d{i}" for i in range(len(values))]
    scaled = np.ldexp(np.array(values, float), power)
    lists = {"a": dict(zip(docs, map(float, values), strict=True))}
    lists["b"] = dict(zip(docs, scaled.tolist(), strict=True))
    members: Any = {"a": ("score", 1.0), "b": ("score", 1.0)}
    _, mean, _ = combine(lists, members, "z")
    np.testing.assert_allclose(mean, zscore(np.array(values, float)), rtol=1e-9)


@quick
@given(
    st.lists(st.none() | FINITE | NEAR, min_size=1, max_size=9),
)
def test_documents_that_a_teacher_does_not_know_stand_last(values):
    """Property: also where its values are so large that a step of one is none."""
    known = [np.nan if v is None or abs(v) > 1e37 else float(v) for v in values]
    scores = np.asarray(_unknown_last(known), np.float32)
    unknown = np.isnan(known)
    assert not unknown.any() or unknown.all() or scores[unknown].max() < scores[~unknown].min()
    assert (np.diff(scores[unknown]) < 0).all()


@pytest.fixture
def teach(tmp_path):
    lists = six_lists(tmp_path / "six")
    builder = Builder(Store(str(tmp_path / "store")))

    def values(cls: type[Any], text: str):
        (tmp_path / "t.tsv").write_text(text)
        artifact = builder.get(cls(paths=(str(tmp_path / "t.tsv"),)).scores(lists, "fp32"))
        return said(artifact)["q1"], artifact.counts

    return values


FILES = {
    "softmax of logits beyond float32": (
        MonoScores, "q1\td0\t1e39\t0\nq1\td1\t-1e39\t0\n", {"d0": 0.0, "d1": -1e39}, 0,
    ),
    "logits of one infinity": (
        MonoScores, "q1\td0\tinf\t0\nq1\td1\t0\t0\n", {"d1": -math.log(2)}, 1,
    ),
    "negative zero as a probability's log": (MonoScores, "q1\td0\t-0.0\n", {"d0": 0.0}, 0),
    "NaN in one of two scores of a triple": (
        EnsembleScores, "nan\t2\tq1\td0\td1\n", {"d1": 2.0}, 1,
    ),
    "a document scored by a number and by NaN": (
        MonoScores, "q1\td0\t4\nq1\td0\tNaN\n", {"d0": 4.0}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_numbers_of_teachers_files(case, teach):
    cls, text, expected, wrong = FILES[case]
    values, counts = teach(cls, text)
    assert values == pytest.approx(expected) and counts["values_not_finite"] == wrong


# --- answers of language models -------------------------------------------------------------------

ANSWERS = {
    "yes that stands under two tokens": (
        [("Yes", math.log(0.2)), ("▁Yes", math.log(0.2)), ("No", math.log(0.1))],
        math.log(4), 0,
    ),
    "no alone among the likeliest": ([("No", -0.01), ("The", -5.0)], -4.99, 1),
    "probabilities that are one to float32": ([("Yes", -1e-9), ("No", -21.0)], 21.0, 0),
    "a likeliest token of log-probability 0": ([("Yes", 0.0), ("No", -103.0)], 103.0, 0),
    "minus infinity for no": ([("Yes", -0.1), ("No", -math.inf)], 50.0, 1),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_log_odds_of_tokens(case):
    top, expected, clipped = ANSWERS[case]
    logprobs = choice_logprobs(top, ("Yes", "No"))
    missing = not {"Yes", "No"} <= {token.strip("▁ ") for token, _ in top}

    (row,), counts, _ = judge(Pointwise(), lambda _: Answer("", logprobs, clipped=missing), ABC)
    assert row["values"] == pytest.approx([expected] * 3)
    assert counts["answers_clipped"] == 3 * clipped


THOUGHTS = {
    "a second thought that is cut": ("<think>no</think> Yes <think>but", True),
    "marks in capitals": ("<THINK>The passage", True),
    "Magistral's marks, closed": ("[THINK]hm[/THINK]No", False),
    "an end without a beginning": ("so it is.</think>Yes", False),
    "a mark of another kind, quoted": ("`<thinker>` is yes", False),
}


@pytest.mark.parametrize("case", THOUGHTS)
def test_answers_cut_in_thinking(case):
    text, cut = THOUGHTS[case]
    assert cut_in_thinking(text) is cut
    (row,), counts, _ = judge(Pointwise(), lambda _: Answer(text), ABC)
    assert counts["answers_cut_in_thinking"] == 3 * cut
    assert len(row["values"]) == (0 if cut else 3)
    if not cut:
        assert set(row["values"]) == {0.0 if text.endswith("No") else 1.0}


@dataclass(frozen=True)
class Named:
    """What `bounded` makes of a measure on lists of 7."""

    given: str
    expected: str
    same: ClassVar[str] = "ir_measures"


@pytest.mark.parametrize(
    "named",
    [Named("MAP", "MAP@7"), Named("AP(rel=2)", "AP(rel=2)@7"), Named("AP(rel=2)@3", "AP(rel=2)@3"),
     Named("nDCG", "nDCG"), Named("RR", "RR"), Named("infAP", "infAP")],
    ids=lambda named: named.given,
)  # fmt: skip
def test_measures_named_by_the_depth_of_lists(named):
    assert bounded(named.given, 7) == named.expected
    ir_measures.parse_measure(named.expected)
