"""A pooler that nobody trained is named where a head reads through it."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, folder_of

from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.pooler import untrained_pooler


def load(family: str, head: str = "classifier") -> torch.nn.Module:
    folder = folder_of(family)
    model = CrossEncoder(backbone=str(folder), head=head)
    return model.load(folder, 1, training=False, device="cpu")


def test_a_pooler_as_it_was_drawn_is_named_with_its_figures():
    sentence = untrained_pooler(load("bert"))
    assert sentence is not None
    assert sentence.startswith(
        "The backbone's pooler was never trained (bias 0, standard deviation"
    )
    assert "initializer_range 0.02" in sentence and "model.head=similarity" in sentence


@pytest.mark.parametrize("change", ["one bias", "wide weights"])
def test_a_trained_pooler_is_not_named(change):
    model = load("bert")
    with torch.no_grad():
        if change == "one bias":
            model.bert.pooler.dense.bias[3] = 1e-6
        else:
            model.bert.pooler.dense.weight.mul_(2)
    assert untrained_pooler(model) is None


def test_narrow_weights_are_untrained_too():
    """all-MiniLM-L6-v2: .0091 at an initializer_range of .02."""
    model = load("bert")
    with torch.no_grad():
        model.bert.pooler.dense.weight.mul_(0.4)
    assert "of the weights 0.00" in (untrained_pooler(model) or "")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_heads_that_read_through_a_pooler_of_the_backbone(family):
    named = untrained_pooler(load(family)) is not None
    assert named == (family in ("bert", "minilm"))
    assert untrained_pooler(load(family, "similarity")) is None
