"""Each alarm is heard when it should be, once, and a healthy run stays silent."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.losses.listwise import InfoNCE
from raypipe.train.alarms import Alarms, cut_sentence, not_finite
from raypipe.train.drift import (
    copy_of_trainable,
    drift,
)

FIRST = {"nDCG@10": 0.45}


def new(first=FIRST) -> tuple[Alarms, list[str]]:
    sentences: list[str] = []
    return Alarms(sentences.append, "nDCG@10", first), sentences


def scores(rng, spread: float, queries: int = 16, docs: int = 8) -> torch.Tensor:
    return torch.from_numpy(spread * rng.standard_normal((queries, docs))).float()


def feed(alarms: Alarms, step: int, scores_QD: torch.Tensor, loss: float, lr: float = 1e-5):
    alarms.on_scores(step, scores_QD, torch.ones_like(scores_QD, dtype=torch.bool))
    alarms.on_step(step, loss, 1.0, lr)


class Ranker(nn.Module):
    """Scores a document by a linear function of its features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs).squeeze(-1)


def train(lr: float, steps: int = 200, noise: bool = False) -> tuple[Alarms, list[str], nn.Module]:
    """A real loop: 1 positive and 7 negatives that differ in a hidden direction."""
    alarms, sentences = new()
    model, loss_of = Ranker(), InfoNCE()
    rng = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    start = copy_of_trainable(model)
    alarms.on_start(model, lr)
    targets = torch.zeros(16, 8)
    targets[:, 0] = 1
    mask = torch.ones(16, 8, dtype=torch.bool)
    for step in range(1, steps + 1):
        inputs = torch.randn(16, 8, 12, generator=rng)
        if not noise:
            inputs[:, 0, :4] += 1.0
        scores_QD = model(inputs)
        loss = loss_of(scores_QD, targets, mask)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        alarms.on_scores(step, scores_QD.detach(), mask)
        alarms.on_step(step, float(loss.detach()), float(norm), lr)
    alarms.on_validation(steps, {"nDCG@10": 0.5})
    alarms.on_end(drift(start, model))
    return alarms, sentences, model


def test_a_healthy_real_loop_is_silent():
    alarms, sentences, _ = train(lr=0.03)
    assert sentences == [] and alarms.messages == []


def test_the_published_rate_of_6e_12_is_named_before_and_after():
    alarms, sentences, _ = train(lr=6e-12)
    assert len(sentences) == 3
    assert sentences[0].startswith("lr 6e-12 cannot move 100.0 % of the weights")
    assert sentences[1].startswith("The loss did not fall over the stage")
    assert "highest lr 6e-12" in sentences[1]
    assert sentences[2].startswith("The stage moved the trainable weights by 0.00%")
    assert alarms.messages == sentences


def test_nothing_to_learn_gives_a_flat_loss_only():
    _, sentences, _ = train(lr=1e-4, noise=True)
    assert len(sentences) == 1 and sentences[0].startswith("The loss did not fall over the stage")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["infonce", "fast", "second stage", "pairs", "one list"])
def test_no_false_alarm_on_runs_like_those_of_minilm(seed: int, kind: str):
    """Losses and spreads with the shape and noise of real runs; 100 of them in all."""
    rng = np.random.default_rng(seed)
    alarms, sentences = new()
    queries, docs = {"pairs": (1, 2), "one list": (1, 50)}.get(kind, (16, 8))
    total = 400
    for step in range(1, total + 1):
        part = step / total
        level, spread = {
            "infonce": (0.5 + 1.6 * math.exp(-4 * part), 0.05 + 2.5 * (1 - math.exp(-5 * part))),
            "fast": (0.3 + 1.8 * math.exp(-100 * part), 0.02 + 3 * (1 - math.exp(-60 * part))),
            # large logits of stage 1, which a distillation on cosine margins calms down a lot
            "second stage": (0.1 + 0.5 * math.exp(-3 * part), 0.1 + 6 * math.exp(-6 * part)),
            "pairs": (0.2 + 0.5 * math.exp(-4 * part), 0.05 + 4 * part),
            "one list": (0.4 + 0.3 * math.exp(-4 * part), 0.05 + 4 * part),
        }[kind]
        loss = level * (1 + rng.standard_normal() * 0.8 / math.sqrt(queries * docs))
        scores_QD = scores(rng, spread, queries, docs).bfloat16()  # as autocast gives them
        feed(alarms, step, scores_QD, max(loss, 1e-4))
    alarms.on_validation(200, {"nDCG@10": 0.44})  # below the first stage, but not at the end
    alarms.on_validation(400, {"nDCG@10": 0.46})
    alarms.on_end({"drift": 0.02, "drift_unchanged": 0.4, "drift_unchanged_layers": 0.0})
    assert sentences == []


