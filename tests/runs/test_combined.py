"""Runs made of runs: numbers worked by hand, naive oracles, what is refused. No cluster."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from given_runs import Given, GivenRun, Lists, model_run, queries
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.models.averages import AveragedWeights
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.records import RUN
from raypipe.runs import combined as ensembles
from raypipe.runs.combined import (
    BestInterpolation,
    InterpolatedRun,
    SeedEnsembleRun,
    interpolate,
    mean_of_z,
)
from raypipe.storage.artifacts import Artifact, Store
from raypipe.storage.builder import Builder

Z = 1.5**0.5  # of three equally spaced values: sqrt(3/2), 0, -sqrt(3/2)


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def lists_of(run: Artifact) -> dict[str, list[tuple[str, float]]]:
    return {
        row["query_id"]: list(zip(row["doc_ids"], row["scores"], strict=True))
        for row in run.table().to_pylist()
    }


def approx(pairs: list[tuple[str, float]]) -> list[tuple[str, Any]]:
    return [(doc_id, pytest.approx(score, abs=1e-6)) for doc_id, score in pairs]


FIRST: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0, "t": 50.0}, "r": {"x": 3.0}, "none": {}}
"""Four, one and no candidates; t is behind the head and keeps what the first stage said."""


# --- ensembles of seeds ------------------------------------------------------------------------


def test_the_mean_of_z_scores_by_hand(builder):
    # z-scores of a, b, c: (Z, 0, -Z) and (-Z, 0, Z) * another scale and shift, and (Z, -Z, 0)
    runs = (
        model_run(FIRST, {"q": [3, 2, 1], "r": [5], "none": []}, 3),
        model_run(FIRST, {"q": [100, 200, 300], "r": [-5], "none": []}, 3),
        model_run(FIRST, {"q": [0.5, 0.1, 0.3], "r": [5], "none": []}, 3),
    )
    found = builder.get(SeedEnsembleRun(runs))
    assert lists_of(found) == {
        "q": approx([("a", Z / 3), ("c", 0.0), ("b", -Z / 3), ("t", 50.0)]),
        "r": [("x", 0.0)],
        "none": [],
    }
    assert found.counts == {"rows": 3, "runs": 3, "constant_lists": 0}
    assert found.table().schema == RUN


def test_one_mean_of_z_scores_by_hand():
    found = mean_of_z([np.array([3.0, 2.0, 1.0]), np.array([10.0, 10.0, 40.0])])
    np.testing.assert_allclose(found, [(Z - 0.5**0.5) / 2, -(0.5**0.5) / 2, (2**0.5 - Z) / 2])


def test_equal_means_keep_the_first_stages_order_and_constant_lists_are_counted(builder):
    first = {"q": {"b": 2.0, "a": 1.0}, "r": {"d": 2.0, "c": 1.0}}
    runs = (
        model_run(first, {"q": [1, 2], "r": [7, 7]}, 2),
        model_run(first, {"q": [2, 1], "r": [1, 0]}, 2),
    )
    found = builder.get(SeedEnsembleRun(runs))
    assert lists_of(found) == {"q": [("b", 0), ("a", 0)], "r": [("d", 0.5), ("c", -0.5)]}
    assert found.counts["constant_lists"] == 1


def naive(first: Lists, models: list[dict[str, list[float]]], depth: int) -> dict[str, list[str]]:
    """Every list by a loop over documents."""
    out = {}
    for q, one in first.items():
        head, total = list(one)[:depth], dict.fromkeys(list(one)[:depth], 0.0)
        for scores in models:
            # a run holds float32
            values = [float(np.float32(v)) for v in scores[q]]
            mean = sum(values) / len(values)
            deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            for doc_id, value in zip(head, values, strict=True):
                total[doc_id] += (value - mean) / deviation / len(models)
        out[q] = sorted(head, key=lambda d: -total[d]) + list(one)[depth:]
    return out


def test_many_queries_in_blocks_like_the_naive_loop(builder, monkeypatch):
    monkeypatch.setattr(ensembles, "BLOCK", 3)
    rng = np.random.default_rng(4)
    first, models = {}, [{}, {}, {}]
    for i in range(10):
        count = int(rng.integers(2, 9))
        ids = rng.permutation(20)[:count]
        first[f"q{i}"] = {f"d{d}": float(v) for d, v in zip(ids, range(count, 0, -1), strict=True)}
        for scores in models:
            scores[f"q{i}"] = rng.normal(size=min(count, 5)).tolist()
    runs = tuple(model_run(first, one, 5) for one in models)
    found = builder.get(SeedEnsembleRun(runs))
    expected = naive(first, models, 5)
    assert {q: [d for d, _ in one] for q, one in lists_of(found).items()} == expected
    assert found.counts["rows"] == 10


SCORES = st.lists(
    st.lists(st.integers(-40, 40).map(float), min_size=4, max_size=4).map(np.array),
    min_size=2,
    max_size=4,
)


@settings(deadline=None, max_examples=100, database=None)
@given(SCORES, st.sampled_from([0.5, 4.0]), st.integers(-9, 9), st.randoms(use_true_random=False))
def test_order_scale_and_shift_of_members_do_not_matter(scores, scale, shift, rng):
    found = mean_of_z(scores)
    shuffled = rng.sample(scores, len(scores))
    np.testing.assert_array_equal(mean_of_z(shuffled), found)
    moved = [scale * scores[0] + shift, *scores[1:]]
    np.testing.assert_allclose(mean_of_z(moved), found, rtol=0, atol=1e-12)
    assert abs(found.mean()) < 1e-12 and found.std() <= 1 + 1e-12


def test_the_order_of_runs_is_not_in_the_digest():
    one, two, three = (
        model_run(FIRST, {"q": [i, 2, 1], "r": [5], "none": []}, 3) for i in (3, 4, 5)
    )
    assert SeedEnsembleRun((one, two)).digest == SeedEnsembleRun((two, one)).digest
    assert SeedEnsembleRun((one, two)).digest != SeedEnsembleRun((one, three)).digest


def test_runs_that_do_not_belong_together():
    scores = {"q": [3.0, 2, 1], "r": [5.0], "none": []}
    one = model_run(FIRST, scores, 3)
    with pytest.raises(ValueError, match="two different runs, found 1 of which 1 differ"):
        SeedEnsembleRun((one,))
    with pytest.raises(ValueError, match="two different runs, found 2 of which 1 differ"):
        SeedEnsembleRun((one, one))
    shallow = model_run(FIRST, {**scores, "q": [3.0, 2]}, 2)
    with pytest.raises(ValueError, match=r"to the same depth, found 2 .* depths \[2, 3\]"):
        SeedEnsembleRun((one, shallow))
    other = model_run({**FIRST, "r": {"y": 1.0}}, scores, 3)
    with pytest.raises(ValueError, match=r"runs of the same candidates .* found 2"):
        SeedEnsembleRun((one, other))


def test_a_run_without_a_query_or_with_other_documents_is_an_error(builder):
    scores = {"q": [3.0, 2, 1], "r": [5.0], "none": []}
    good = model_run(FIRST, scores, 3)
    rows = json.loads(model_run(FIRST, {**scores, "q": [1.0, 2, 3]}, 3).rows)
    short = GivenRun("run", json.dumps(rows[:1] + rows[2:]), good.candidates, 3, good.queries)
    with pytest.raises(ValueError, match="query 'r': expected a row in every run, found none"):
        builder.get(SeedEnsembleRun((good, short)))
    rows[0]["doc_ids"][1] = "z"
    wrong = GivenRun("run", json.dumps(rows), good.candidates, 3, good.queries)
    with pytest.raises(ValueError, match=r"query 'q': .* first 3 candidates, found 1 other"):
        builder.get(SeedEnsembleRun((good, wrong)))


# --- interpolation -----------------------------------------------------------------------------


def test_interpolation_by_hand():
    model, first = np.array([1.0, 3.0, 2.0]), np.array([30.0, 20.0, 10.0])
    np.testing.assert_allclose(interpolate(model, first, 1.0), [-Z, Z, 0])
    np.testing.assert_allclose(interpolate(model, first, 0.0), [Z, 0, -Z])
    np.testing.assert_allclose(interpolate(model, first, 0.25), [0.5 * Z, 0.25 * Z, -0.75 * Z])


def best(builder: Builder, run: GivenRun, measure: str = "RR@10", **fields: Any) -> Artifact:
    return builder.get(BestInterpolation(run, measure, **fields))


def test_the_weight_that_ranks_validation_best(builder):
    # z(model) = (-Z, Z, 0), z(first) = (Z, 0, -Z), so a has (1 - 2w) Z, b has w Z, c has (w - 1) Z:
    # a is first where 1 - 2w > w, that is w < 1/3; b above. At w = 1 c overtakes a.
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    scores = {"q": [1.0, 3.0, 2.0]}
    found = best(builder, model_run(first, scores, 3, queries(q="a")))
    assert found.counts == {"weight": 0.3, "value": 1.0, "queries": 1}
    tried = found.local() / "weights.parquet"
    table = pq.read_table(tried).to_pydict()
    assert table["weight"] == [i / 10 for i in range(11)]
    # above 2/3, c is ahead of a as well: 1 - 2w < w - 1
    assert table["value"] == [1.0] * 4 + [0.5] * 3 + [1 / 3] * 4


@pytest.mark.parametrize(
    ("relevant", "weight", "value"),
    [
        ("b", 1.0, 1.0),  # b is first for every w > 1/3: the model alone is as good
        ("c", 1.0, 0.5),  # second from w = 2/3 on
        ("absent", 1.0, 0.0),  # nothing helps: all weights are equally good
    ],
)
def test_equally_good_weights_leave_the_model_alone(builder, relevant, weight, value):
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    run = model_run(first, {"q": [1.0, 3.0, 2.0]}, 3, queries(q=relevant))
    assert best(builder, run).counts == {"weight": weight, "value": value, "queries": 1}


def test_the_weight_is_the_best_on_average_and_a_judged_query_without_candidates_counts(builder):
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}, "s": {"a": 9.0, "b": 8.0, "c": 7.0}}
    scores = {"q": [1.0, 3.0, 2.0], "s": [1.0, 3.0, 2.0]}
    run = model_run(first, scores, 3, queries(q="a", s="b", gone="a"))
    # w <= .3: 1 + 1/2; .4 to .6: 1/2 + 1; from .7: 1/3 + 1, over three queries
    counts = best(builder, run).counts
    assert counts == {"weight": 0.6, "value": pytest.approx(0.5), "queries": 3}
    again = best(builder, run, grid=(0.0, 0.5)).counts
    assert again == {"weight": 0.5, "value": pytest.approx(0.5), "queries": 3}


def test_the_chosen_weight_is_applied_to_other_queries(builder):
    validation: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    weight = BestInterpolation(
        model_run(validation, {"q": [1.0, 3.0, 2.0]}, 3, queries(q="a")), "RR@10"
    )
    test: Lists = {"p": {"x": 3.0, "y": 2.0, "z": 1.0, "t": 7.0}, "o": {"v": 1.0, "w": 2.0}}
    run = model_run(test, {"p": [0.0, 20.0, 10.0], "o": [1.0, 2.0]}, 3)
    found = builder.get(InterpolatedRun(run, weight))
    # w = .3: .3 (-Z, Z, 0) + .7 (Z, 0, -Z)
    assert lists_of(found) == {
        "p": approx([("x", 0.4 * Z), ("y", 0.3 * Z), ("z", -0.7 * Z), ("t", 7.0)]),
        "o": [("w", 1.0), ("v", -1.0)],
    }
    counts = {"rows": 2, "weight": 0.3, "queries_with_scores_against_ranks": 1}
    assert found.counts == counts


def fused(values: Lists) -> Given:
    """Values of candidates by query, in any order of the documents."""
    rows = [
        {"query_id": q, "doc_ids": list(v), "values": list(v.values())} for q, v in values.items()
    ]
    return Given("teacher", json.dumps(rows))


def test_a_fusion_takes_the_place_of_the_first_stage(builder):
    """The candidates' own scores say nothing then, and its documents are found by their ids."""
    first: Lists = {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}
    run = model_run(first, {"q": [1.0, 3.0, 2.0]}, 3, queries(q="a"))
    weight = BestInterpolation(run, "RR@10", fusion=fused({"q": {"c": 10.0, "a": 30.0, "b": 20.0}}))
    assert builder.get(weight).counts == {"weight": 0.3, "value": 1.0, "queries": 1}
    alone = BestInterpolation(run, "RR@10")
    assert builder.get(alone).counts["weight"] == 0.0  # equal scores leave the order as it was
    assert alone.digest != weight.digest
    test: Lists = {"p": {"x": 3.0, "y": 2.0, "z": 1.0, "t": 7.0}}
    run = model_run(test, {"p": [0.0, 20.0, 10.0]}, 3)
    values = fused({"p": {"z": 9.0, "y": 8.0, "x": 7.0, "t": 99.0}})
    found = builder.get(InterpolatedRun(run, weight, values))
    # .3 (-Z, Z, 0) + .7 (-Z, 0, Z)
    expected = [("z", 0.7 * Z), ("y", 0.3 * Z), ("x", -Z)]
    assert lists_of(found)["p"][:3] == approx(expected)
    assert found.counts["queries_with_scores_against_ranks"] == 0


