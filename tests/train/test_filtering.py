"""The filter by hand, on streams whose easy and hard groups are known, and across a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from raypipe.losses.listwise import InfoNCE
from raypipe.train.filtering import (
    Filtering,
    LossFilter,
    in_order,
    keeping,
    step_weights,
    threshold_of,
)
from raypipe.train.predictor import FEATURES, Logistic, group_features

ONES = np.ones(4)


def backward(one: LossFilter, losses) -> list[bool]:
    one.forward_all(len(losses))
    return one.backward(np.array(losses)).tolist()


def test_thresholds_by_hand():
    losses = np.array([1.0, 4.0, 2.0, 3.0])
    assert threshold_of(losses, ONES, Filtering()) == 2.5
    # a threshold with at least 1 - quantile of the losses at or above it
    for quantile, expected in ((0.0, 1.0), (0.25, 2.0), (0.3, 2.0), (0.5, 3.0), (0.8, 4.0)):
        config = Filtering(threshold="quantile", quantile=quantile)
        assert threshold_of(losses, ONES, config) == expected
    # a probe of share .5 stands for two groups: (2*1 + 4 + 2 + 3) / 5
    weights = np.array([2.0, 1.0, 1.0, 1.0])
    assert threshold_of(losses, weights, Filtering()) == 2.2
    assert keeping(losses, weights, 0.6) == 2.0 and keeping(losses, weights, 0.61) == 1.0
    assert keeping(losses, weights, 0.0) == 4.0 and keeping(losses, weights, 1.0) == 1.0


def test_a_fixed_threshold_is_the_mean_of_the_window_at_the_end_of_the_warm_up():
    one = Filtering(warmup_queries=10, window=8, min_keep=0).build()
    assert one.threshold is None
    assert backward(one, [100.0, 100.0]) == [True, True]
    assert backward(one, [0.0] * 4) == [True] * 4  # still warming up
    assert one.threshold is None
    assert backward(one, [4.0] * 4) == [True] * 4
    assert one.threshold == 2.0  # the hundreds have left the window of 8
    assert backward(one, [1.99, 2.0, 2.01, 50.0]) == [False, True, True, True]  # equal is kept
    assert one.threshold == 2.0
    assert one.summary() == {
        "queries": 14,
        "warmup": 10,
        "skipped_forward": 0,
        "probes": 0,
        "skipped_backward": 1,
        "kept_share": 13 / 14,
        "compute": (4 + 3 * 13) / (3 * 14),
        "threshold": 2.0,
    }
    assert "trained on 92.9% of 14 queries: 1 were easier" in one.sentence()


def test_a_following_threshold_is_that_of_before_the_step():
    one = Filtering(warmup_queries=8, window=8, min_keep=0, follow=True).build()
    backward(one, [2.0] * 8)
    assert backward(one, [1.0, 9.0, 1.0, 9.0]) == [False, True, False, True]  # 2, not the 5 of now
    assert one.threshold == (4 * 2 + 20) / 8
    assert backward(one, [3.0, 4.0]) == [False, True]


def test_min_keep_lowers_the_threshold_until_enough_of_the_window_reaches_it():
    streams = {}
    for share in (0.0, 0.25, 1.0):
        one = Filtering(warmup_queries=8, window=8, min_keep=share).build()
        backward(one, [10.0] * 8)
        backward(one, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # all below 10, which is fixed
        streams[share] = (one.threshold, backward(one, [6.9, 7.0, 0.5, 9.0]))
    assert streams[0.0] == (10.0, [False, False, False, False])
    assert streams[0.25] == (7.0, [False, True, False, True])
    assert streams[1.0] == (1.0, [True, True, False, True])


def test_a_window_of_equal_losses_keeps_everything():
    one = Filtering(warmup_queries=8, window=8).build()
    backward(one, [0.7] * 8)
    assert backward(one, [0.7] * 4) == [True] * 4


def test_losses_that_are_not_finite_are_kept_and_forgotten():
    one = Filtering(warmup_queries=8, window=8, min_keep=0).build()
    backward(one, [2.0] * 8)
    assert backward(one, [np.nan, np.inf, 1.0]) == [True, True, False]
    assert np.isfinite(one.threshold)
    assert json.dumps(one.state()).count("NaN") == 0


def test_step_weights_divide_by_all_queries():
    keep = np.array([True, False, True, False])
    losses = np.array([4.0, 0.1, 2.0, 0.1])
    assert step_weights(keep).tolist() == [0.25, 0.0, 0.25, 0.0]
    assert float((losses * step_weights(keep)).sum()) == 1.5  # mean over all, less .05
    assert step_weights(np.ones(3, dtype=bool)).sum() == pytest.approx(1.0)
    assert step_weights(np.zeros(0, dtype=bool)).tolist() == []


def test_gathered_losses_take_the_order_of_the_rows():
    rows = np.arange(11.0)
    for world in (1, 2, 3, 11):
        assert in_order([rows[rank::world] for rank in range(world)]).tolist() == rows.tolist()


def test_decisions_do_not_depend_on_the_number_of_workers():
    rng = np.random.default_rng(0)
    stream = [rng.random(7) for _ in range(30)]
    masks = []
    for world in (1, 2, 4):
        one = Filtering(warmup_queries=20, window=16).build()
        masks.append([backward(one, in_order([s[r::world] for r in range(world)])) for s in stream])
    assert masks[0] == masks[1] == masks[2]
    assert any(not all(mask) for mask in masks[0])


def stream(rng, queries: int, hard_share: float = 0.5, informative: bool = True):
    """Groups whose loss is about .1 or about 2, which the first feature tells with some noise."""
    hard = rng.random(queries) < hard_share
    losses = np.where(hard, 2.0, 0.1) * (1 + 0.2 * rng.standard_normal(queries))
    signal = (hard - 0.5) * 4 if informative else np.zeros(queries)
    features = rng.standard_normal((queries, 3))
    features[:, 0] += signal
    return hard, losses, features


def run(one: LossFilter, rng, steps: int, queries: int = 16, **how):
    """Train over a stream; returns which hard and easy groups were run and trained on."""
    rows = []
    for _ in range(steps):
        hard, losses, features = stream(rng, queries, **how)
        run_Q = one.forward(features)
        trained = run_Q.copy()
        trained[run_Q] = one.backward(losses[run_Q])
        rows.append(np.stack([hard, run_Q, trained]))
    return np.concatenate(rows, axis=1)


def test_easy_groups_are_skipped_and_hard_ones_kept():
    one = Filtering(warmup_queries=64, window=64).build()
    hard, run_Q, trained = run(one, np.random.default_rng(0), 40)[:, 64:]
    assert run_Q.all()
    assert trained[hard].all() and not trained[~hard].any()
    summary = one.summary()
    assert summary["skipped_backward"] == (~hard).sum()
    assert summary["kept_share"] == pytest.approx((64 + hard.sum()) / 640)
    assert summary["compute"] < 1


CLASSIFIER = {
    "mode": "backward_forward",
    "warmup_queries": 128,
    "window": 64,
    "memory": 256,
}


def test_the_classifier_skips_forward_passes_of_easy_groups():
    one = Filtering(**CLASSIFIER).build()
    rng = np.random.default_rng(0)
    run(one, rng, 20)
    assert one.acts
    before = one.summary()
    hard, run_Q, trained = run(one, rng, 100)
    after = one.summary()
    # two standard normals four apart overlap by 2.3 % on each side
    assert run_Q[hard].mean() > 0.95
    probes = after["probes"] - before["probes"]
    skipped = after["skipped_forward"] - before["skipped_forward"]
    assert skipped == (~run_Q).sum() and skipped > 0.8 * (~hard).sum()
    assert probes == pytest.approx((skipped + probes) * 0.1, abs=1)
    assert not trained[~hard].any()
    assert after["compute"] < 0.75
    assert f"{after['skipped_forward']:,} were expected to be" in one.sentence()


def test_the_threshold_sees_the_skipped_through_the_probes():
    """A following mean stays near that of all losses (1.05), not of those that are run (1.9)."""
    one = Filtering(**{**CLASSIFIER, "follow": True, "window": 256, "min_keep": 0}).build()
    rng, seen = np.random.default_rng(0), []
    for _ in range(200):
        run(one, rng, 1)
        seen.append(one.threshold or 0.0)
    assert np.mean(seen[50:]) == pytest.approx(1.05, abs=0.1)
    assert one.summary()["skipped_forward"] > 1000


@pytest.mark.parametrize("seed", range(5))
def test_a_classifier_without_a_clue_never_acts(seed: int):
    one = Filtering(**CLASSIFIER).build()
    _, run_Q, _ = run(one, np.random.default_rng(seed), 60, informative=False)
    assert run_Q.all() and not one.acts


def test_a_classifier_that_is_wrong_of_late_stops_acting():
    one, rng = Filtering(**CLASSIFIER).build(), np.random.default_rng(0)
    run(one, rng, 40)
    assert one.acts
    acted = []
    for _ in range(60):
        run(one, rng, 1, informative=False)
        acted.append(one.acts)
    assert not all(acted)


def test_resume_is_exact_at_any_step():
    for extra in ({}, {"follow": True, "threshold": "quantile", "probe": 0.3}):
        config = Filtering(**CLASSIFIER, **extra)
        batches = [stream(np.random.default_rng(step), 16)[1:] for step in range(60)]

        def masks(one: LossFilter, part) -> list[list[bool]]:
            out = []
            for losses, features in part:
                run_Q = one.forward(features)
                out += [run_Q.tolist(), one.backward(losses[run_Q]).tolist()]
            return out

        whole = config.build()
        expected = masks(whole, batches)
        assert whole.summary()["skipped_forward"] > 50
        for cut in (0, 3, 8, 17, 40):
            first = config.build()
            start = masks(first, batches[:cut])
            second = config.build()
            second.load(json.loads(json.dumps(first.state())))
            assert start + masks(second, batches[cut:]) == expected
            assert json.dumps(second.state()) == json.dumps(whole.state())


def test_a_state_does_not_grow():
    one = Filtering(**CLASSIFIER).build()
    run(one, np.random.default_rng(0), 200)
    state = one.state()
    assert (len(state["losses"]), len(state["features"]), len(state["unseen"])) == (256, 256, 64)


def test_calls_out_of_order_are_refused():
    one = Filtering().build()
    with pytest.raises(ValueError, match=r"expected forward\(\) before backward"):
        one.backward(np.zeros(2))
    one.forward_all(2)
    with pytest.raises(ValueError, match="found a second forward"):
        one.forward_all(2)
    with pytest.raises(ValueError, match="between steps"):
        one.state()
    with pytest.raises(ValueError, match="losses of the 2 queries"):
        one.backward(np.zeros(3))
    two = Filtering(mode="backward_forward").build()
    with pytest.raises(ValueError, match="give group_features"):
        two.forward_all(2)
    with pytest.raises(ValueError, match="expected finite features"):
        two.forward(np.array([[0.0, np.nan]]))


@pytest.mark.parametrize(
    "field", [{"window": 4}, {"probe": 0}, {"skill": 1}, {"min_keep": 1.5}, {"quantile": 1}]
)
def test_bounds(field):
    with pytest.raises(ValidationError):
        Filtering(**field)


def test_short_stages_say_that_nothing_was_skipped():
    one = Filtering(warmup_queries=100).build()
    backward(one, [1.0] * 10)
    assert one.summary()["threshold"] is None
    assert one.sentence().startswith("Filtering skipped nothing: all 10 queries belong to its")


def test_logistic_agrees_with_a_gradient_descent():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 2)) * [1.0, 5.0] + [3.0, 0.0]
    y = rng.random(300) < 1 / (1 + np.exp(-(x[:, 0] - 3)))
    w = rng.random(300) + 0.5
    model = Logistic.fit(x, y, w)
    inputs = torch.from_numpy(model._inputs(x))
    solution = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([solution], max_iter=200, line_search_fn="strong_wolfe")
    penalty = torch.tensor([1.0, 1.0, 1e-3], dtype=torch.float64)

    def objective():
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(
            inputs @ solution,
            torch.from_numpy(y).double(),
            torch.from_numpy(w),
            reduction="sum",
        )
        loss = loss + (penalty * solution**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(objective)
    assert model.weights_F == pytest.approx(solution.detach().numpy(), abs=1e-4)
    chance = model.probability(x)
    assert model.log_loss(x, y) == pytest.approx(-np.log(np.where(y, chance, 1 - chance)))


def test_logistic_bears_separable_and_constant_columns():
    x = np.column_stack([np.repeat([0.0, 1.0], 50), np.full(100, 7.0)])
    y = x[:, 0] > 0
    model = Logistic.fit(x, y, np.ones(100))
    assert np.isfinite(model.weights_F).all()
    assert ((model.probability(x) > 0.5) == y).all()
    one_class = Logistic.fit(x, np.ones(100, dtype=bool), np.ones(100))
    assert (one_class.probability(x) > 0.9).all()


def test_group_features_by_hand():
    values = group_features(
        query_tokens=3,
        doc_tokens_D=np.array([7, 15, 31]),
        positive_D=np.array([True, False, False]),
        ranks_D=np.array([1, 3, 0]),
        teacher_D=np.array([5.0, 2.0, np.nan]),
    )
    ln2 = np.log(2)
    named = dict(zip(FEATURES, values, strict=True))
    assert named == pytest.approx(
        {
            "query_tokens": 2 * ln2,
            "mean_doc_tokens": 4 * ln2,
            "positive_doc_tokens": 3 * ln2,
            "documents": 2 * ln2,
            "best_positive_rank": ln2,
            "positive_not_retrieved": 0.0,
            "mean_negative_rank": 2 * ln2,
            "teacher_margin": 3.0,
            "teacher_spread": 1.5,
        }
    )
    nothing = group_features(0, np.array([0]), np.array([True]), np.array([0]))
    assert dict(zip(FEATURES, nothing, strict=True))["positive_not_retrieved"] == 1.0
    assert np.isfinite(nothing).all()


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs).squeeze(-1)


def train(config: Filtering | None) -> tuple[nn.Module, float, LossFilter | None]:
    """A real loop over easy and hard groups; returns model, mean loss on new groups, filter."""
    model, loss_of = Ranker(), InfoNCE()
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    one = config.build() if config else None
    targets, mask = torch.zeros(16, 8), torch.ones(16, 8, dtype=torch.bool)
    targets[:, 0] = 1

    def groups() -> torch.Tensor:
        inputs = torch.randn(16, 8, 12, generator=rng)
        inputs[:, 0, 0] += torch.where(torch.arange(16) % 2 == 0, 6.0, 1.0)
        inputs[:, 0, 1:4] += 0.7
        return inputs

    for _ in range(300):
        losses = loss_of.per_query(model(groups()), targets, mask, None)
        keep = np.ones(16, dtype=bool)
        if one:
            one.forward_all(16)
            keep = one.backward(losses.detach().numpy())
        if keep.any():
            optimizer.zero_grad()
            (losses * torch.from_numpy(step_weights(keep)).float()).sum().backward()
            optimizer.step()
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        test = [float(loss_of(model(groups()), targets, mask)) for _ in range(50)]
    return model, float(np.mean(test)), one


def test_a_real_loop_learns_as_well_on_less():
    _, plain, _ = train(None)
    _, filtered, one = train(Filtering(warmup_queries=512))
    summary = one.summary()
    assert summary["kept_share"] < 0.7
    assert filtered < plain + 0.1


def test_a_filter_that_keeps_all_changes_no_bit():
    (plain, _, _), (kept, _, one) = train(None), train(Filtering(warmup_queries=10**6))
    assert one.summary()["kept_share"] == 1.0
    for a, b in zip(plain.parameters(), kept.parameters(), strict=True):
        assert torch.equal(a, b)
