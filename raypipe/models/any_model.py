"""The kinds of model that a recipe's stages train, and what one takes over from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder

AnyModel = Annotated[CrossEncoder | TrainedBiEncoder, Field(discriminator="type")]


def cross_encoder_unless_named(value: Any) -> Any:
    """A model of a recipe that names no type, with the type that is meant."""
    untyped = isinstance(value, Mapping) and "type" not in value
    return {"type": "cross_encoder", **value} if untyped else value


def settled(model: AnyModel) -> AnyModel:
    """The model with what the backbone's files make of `auto` and null.

    A stage that begins with the weights of another model's stage needs it: that stage's folder has
    other files.

    Raises:
        ConfigError: the backbone is not there, or its files cannot be used.
    """
    if not isinstance(model, TrainedBiEncoder):
        return model.replace(head=model.resolved_head)
    read = Backbone(model.backbone).published
    modules = model.modules(read)
    query, doc = model.prefixes(read)
    only = modules.pooling[0] if len(modules.pooling) == 1 else "auto"
    return model.replace(
        pooling=only, normalize=modules.normalizes, query_prefix=query, doc_prefix=doc
    )