def test_constant_scores_after_three_steps_and_again_after_thirty():
    alarms, sentences = new()
    for step in range(1, 31):
        feed(alarms, step, torch.full((4, 8), 0.7), 2.079)
        assert len(sentences) == (0 if step < 3 else 1 if step < 30 else 2)
    assert sentences[0].startswith(
        "Step 3: all documents of a group have the same score in 100% of"
    )
    assert "for 30 steps now" in sentences[1]


def test_alarms_do_not_ask_for_a_lower_and_a_higher_rate():
    """Scores that were constant from the start are no matter of lr, which still weights ask for."""
    alarms, sentences = new()
    for step in range(1, 41):
        feed(alarms, step, torch.full((4, 8), 0.7), 2.079)
    alarms.on_end({"drift": 0.0, "drift_unchanged": 1.0, "drift_unchanged_layers": 1.0})
    assert any("Raise lr or unfreeze layers" in sentence for sentence in sentences)
    assert not any("lower lr" in sentence for sentence in sentences)
    assert not any("did not fall" in sentence for sentence in sentences)
    alarms, sentences = new()
    for step in range(1, 61):  # they become constant while it trains
        spread = scores(np.random.default_rng(step), 1.0, 4, 8)
        feed(alarms, step, spread if step < 20 else torch.full((4, 8), 0.7), 2.079)
    alarms.on_end()
    assert "lower lr, start from a sound checkpoint" in sentences[0]
    assert not any("raise lr" in sentence.lower() for sentence in sentences)


