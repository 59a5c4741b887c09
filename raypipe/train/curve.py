"""Whether a loss fell, from a bounded summary of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

SIGNIFICANT = 3.0
"""Standard errors by which a loss must fall."""


class Curve:
    """A loss curve in at most 64 means of equally many steps, however long the stage."""

    MOST = 64

    def __init__(self, size: int = 1, means: Iterable[float] = (), part: Iterable[float] = ()):
        self._size, self._means, self._part = size, list(means), list(part)

    def add(self, value: float) -> None:
        """One more step."""
        self._part.append(value)
        if len(self._part) < self._size:
            return
        self._means.append(math.fsum(self._part) / self._size)
        self._part = []
        if len(self._means) == self.MOST:
            self._means = [
                (a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)
            ]
            self._size *= 2

    def flat(self) -> tuple[float, float] | None:
        """(mean of the first quarter, of the last) if the loss did not fall, else None.

        It fell if the first sixteenth, eighth or quarter of the steps lies more than `SIGNIFICANT`
        standard errors above the last quarter. The noise is that of successive differences, which
        a trend hardly enters. Fewer than 16 steps are not judged.
        """
        means = self._means
        if len(means) < 16:
            return None
        n, quarter = len(means), len(means) // 4
        last = statistics.fmean(means[-quarter:])
        steps = [b - a for a, b in pairwise(means)]
        noise = math.sqrt(statistics.fmean([d * d for d in steps]) / 2)
        for k in (n // 16, n // 8, quarter):
            error = noise * math.sqrt(1 / k + 1 / quarter)
            if statistics.fmean(means[:k]) - last > SIGNIFICANT * error:
                return None
        return statistics.fmean(means[:quarter]), last

    def state(self) -> dict[str, Any]:
        """The arguments of an equal curve."""
        return {"size": self._size, "means": list(self._means), "part": list(self._part)}
