"""The filter by hand, on streams whose easy and hard groups are known, and across a restart."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.losses.listwise import InfoNCE
from raypipe.train.filtering import Filtering
from raypipe.train.loss_filter import LossFilter
from raypipe.train.skipping import in_order


def backward(filter_: LossFilter, losses) -> list[bool]:
    filter_.forward_all(len(losses))
    return filter_.backward(np.array(losses)).tolist()


def test_a_fixed_threshold_is_the_mean_of_the_window_at_the_end_of_the_warm_up():
    filter_ = LossFilter(Filtering(warmup_queries=10, window=8, min_keep=0))
    assert filter_.threshold is None
    assert backward(filter_, [100.0, 100.0]) == [True, True]
    assert backward(filter_, [0.0] * 4) == [True] * 4  # still warming up
    assert filter_.threshold is None
    assert backward(filter_, [4.0] * 4) == [True] * 4
    assert filter_.threshold == 2.0  # the hundreds have left the window of 8
    assert backward(filter_, [1.99, 2.0, 2.01, 50.0]) == [
        False,
        True,
        True,
        True,
    ]  # equal is kept
    assert filter_.threshold == 2.0
    assert filter_.summary() == {
        "queries": 14,
        "warmup": 10,
        "skipped_forward": 0,
        "probes": 0,
        "skipped_backward": 1,
        "kept_share": 13 / 14,
        "compute": (4 + 3 * 13) / (3 * 14),
        "threshold": 2.0,
    }
    assert "trained on 92.9% of 14 queries: 1 were easier" in filter_.sentence()


def test_a_following_threshold_is_that_of_before_the_step():
    filter_ = LossFilter(Filtering(warmup_queries=8, window=8, min_keep=0, follow=True))
    backward(filter_, [2.0] * 8)
    assert backward(filter_, [1.0, 9.0, 1.0, 9.0]) == [
        False,
        True,
        False,
        True,
    ]  # 2, not the 5 of now
    assert filter_.threshold == (4 * 2 + 20) / 8
    assert backward(filter_, [3.0, 4.0]) == [False, True]


def test_min_keep_lowers_the_threshold_until_enough_of_the_window_reaches_it():
    streams = {}
    for share in (0.0, 0.25, 1.0):
        filter_ = LossFilter(Filtering(warmup_queries=8, window=8, min_keep=share))
        backward(filter_, [10.0] * 8)
        backward(filter_, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])  # all below 10, which is fixed
        streams[share] = (filter_.threshold, backward(filter_, [6.9, 7.0, 0.5, 9.0]))
    assert streams[0.0] == (10.0, [False, False, False, False])
    assert streams[0.25] == (7.0, [False, True, False, True])
    assert streams[1.0] == (1.0, [True, True, False, True])


def test_a_window_of_equal_losses_keeps_everything():
    filter_ = LossFilter(Filtering(warmup_queries=8, window=8))
    backward(filter_, [0.7] * 8)
    assert backward(filter_, [0.7] * 4) == [True] * 4


def test_losses_that_are_not_finite_are_kept_and_forgotten():
    filter_ = LossFilter(Filtering(warmup_queries=8, window=8, min_keep=0))
    backward(filter_, [2.0] * 8)
    assert backward(filter_, [np.nan, np.inf, 1.0]) == [True, True, False]
    assert np.isfinite(filter_.threshold)
    assert json.dumps(filter_.state()).count("NaN") == 0


def test_decisions_do_not_depend_on_the_number_of_workers():
    rng = np.random.default_rng(0)
    stream = [rng.random(7) for _ in range(30)]
    masks = []
    for world in (1, 2, 4):
        filter_ = LossFilter(Filtering(warmup_queries=20, window=16))
        masks.append(
            [backward(filter_, in_order([s[r::world] for r in range(world)])) for s in stream]
        )
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


def run(filter_: LossFilter, rng, steps: int, queries: int = 16, **how):
    """Train over a stream; returns which hard and easy groups were run and trained on."""
    rows = []
    for _ in range(steps):
        hard, losses, features = stream(rng, queries, **how)
        run_Q = filter_.forward(features)
        trained = run_Q.copy()
        trained[run_Q] = filter_.backward(losses[run_Q])
        rows.append(np.stack([hard, run_Q, trained]))
    return np.concatenate(rows, axis=1)


def test_easy_groups_are_skipped_and_hard_ones_kept():
    filter_ = LossFilter(Filtering(warmup_queries=64, window=64))
    hard, run_Q, trained = run(filter_, np.random.default_rng(0), 40)[:, 64:]
    assert run_Q.all()
    assert trained[hard].all() and not trained[~hard].any()
    summary = filter_.summary()
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
    filter_ = LossFilter(Filtering(**CLASSIFIER))
    rng = np.random.default_rng(0)
    run(filter_, rng, 20)
    assert filter_.acts
    before = filter_.summary()
    hard, run_Q, trained = run(filter_, rng, 100)
    after = filter_.summary()
    # two standard normals four apart overlap by 2.3 % on each side
    assert run_Q[hard].mean() > 0.95
    probes = after["probes"] - before["probes"]
    skipped = after["skipped_forward"] - before["skipped_forward"]
    assert skipped == (~run_Q).sum() and skipped > 0.8 * (~hard).sum()
    assert probes == pytest.approx((skipped + probes) * 0.1, abs=1)
    assert not trained[~hard].any()
    assert after["compute"] < 0.75
    assert f"{after['skipped_forward']:,} were expected to be" in filter_.sentence()


def test_the_threshold_sees_the_skipped_through_the_probes():
    """A following mean stays near that of all losses (1.05), not of those that are run (1.9)."""
    filter_ = LossFilter(Filtering(**{**CLASSIFIER, "follow": True, "window": 256, "min_keep": 0}))
    rng, seen = np.random.default_rng(0), []
    for _ in range(200):
        run(filter_, rng, 1)
        seen.append(filter_.threshold or 0.0)
    assert np.mean(seen[50:]) == pytest.approx(1.05, abs=0.1)
    assert filter_.summary()["skipped_forward"] > 1000


@pytest.mark.parametrize("seed", range(5))
def test_a_classifier_without_a_clue_never_acts(seed: int):
    filter_ = LossFilter(Filtering(**CLASSIFIER))
    _, run_Q, _ = run(filter_, np.random.default_rng(seed), 60, informative=False)
    assert run_Q.all() and not filter_.acts


def test_a_classifier_that_is_wrong_of_late_stops_acting():
    filter_, rng = LossFilter(Filtering(**CLASSIFIER)), np.random.default_rng(0)
    run(filter_, rng, 40)
    assert filter_.acts
    acted = []
    for _ in range(60):
        run(filter_, rng, 1, informative=False)
        acted.append(filter_.acts)
    assert not all(acted)


def test_resume_is_exact_at_any_step():
    for extra in ({}, {"follow": True, "threshold": "quantile", "probe": 0.3}):
        config = Filtering(**CLASSIFIER, **extra)
        batches = [stream(np.random.default_rng(step), 16)[1:] for step in range(60)]

        def masks(filter_: LossFilter, part) -> list[list[bool]]:
            out = []
            for losses, features in part:
                run_Q = filter_.forward(features)
                out += [run_Q.tolist(), filter_.backward(losses[run_Q]).tolist()]
            return out

        whole = LossFilter(config)
        expected = masks(whole, batches)
        assert whole.summary()["skipped_forward"] > 50
        for cut in (0, 3, 8, 17, 40):
            first = LossFilter(config)
            start = masks(first, batches[:cut])
            second = LossFilter(config)
            second.load(json.loads(json.dumps(first.state())))
            assert start + masks(second, batches[cut:]) == expected
            assert json.dumps(second.state()) == json.dumps(whole.state())


def test_a_state_does_not_grow():
    filter_ = LossFilter(Filtering(**CLASSIFIER))
    run(filter_, np.random.default_rng(0), 200)
    state = filter_.state()
    assert (len(state["losses"]), len(state["features"]), len(state["unseen"])) == (256, 256, 64)


def test_calls_out_of_order_are_refused():
    filter_ = LossFilter(Filtering())
    with pytest.raises(ValueError, match=r"expected forward\(\) before backward"):
        filter_.backward(np.zeros(2))
    filter_.forward_all(2)
    with pytest.raises(ValueError, match="found a second forward"):
        filter_.forward_all(2)
    with pytest.raises(ValueError, match="between steps"):
        filter_.state()
    with pytest.raises(ValueError, match="losses of the 2 queries"):
        filter_.backward(np.zeros(3))
    classifying = LossFilter(Filtering(mode="backward_forward"))
    with pytest.raises(ValueError, match="give group_features"):
        classifying.forward_all(2)
    with pytest.raises(ValueError, match="expected finite features"):
        classifying.forward(np.array([[0.0, np.nan]]))


def test_short_stages_say_that_nothing_was_skipped():
    filter_ = LossFilter(Filtering(warmup_queries=100))
    backward(filter_, [1.0] * 10)
    assert filter_.summary()["threshold"] is None
    assert filter_.sentence().startswith("Filtering skipped nothing: all 10 queries belong to its")


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
    filter_ = LossFilter(config) if config else None
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
        if filter_:
            filter_.forward_all(16)
            keep = filter_.backward(losses.detach().numpy())
        if keep.any():
            optimizer.zero_grad()
            (losses[torch.from_numpy(keep)].sum() / 16).backward()
            optimizer.step()
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        test = [float(loss_of(model(groups()), targets, mask)) for _ in range(50)]
    return model, float(np.mean(test)), filter_


def test_a_real_loop_learns_as_well_on_less():
    _, plain, _ = train(None)
    _, filtered, filter_ = train(Filtering(warmup_queries=512))
    summary = filter_.summary()
    assert summary["kept_share"] < 0.7
    assert filtered < plain + 0.1


def test_a_filter_that_keeps_all_changes_no_bit():
    (plain, _, _), (kept, _, filter_) = train(None), train(Filtering(warmup_queries=10**6))
    assert filter_.summary()["kept_share"] == 1.0
    for a, b in zip(plain.parameters(), kept.parameters(), strict=True):
        assert torch.equal(a, b)
