"""The sentence that ends a job: what it says of each outcome, with the figures of the tests."""

from __future__ import annotations

import numpy as np
import pytest
from tracked_jobs import FEW

from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.report.verdict import verdict_sentence
from raypipe.evaluation.results import Row
from raypipe.evaluation.significance import PairedTest, paired_test

RNG = np.random.default_rng(0)
BASE = RNG.uniform(0.2, 0.6, 100)
NOISE = RNG.normal(0.0, 0.1, 100)
NOISE -= NOISE.mean()


def row(name: str, kind: str, *seeds: np.ndarray) -> Row:
    results = [{"nDCG@10": {f"q{i}": float(v) for i, v in enumerate(values)}} for values in seeds]
    numbers = tuple(range(1, len(seeds) + 1)) if kind == "trained" else ()
    return Row(name, kind, {"test": results}, numbers)


def said(*models: Row, references=("BM25",), best="cl", queries=100, **more) -> str:
    rows = (row("BM25", "first_stage", BASE[:queries]), *models)
    facts = (SetFacts("test", ("a test set",), ("nDCG@10",)),)
    return verdict_sentence(Report("a", rows, facts, references, FEW, **more), best)


def test_a_better_checkpoint():
    sentence = said(row("cl", "trained", BASE + 0.05 + NOISE))
    shown = paired_test(BASE + 0.05 + NOISE, BASE).detectable()
    assert sentence == (
        "this checkpoint of cl (one seed) is .050 nDCG@10 above BM25 on 100 queries, p <.001; "
        f"these queries could show {f'{shown:.3f}'[1:]}"
    )


def test_a_recipe_of_several_seeds_that_is_worse():
    sentence = said(row("cl", "trained", BASE - 0.05 + NOISE, BASE - 0.05 + NOISE[::-1]))
    assert sentence.startswith("cl (2 seeds) is .050 nDCG@10 below BM25 on 100 queries, p <.001;")


def test_the_side_of_the_reference():
    """`raypipe train` tests the first stage against the model; the sentence speaks of the model."""
    model = row("cl", "trained", BASE + 0.05 + NOISE)
    assert said(model, references=("cl",)) == said(model)


def test_what_may_be_chance_and_what_is_equal():
    chance = said(row("cl", "trained", BASE + 0.002 + NOISE))
    assert "is .002 nDCG@10 above BM25 on 100 queries, which may be chance (p ." in chance
    equal = said(row("cl", "trained", BASE - 0.001 + NOISE / 50))
    assert "is equal to BM25 within 0.01 nDCG@10 on 100 queries (by -.001); these" in equal
    same = said(row("cl", "trained", BASE))
    assert same.endswith("ranks as BM25 does: no nDCG@10 of 100 queries differs")


def test_one_query_cannot_be_judged():
    sentence = said(row("cl", "trained", BASE[:1] + 0.1), queries=1)
    assert sentence.endswith("is .100 nDCG@10 above BM25 on 1 query, which no test can judge")


def test_three_queries_show_nothing():
    model = row("cl", "trained", BASE[:3] + np.array([0.5, -0.4, 0.2]))
    chance = "which may be chance (p .742); these queries are too few to show any"
    assert said(model, queries=3).endswith(chance)


def test_what_nobody_tests():
    model = row("cl", "trained", BASE + 0.05)
    means = f"has nDCG@10 {BASE.mean() + 0.05:.3f} on 100 queries, BM25 {BASE.mean():.3f}; "
    means = means.replace("0.", ".")
    assert said(model, references=()).endswith(f"{means}nothing is tested without a `reference`")
    assert f"{means}a search tests nothing" in said(model, mode="search")


def test_another_reference_where_the_first_stage_is_not_tested():
    models = [row("cl", "trained", BASE + 0.05), row("kd", "trained", BASE + NOISE)]
    assert "above kd on 100 queries" in said(*models, references=("kd",))


@pytest.mark.parametrize("best", ["", "cl"])
def test_no_model(best):
    failed = Row("cl", "trained", {}, (1,), error="OSError: no disk")
    assert said(failed, best=best).startswith("no model was trained to its end")


def test_a_detectable_difference_is_found_in_four_of_five_repetitions():
    """3,000 repetitions with the error that 100 queries have: .8 is known to .007."""
    values = RNG.normal(0.0, 0.2, (3000, 100))
    true = PairedTest(0.0, 0.2 / 10, 99.0).detectable(0.05)
    found = [paired_test(sample + true, np.zeros(100)).p < 0.05 for sample in values]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)
