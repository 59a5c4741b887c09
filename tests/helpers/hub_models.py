"""The hub's models that shipped recipes name, without a hub."""

from __future__ import annotations

import pytest

from raypipe.models.backbone import Backbone

FAMILIES = {
    **{"ettin": "modernbert", "modernbert": "modernbert"},  # without dropout
    **{"minilm": "bert", "distilbert": "distilbert", "electra": "electra", "roberta": "roberta"},
    **{"deberta-v3": "deberta-v2", "bert-base": "bert", "bge": "bert", "e5-": "bert"},
    **{"arctic-embed": "bert"},
}
"""Part of a backbone's name to its family."""


def as_if_on_the_hub(patch: pytest.MonkeyPatch) -> None:
    """Every name of the hub has a revision and a config.json."""
    patch.setattr(Backbone, "revision", property(lambda self: "0" * 40))
    patch.setattr(Backbone, "published_config", _published_config)


def _published_config(backbone: Backbone) -> dict[str, str]:
    """A config.json that has dropout where the backbone's own has it: its family's defaults."""
    name = backbone.source.lower()
    return {"model_type": next(family for part, family in FAMILIES.items() if part in name)}
