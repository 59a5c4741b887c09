"""Candidate sources: configs whose `candidates` names a retrieval job or a reader of files.

`label` is the name in tables, `depth` the candidates per query, `check` whether everything that
lies outside the recipe is there.
"""

from typing import Annotated

from pydantic import Field

from raypipe.candidates.fused import Fused, Plain

Source = Annotated[Plain | Fused, Field(discriminator="type")]
"""Adding a source: one class with these four, and its name in `fusion.Plain`."""
