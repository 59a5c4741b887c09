"""Dropout in a transformer's configuration: what a recipe sets, and whether any is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
HIDDEN_DROPOUT = (
    "hidden_dropout_prob",
    "classifier_dropout",
    "dropout",
    "embedding_dropout",
    "mlp_dropout",
    "pooler_dropout",
    "seq_classif_dropout",
)
_OTHER_HEADS = {"qa_dropout", "summary_last_dropout", "token_dropout"}
"""Settings of configurations that draw nothing in a sequence classifier or an encoder."""


def set_dropout(config: Any, attention: float, hidden: float | None) -> None:
    """Write a recipe's dropout into a transformers configuration.

    Args:
        hidden: None keeps the configuration's own.
    """
    values = dict.fromkeys(ATTENTION_DROPOUT, attention)
    if hidden is not None:
        values |= dict.fromkeys(HIDDEN_DROPOUT, hidden)
    for name, value in values.items():
        if getattr(config, name, None) is not None:
            setattr(config, name, value)


def draws_dropout(published: Mapping[str, Any], attention: float, hidden: float | None) -> bool:
    """Whether training draws random numbers for dropout; no weights are read.

    A family that names its dropout in its own way (ALBERT's classifier, T5's dropout_rate) keeps it
    whatever the recipe says, and so counts.

    Args:
        published: the backbone's config.json. What it leaves out has the family's default.
    """
    from transformers import CONFIG_MAPPING

    published = published.get("backbone", published)  # of a similarity head
    try:
        config = CONFIG_MAPPING[published["model_type"]].from_dict(dict(published))
    except Exception:  # transformers' own of any kind; `check` refuses the model in words
        return True
    set_dropout(config, attention, hidden)
    shares = {name: value for name, value in config.to_dict().items() if "drop" in name}
    return any(
        isinstance(value, int | float) and value > 0
        for name, value in shares.items()
        if name not in _OTHER_HEADS
    )
