"""Which groups of a step are worth their backward pass, and later their forward pass.

Shapes: N recent losses.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from raypipe.config import Config

Array = np.ndarray[Any, Any]


class Filtering(Config):
    """Leave out groups that the model already ranks well (Ouyang et al., IJCAI 2023, 2207.14386).

    The paper trains in three phases: on all examples, until a loss threshold is set; then without
    the backward pass of examples below the threshold; then also without the forward pass of
    examples that a small online classifier expects below it. Here a query's group is the example.
    The paper reports up to 5.3 times fewer examples for text classification; for ranking nothing
    is known: compare with an unfiltered arm.

    As in the authors' code, the threshold is the mean of the last 128 losses, fixed when the first
    phase ends; a loss equal to the threshold is kept; the classifier's likelihood over a window
    starts the third phase. What differs:
    - Their classifier is naive Bayes on a bag of words. Here a logistic regression reads figures
      that exist before the forward pass (`group_features`); it is refitted on recent losses.
    - Their third phase starts below a given classifier loss. Here the phase lasts while the
      classifier beats the base rate by `skill`.
    - Their code never looks again at a group that it skips forward. Here a share `probe` of these
      groups is run all the same: otherwise neither threshold nor classifier would see an easy
      example again.
    - Their code collects kept examples until a batch is full, and so takes fewer optimizer steps.
      Here the number of steps stays, and a step's loss is divided by all its queries.
    - `min_keep` bounds the skipping; their code has no bound.
    """

    mode: Literal["backward", "backward_forward"] = "backward"
    """backward: every group is run forward. backward_forward: later, groups that are expected to
    be easy are not run at all."""
    warmup_queries: int = Field(512, ge=1)
    """Queries, over all workers, before anything is skipped; the paper gives a share of the steps.
    Cover the warm-up of the learning rate: losses before it say little."""
    window: int = Field(128, ge=8)
    """Recent losses behind the threshold (the paper's code: 16 batches of 8)."""
    threshold: Literal["mean", "quantile"] = "mean"
    """Which statistic of the window is the threshold; the paper takes the mean."""
    quantile: float = Field(0.5, ge=0, lt=1)
    """Share of the window below the threshold, with threshold=quantile."""
    follow: bool = False
    """False, as in the paper: the threshold is fixed at the end of the warm-up, so ever more groups
    fall below it as the model learns. True: it follows the window, and skips about the same share.
    """
    min_keep: float = Field(0.1, ge=0, le=1)
    """Least share of the window at or above the threshold, which is lowered until that holds. 0 is
    the paper's; 1 skips nothing."""
    memory: int = Field(1024, ge=32)
    """Recent examples that the classifier is fitted on."""
    skill: float = Field(0.1, ge=0, lt=1)
    """The classifier acts while its log loss on examples that it had not seen is below
    (1 - skill) times that of their base rate, over the last `memory` / 4 of them."""
    hard_probability: float = Field(0.5, gt=0, le=1)
    """A group less likely than this to reach the threshold is expected to be easy: it is not run
    forward. 0.5 is the paper's (the likelier class); less is more careful."""
    probe: float = Field(0.1, gt=0, le=1)
    """Share of the groups expected to be easy that is run all the same. Each of them stands for
    1 / probe groups in every statistic."""


def threshold_of(losses_N: Array, weights_N: Array, config: Filtering) -> float:
    """The mean or the quantile of these losses, before `min_keep` lowers it."""
    if config.threshold == "mean":
        return float(np.average(losses_N, weights=weights_N))
    return keeping(losses_N, weights_N, 1 - config.quantile)


def keeping(losses_N: Array, weights_N: Array, share: float) -> float:
    """The highest of the losses with at least `share` of the weight at or above it.

    >>> keeping(np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), 0.5)
    3.0
    """
    order = np.argsort(-losses_N, kind="stable")
    above = np.cumsum(weights_N[order])
    index = int(np.searchsorted(above, share * above[-1] - 1e-9 * above[-1]))
    return float(losses_N[order[min(index, len(order) - 1)]])
