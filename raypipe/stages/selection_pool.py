"""What a recipe says of the pool that validation retrieves from."""

from __future__ import annotations

from pydantic import Field

from raypipe.config import Config


class SelectionPool(Config):
    """What validation retrieves from: the documents of the validation lists, what the validation
    queries judge, and some of the collection."""

    documents: int = Field(10_000, ge=1)
    """Further documents, drawn by `seed`; all of the collection where it has no more."""
    seed: int = Field(1, ge=0)
    """Of the draw, which is the same for every stage and seed of a recipe."""
