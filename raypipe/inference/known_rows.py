"""What an earlier artifact says of the same texts: tokens and vectors are taken from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Queries
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.similar import made_from, similar
from raypipe.tables.known_texts import KnownTexts
from raypipe.tables.text_table import TextTable


@dataclass(frozen=True)
class EarlierRows:
    """An earlier artifact with one row per text, and the artifact that has its texts."""

    rows: Artifact
    texts: Artifact

    @property
    def table(self) -> TextTable:
        """The texts, in the order of the rows."""
        of_queries = self.texts.manifest["kind"] == Queries.kind
        return TextTable(self.texts.local() / (QUERIES_FILE if of_queries else DOCS_FILE))


def earlier_rows(store: Store, step: Step, *way: str) -> tuple[EarlierRows, ...]:
    """Artifacts that `step` made of other texts, as far as their texts are still there.

    Args:
        way: names of inputs that lead from the step's artifact to its texts; the first may differ.
    """
    found = []
    for artifact in similar(store, step, way[:1]):
        texts: Artifact | None = artifact
        for name in way:
            texts = None if texts is None else made_from(texts, name)
        if texts is not None:
            found.append(EarlierRows(artifact, texts))
    return tuple(found)


def known_texts(earlier: Sequence[EarlierRows]) -> KnownTexts:
    """The texts of all, whose rows are those of the artifacts in order."""
    return KnownTexts([each.table for each in earlier])


def split_rows(known: np.ndarray[Any, Any]) -> tuple[list[int], list[int]]:
    """Positions that are known, and those that are not; `known` is -1 for the latter."""
    return np.flatnonzero(known >= 0).tolist(), np.flatnonzero(known < 0).tolist()
