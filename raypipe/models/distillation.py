"""What a plain classifier loses of the similarity head that it was distilled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HeadComparison:
    """A similarity head and the classifier that was distilled from it, on the same lists."""

    queries: int
    head: Mapping[str, float]
    """Means of the measures."""
    classifier: Mapping[str, float]
    agreement: float
    """Kendall's tau of the two orders, -1 to 1, mean over queries."""

    def lost(self, measure: str) -> float:
        """By how much the classifier's mean is lower."""
        return self.head[measure] - self.classifier[measure]


@dataclass(frozen=True)
class Distillation:
    """How a similarity head became a plain classifier, and what that lost."""

    pairs: int
    """Read in training, with repetitions."""
    minutes: float
    measure: str
    """The measure that selects checkpoints."""
    sets: Mapping[str, HeadComparison]
    """By name of the query set."""

    @property
    def metrics(self) -> dict[str, Mapping[str, float]]:
        """Rows of the card: the classifier's means, and those of its head, by what they are of."""
        rows: dict[str, Mapping[str, float]] = {}
        for name, compared in self.sets.items():
            rows[name] = compared.classifier
            rows[f"{name}, similarity head"] = compared.head
        return rows

    @property
    def sentence(self) -> str:
        """What was lost, with figures."""
        lost = ", ".join(
            f"{compared.lost(self.measure):.4f} on {name} ({compared.head[self.measure]:.4f} to "
            f"{compared.classifier[self.measure]:.4f}, {compared.queries:,} queries, Kendall's tau "
            f"of the orders {compared.agreement:.2f})"
            for name, compared in self.sets.items()
        )
        return (
            f"The classifier approximates the similarity head that was trained: distilled on its "
            f"scores of {self.pairs:,} pairs in {self.minutes:.1f} minutes, it loses in "
            f"{self.measure}: {lost}."
        )
