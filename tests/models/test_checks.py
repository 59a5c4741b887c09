"""A backbone's room is known before work: what is refused fails in the model, the rest does not."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, folder_of

from raypipe.config import ConfigError
from raypipe.models.cross_encoder import CrossEncoder

WITH_A_TABLE = {"bert": 130, "minilm": 130, "electra": 130, "roberta": 128}
"""Positions for tokens; RoBERTa's table has two that hold none."""


def check(family: str, **fields) -> None:
    CrossEncoder(backbone=str(folder_of(family))).check(**fields)


def reads(family: str, tokens: int) -> bool:
    folder = folder_of(family)
    model = CrossEncoder(backbone=str(folder)).load(folder, 1, training=False, device="cpu")
    ids = torch.full((1, tokens), 9)
    try:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_refused_where_the_model_cannot_read_them(family):
    limit = WITH_A_TABLE.get(family)
    check(family, lengths={"truncation.max_length": limit or 131})
    assert reads(family, limit or 131)
    if limit is None:
        check(family, lengths={"truncation.max_length": 100_000})
        return
    assert not reads(family, limit + 1)
    with pytest.raises(ConfigError) as error:
        check(family, lengths={"truncation.max_length": limit + 1})
    assert str(error.value) == (
        f"truncation.max_length: pairs of up to {limit + 1} tokens, special tokens included, but "
        f"model.backbone {folder_of(family)} has positions for {limit}; lower it, or take a "
        "backbone that reads more"
    )


def test_layers_are_counted_as_freezing_counts_them():
    folder = folder_of("bert")
    frozen = {"stages.a.freeze.layers": 2}
    CrossEncoder(backbone=str(folder)).check(frozen=frozen)
    with pytest.raises(ConfigError, match=r"^stages\.a\.freeze\.layers: .* bert here has 1"):
        CrossEncoder(backbone=str(folder), keep_layers=1).check(frozen=frozen)