def test_constant_means_within_the_spacing_of_float32_in_most_groups():
    next_float = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    near = torch.tensor([[1.0, 1.0, float(next_float)], [3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])
    far = torch.tensor([[1.0, 1.0, 1.0 + 1e-6], [3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])
    for value, heard in ((near, 1), (far, 0)):
        alarms, sentences = new()
        for step in (1, 2, 3):
            feed(alarms, step, value, 1.0)
        assert len(sentences) == heard
    alarms, sentences = new()
    for step in range(1, 5):  # a step in between is sound
        feed(alarms, step, far if step == 3 else near, 1.0)
    assert sentences == []


def test_masked_documents_and_groups_of_one_do_not_count():
    alarms, sentences = new()
    value = torch.tensor([[1.0, 1.0, math.nan], [2.0, 9.0, -9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for step in (1, 2, 3):
        alarms.on_scores(step, value, mask)
        alarms.on_step(step, 1.0, 1.0, 1e-5)
    assert len(sentences) == 1 and "in 100% of the groups" in sentences[0]  # the first group alone
    alarms, sentences = new()
    for step in (1, 2, 3):
        alarms.on_scores(step, value[1:], mask[1:])
        alarms.on_step(step, 1.0, 1.0, 1e-5)
    assert sentences == []


def test_blocks_of_a_step_count_together():
    alarms, sentences = new()
    for step in (1, 2, 3):
        for block in (torch.ones(2, 3), torch.arange(9.0).reshape(3, 3)):  # 2 of 5 constant
            alarms.on_scores(step, block, torch.ones_like(block, dtype=torch.bool))
        alarms.on_step(step, 1.0, 1.0, 1e-5)
    assert sentences == []


def collapse(factor: float, loss_after: float) -> list[str]:
    rng, (alarms, sentences) = np.random.default_rng(0), new()
    for step in range(1, 101):
        early = step <= 50
        feed(alarms, step, scores(rng, 1.0 if early else factor), 1.0 if early else loss_after)
    return sentences


def test_score_collapse_needs_a_small_spread_and_a_loss_that_did_not_fall():
    sentences = collapse(1 / 40, 2.079)
    assert len(sentences) == 1
    assert (
        "under 1/20 of the" in sentences[0]
        and "(1 then, 2.079 now): the scores collapse" in sentences[0]
    )
    assert collapse(1 / 40, 0.5) == []
    assert collapse(1 / 10, 2.079) == []
    assert len(collapse(1 / 1000, 2.079)) == 1


def test_a_deeper_collapse_is_said_again():
    rng, (alarms, sentences) = np.random.default_rng(0), new()
    for step in range(1, 121):
        spread = 1.0 if step <= 40 else 1 / 30 if step <= 80 else 1 / 900
        feed(alarms, step, scores(rng, spread), 1.0)
    assert len(sentences) == 2


def test_one_odd_step_is_no_collapse():
    rng, (alarms, sentences) = np.random.default_rng(0), new()
    for step in range(1, 101):
        feed(alarms, step, scores(rng, 500.0 if step == 30 else 1e-4 if step == 60 else 1.0), 1.0)
    assert sentences == []


def test_validation_below_the_first_stage_counts_at_the_end_only():
    alarms, sentences = new()
    alarms.on_validation(10, {"nDCG@10": 0.30})
    alarms.on_validation(20, {"nDCG@10": 0.40})
    assert sentences == []
    alarms.on_end()
    assert sentences[0].startswith(
        "Validation nDCG@10 is 0.4000 after the last step, below the first stage's 0.4500; the "
        "best checkpoint is no better"
    )
    alarms, sentences = new()
    alarms.on_validation(10, {"nDCG@10": 0.47})
    alarms.on_validation(20, {"nDCG@10": 0.40})
    alarms.on_end()
    assert "the checkpoint of step 10 with 0.4700 is kept" in sentences[0]
    for first, value in ((FIRST, 0.45), (None, 0.1), ({"RR@10": 0.9}, 0.1)):
        alarms, sentences = new(first)
        alarms.on_validation(10, {"nDCG@10": value})
        alarms.on_end()
        assert sentences == []


def test_a_stage_that_only_harmed_says_that_its_start_is_kept():
    """Weights that did not move are then no matter of a rate that is too low."""
    still = {"drift": 0.0, "drift_unchanged": 1.0, "drift_unchanged_layers": 1.0}
    alarms, sentences = new()
    for step, value in enumerate((0.62, 0.58, 0.55)):
        alarms.on_validation(step, {"nDCG@10": value})
    alarms.on_end(still)
    assert sentences == [
        "No step was better than the start: validation nDCG@10 was 0.6200 before the first step "
        "and 0.5500 after the last. The checkpoint has the start's weights; lower lr, train "
        "longer, or leave the stage out."
    ]
    alarms, sentences = new()
    for step, value in enumerate((0.62, 0.63)):
        alarms.on_validation(step, {"nDCG@10": value})
    alarms.on_end()
    assert sentences == []


def test_not_finite_names_the_step_the_figure_and_the_remedy():
    assert not_finite(3, 0.5, 1.0, 1e-5) is None
    assert not_finite(3, math.nan, 1.0, 1e-5).startswith("Step 3: the loss is nan at lr 1e-05: ")
    text = not_finite(3, 0.5, math.inf, 1e-5)
    assert "norm of the gradient is inf" in text and "precision=fp32" in text


def test_a_loss_that_is_not_finite_leaves_the_statistics_alone():
    alarms, _ = new()
    before = json.dumps(alarms.state())
    alarms.on_step(1, math.nan, math.nan, 0.0)
    assert json.dumps(alarms.state()) == before


def test_cut_sentence():
    few = cut_sentence(2, 1000, "pairs of up to 256 tokens")
    assert few == (
        "0.2 % of the documents (2 of 1,000) are cut: the model reads pairs of up to 256 tokens."
    )
    many = cut_sentence(620, 2000, "pairs of up to 256 tokens")
    assert many.startswith("31.0 % of the documents (620 of 2,000)") and "max_p" in many
    assert cut_sentence(1, 1_000_000, "x").startswith("0.0001 % of")
    assert cut_sentence(0, 0, "x").startswith("0.0 % of the documents (0 of 0)")


def test_resumed_alarms_say_what_uninterrupted_ones_say():
    rng = np.random.default_rng(0)
    steps = [
        (step, scores(rng, 1.0 if step < 60 else 0.01 if step < 90 else 0.0), 1.0 + 0.01 * step)
        for step in range(1, 121)
    ]
    whole, _ = new()
    for step in steps:
        feed(whole, *step)
    whole.on_validation(120, {"nDCG@10": 0.1})
    whole.on_end()
    for cut in (1, 14, 75, 91, 119):
        first, _ = new()
        for step in steps[:cut]:
            feed(first, *step)
        state = json.loads(json.dumps(first.state()))
        second, sentences = new()
        second.load(state)
        for step in steps[cut:]:
            feed(second, *step)
        second.on_validation(120, {"nDCG@10": 0.1})
        second.on_end()
        assert second.messages == whole.messages and len(whole.messages) >= 4
        assert json.dumps(second.state()) == json.dumps(whole.state())
        assert sentences == whole.messages[len(first.messages) :]


def test_state_within_a_step_is_refused():
    alarms, _ = new()
    alarms.on_scores(1, torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="unfinished step"):
        alarms.state()


def test_a_loss_that_stays_where_nothing_is_ranked():
    """ln 8 for groups of 8; said once, after a quarter of the steps."""
    alarms, sentences = new()
    alarms.on_start(Ranker(), 1e-5, InfoNCE().of_equal_scores(8), 100)
    rng = np.random.default_rng(0)
    for step in range(1, 101):
        feed(alarms, step, scores(rng, 1.0), math.log(8) + 0.01 * rng.standard_normal())
        if step == 24:
            assert sentences == []
    plateau = [sentence for sentence in sentences if "gives all documents one score" in sentence]
    assert len(plateau) == 1 and plateau[0].startswith("Step 25: ") and "2.079" in plateau[0]


def test_a_loss_that_falls_is_on_no_plateau():
    alarms, sentences = new()
    alarms.on_start(Ranker(), 1e-5, InfoNCE().of_equal_scores(8), 100)
    rng = np.random.default_rng(0)
    for step in range(1, 101):
        feed(alarms, step, scores(rng, 1.0), 2.0 - step / 100)
    assert not any("gives all documents one score" in sentence for sentence in sentences)