@pytest.mark.parametrize(("weight", "order"), [(0.0, "abc"), (1.0, "bca")])
def test_the_ends_of_the_grid_are_first_stage_and_model(builder, weight, order):
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    run = model_run(first, {"q": [1.0, 3.0, 2.0]}, 3)
    found = builder.get(InterpolatedRun(run, BestInterpolation(run, "RR@10", (weight,))))
    assert "".join(d for d, _ in lists_of(found)["q"]) == order


def test_an_ensemble_can_be_interpolated(builder):
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    judged = queries(q="b")
    one = model_run(first, {"q": [1.0, 3.0, 2.0]}, 3, judged)
    two = model_run(first, {"q": [1.0, 2.0, 3.0]}, 3, judged)
    ensemble = SeedEnsembleRun((one, two))
    weight = BestInterpolation(ensemble, "RR@10")
    found = builder.get(InterpolatedRun(ensemble, weight))
    # means of z-scores: -Z, Z / 2, Z / 2, whose own z-scores are -sqrt(2), sqrt(1/2), sqrt(1/2). At
    # w = 1 b and c are equal and b comes first by its id, so the model alone is best already.
    assert builder.get(weight).counts == {"weight": 1.0, "value": 1.0, "queries": 1}
    assert lists_of(found)["q"] == approx([("b", 0.5**0.5), ("c", 0.5**0.5), ("a", -(2**0.5))])


