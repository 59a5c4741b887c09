"""Candidate sources: configs whose `candidates` names a retrieval job or a reader of files.

`label` is the name in tables, `depth` the candidates per query, `check` whether everything that
lies outside the recipe is there.
"""

from typing import Annotated

from pydantic import Field

from raypipe.sources.bm25 import Bm25
from raypipe.sources.fusion import Fused, Plain

Source = Annotated[Plain | Fused, Field(discriminator="type")]
"""Adding a source: one class with these four, and its name in `fusion.Plain`."""

__all__ = ["Bm25", "Fused", "Plain", "Source"]
