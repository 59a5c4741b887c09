"""Every objective trains every backbone family: the bare loop, small models, no Ray."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from families import DOC_TEXTS, FAMILIES, QUERIES, batcher_of, fit, model_of

from raypipe.losses.base import Loss
from raypipe.losses.combination import SingleLoss, Term, WeightedSum
from raypipe.losses.listwise import InfoNCE
from raypipe.losses.preference import PairKL

STEPS = 2


def every_type() -> list[Loss]:
    """One of every type in the union, and a sum of two that needs both columns of targets."""
    single = [one() for one in get_args(SingleLoss)]
    terms = {"labels": Term(weight=0.1, loss=InfoNCE()), "teacher": Term(loss=PairKL())}
    return [*single, WeightedSum(terms=terms)]


LOSSES = every_type()


def test_the_grid_has_every_published_objective():
    assert {loss.type for loss in LOSSES} >= {
        *("bce", "mse", "hinge", "ranknet", "margin_mse", "pair_kl", "infonce", "listnet", "kl"),
        *("adr_mse", "approx_ndcg", "lambda", "listmle", "weighted_sum"),
    }
    assert len(FAMILIES) == 6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.type)
def test_every_objective_trains_every_family(loss, family):
    model = model_of(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = fit(model, family, loss, STEPS, lr=1e-3)
    rows = [row for row in outcome.history if "loss" in row]
    assert len(rows) == STEPS and outcome.pairs == STEPS * QUERIES * 4 < STEPS * len(DOC_TEXTS) * 9
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    after = model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    prefix = f"{model.base_model_prefix}."
    assert any(name.startswith(prefix) for name in moved)
    assert any(not name.startswith(prefix) for name in moved)
    inputs = next(batcher_of(family, loss.uses).blocks([0, 1])).batches[0][1]
    with torch.inference_mode():
        logits = model.eval()(**{n: torch.from_numpy(a) for n, a in inputs.items()}).logits
    assert logits.isfinite().all() and logits.unique().numel() > 1