def test_what_cannot_be_interpolated(builder):
    first: Lists = {"q": {"a": 9.0, "b": 8.0, "c": 7.0}}
    run = model_run(first, {"q": [1.0, 3.0, 2.0]}, 3)
    shallow = model_run(first, {"q": [1.0, 3.0]}, 2)
    with pytest.raises(ValueError, match="a weight chosen at depth 3, found one at 2"):
        InterpolatedRun(run, BestInterpolation(shallow, "RR@10"))
    for grid in ((), (0.5, 1.1), (-0.1,)):
        with pytest.raises(ValueError, match=r"grid: expected weights in \[0, 1\]"):
            BestInterpolation(run, "RR@10", grid)
    infinite = model_run({"q": {"a": float("inf"), "b": 8.0}}, {"q": [1.0, 3.0]}, 3)
    with pytest.raises(ValueError, match="query 'q': expected finite first-stage scores"):
        builder.get(BestInterpolation(infinite, "RR@10"))


# --- with the steps of a recipe ----------------------------------------------------------------


def test_steps_of_a_recipe_fit(recipe):
    seeds = [load(Experiment, recipe, [f"seed={seed}"]) for seed in (1, 2)]
    weights = AveragedWeights(tuple(one.trained() for one in seeds))
    runs = tuple(one.run_of(one.trained()) for one in seeds)
    ensemble = SeedEnsembleRun(runs)
    best = BestInterpolation(ensemble, "nDCG@10")
    steps = [weights, seeds[0].run_of(weights), ensemble, best, InterpolatedRun(ensemble, best)]
    assert len({one.digest for one in steps}) == len(steps)
    for step in steps:
        again = pickle.loads(pickle.dumps(step))
        assert again.digest == step.digest and again.path == step.path
        assert json.loads(json.dumps(step.spec())) == step.spec()
    assert seeds[0].metrics(ensemble).inputs()["run"] is ensemble
