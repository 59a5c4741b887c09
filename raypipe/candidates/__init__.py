"""Candidate sources: configs whose `candidates` names a retrieval job or a reader of files.

`label` is the source's name in tables, `depth` the number of candidates per query; `check` refuses
a source whose files, models or packages are not there.
"""

from typing import Annotated

from pydantic import Field

from raypipe.candidates.fused import OWN, Fused, PlainSource

Source = Annotated[PlainSource | Fused, Field(discriminator="type"), OWN]
"""Adding a source: one class with these four, and its name in `fused.PlainSource`."""
