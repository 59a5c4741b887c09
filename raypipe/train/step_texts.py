"""What a loss over a step knows of texts: which documents are one text, which are no negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.train.batches import cells

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class StepTexts:
    """Texts as numbers, uint64, that texts share which are equal up to case, white space and forms
    of characters (`plain_text.text_hash`)."""

    doc_texts: Array
    """Of every document, by row."""
    queries: Array
    """Rows of queries, ascending; a row stands there once for each text that it keeps out."""
    texts: Array
    """A text beside each of `queries` that is no negative of it."""

    def kept_out(self, queries: Sequence[int]) -> tuple[Array, Array]:
        """(place among the given rows of queries, text) of every text that is no negative."""
        starts, ends = (np.searchsorted(self.queries, queries, side) for side in ("left", "right"))
        places, within = cells((ends - starts).tolist())
        return places, self.texts[starts[places] + within]
