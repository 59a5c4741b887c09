"""Candidate sources: configs that name a retrieval job or read files."""

from typing import Annotated

from pydantic import Field

from raypipe.sources.bm25 import Bm25
from raypipe.sources.trec_run import TrecRun

Source = Annotated[Bm25 | TrecRun, Field(discriminator="type")]
"""Adding a source: one class with `candidates`, and its name here."""

__all__ = ["Bm25", "Source", "TrecRun"]
