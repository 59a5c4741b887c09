"""Which groups of a step are worth their backward pass, and later their forward pass.

Shapes: Q queries of a step over all workers, K of them that are run forward, F features, N recent
examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from raypipe.config import Config
from raypipe.train.predictor import Logistic

Array = np.ndarray[Any, Any]


class Filtering(Config):
    """Leave out groups that the model already ranks well (Ouyang et al., IJCAI 2023, 2207.14386).

    The paper's three phases: train on everything and then set a loss threshold; skip the backward
    pass of examples below it; skip the forward pass, too, of those that a small online classifier
    expects below it. A query's group is the example here. The paper reports up to 5.3 times fewer
    examples for text classification; nothing is known for ranking: compare with an unfiltered arm.

    As its authors' code has it: the mean of the last 128 losses as the threshold, fixed when the
    first phase ends; a loss equal to it is kept; the classifier's likelihood over a window
    starts the third phase. What differs:
    - Their classifier is naive Bayes on a bag of words, ours a logistic regression on figures that
      exist before the forward pass (`group_features`), refitted on recent losses.
    - Their third phase starts below a given classifier loss; ours while the classifier beats the
      base rate by `skill`, and it ends when it no longer does.
    - They never look again at what they skip forward; we run a share `probe` of it anyway, without
      which neither threshold nor classifier would see an easy example again.
    - They collect kept examples until a batch is full, so they take fewer optimizer steps; we keep
      the steps and divide by all queries (`step_weights`).
    - `min_keep` bounds the skipping; theirs has no bound.
    """

    mode: Literal["backward", "backward_forward"] = "backward"
    """backward: every group is run forward. backward_forward: and later not all of them."""
    warmup_queries: int = Field(512, ge=1)
    """Queries, over all workers, before anything is skipped; the paper gives a share of the steps.
    Cover the warm-up of the learning rate: losses before it say little."""
    window: int = Field(128, ge=8)
    """Recent losses behind the threshold (the paper's code: 16 batches of 8)."""
    threshold: Literal["mean", "quantile"] = "mean"
    """Of the window; mean is the paper's."""
    quantile: float = Field(0.5, ge=0, lt=1)
    """Share of the window below the threshold, if that is the quantile."""
    follow: bool = False
    """False: the threshold is fixed at the end of the warm-up, so ever more falls below it as the
    model learns (the paper's). True: it follows the window, and skips about the same share."""
    min_keep: float = Field(0.1, ge=0, le=1)
    """Least share of the window at or above the threshold, which is lowered to that; 0 is the
    paper's. 1 skips nothing."""
    memory: int = Field(1024, ge=32)
    """Recent examples that the classifier is fitted on."""
    skill: float = Field(0.1, ge=0, lt=1)
    """The classifier acts while its log loss on examples that it had not seen is below
    (1 - skill) times that of their base rate, over the last `memory` / 4 of them."""
    hard_probability: float = Field(0.5, gt=0, le=1)
    """A group less likely than this to reach the threshold is not run forward; 0.5 is the
    paper's (the likelier class), less is more careful."""
    probe: float = Field(0.1, gt=0, le=1)
    """Share of those that is run all the same. Each stands for 1 / probe in every statistic."""

    def build(self) -> LossFilter:
        """A filter at the beginning of a stage."""
        return LossFilter(self)


class LossFilter:
    """The state of a filter: a pure function of the losses (and features) seen so far, in order.

    One per training, not per worker. Per step, with `rows` the groups of the step over all workers:

        keep_Q = filter.forward(features_QF)     # mode backward: filter.forward_all(len(rows))
        losses of rows[keep_Q], without gradients, gathered from all workers in the order of rows
        keep_K = filter.backward(losses_K)
        forward and backward of rows[keep_Q][keep_K], every loss times 1 / Q (`step_weights`)

    Rank 0 decides and broadcasts the masks: exp() may differ in the last bit between unlike CPUs,
    and workers that disagree hang. `in_order` puts gathered losses into the order of `rows`; then
    the decisions depend on the number of workers only as far as the losses themselves do (by
    rounding). The kept rows are dealt out anew, `kept[rank::world]`; a worker that gets none still
    has to take part in the gradient's all-reduce. Without any kept row the optimizer step is left
    out and the schedule goes on.

    The second forward of kept groups is the price of skipping inside a batch: with a backward of
    two forwards, a step costs K + 3 kept instead of 3 Q (`summary`: compute), which is a loss
    unless less than 2/3 are kept. While `threshold` is None the losses of the ordinary step serve:
    train on all rows, then call `forward` and `backward` to hand them in.
    """

    def __init__(self, config: Filtering) -> None:
        self.config = config
        self._features_NF: Array = np.empty((0, 0))
        self._losses_N: Array = np.empty(0)
        self._weights_N: Array = np.empty(0)
        self._unseen: Array = np.empty((0, 3))  # log loss, hard or not, weight
        self._model: Logistic | None = None
        self._fixed: float | None = None
        self._owed = 0.0  # probes; a count, not chance, so that nothing is random
        self._pending: _Step | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)

    @property
    def threshold(self) -> float | None:
        """A loss below it is skipped; None during the warm-up. Constant within a step."""
        if self._counts["queries"] < self.config.warmup_queries or not len(self._losses_N):
            return None
        losses, weights = (a[-self.config.window :] for a in (self._losses_N, self._weights_N))
        automatic = self._fixed
        if automatic is None:
            automatic = threshold_of(losses, weights, self.config)
        if not self.config.min_keep:
            return automatic
        return min(automatic, keeping(losses, weights, self.config.min_keep))

    @property
    def acts(self) -> bool:
        """Whether the classifier is good enough to skip forward passes."""
        if self.threshold is None or self._model is None:
            return False
        if len(self._unseen) < self.config.memory // 4:
            return False
        log_loss, hard, weight = self._unseen.T
        base = float(np.average(hard, weights=weight))
        if not 0 < base < 1:
            return False
        entropy = -base * np.log(base) - (1 - base) * np.log(1 - base)
        return bool(np.average(log_loss, weights=weight) <= (1 - self.config.skill) * entropy)

    def forward_all(self, queries: int) -> Array:
        """bool [Q], all True: the first half of a step in mode backward.

        Raises:
            ValueError: the mode is another, or the last step was not ended by `backward`.
        """
        if self.config.mode != "backward":
            raise ValueError(
                f"expected forward(features) in mode {self.config.mode}, found forward_all; give "
                "group_features of every group of the step"
            )
        return self._begin(None, np.ones(queries), 0)

    def forward(self, features_QF: Array) -> Array:
        """bool [Q]: which groups of the step are run forward; finite floats, one row per group.

        Raises:
            ValueError: features are not finite, or the last step was not ended by `backward`.
        """
        features_QF = np.asarray(features_QF, dtype=np.float64)
        if features_QF.ndim != 2 or not np.isfinite(features_QF).all():
            raise ValueError(
                f"expected finite features, one row per query, found shape {features_QF.shape} or "
                "NaN or infinity in it; put 0 where a figure is not known"
            )
        if self.config.mode == "backward":
            return self.forward_all(len(features_QF))
        weights_Q = np.ones(len(features_QF))
        probes = 0
        if self._model is not None and self.acts:
            easy_Q = self._model.probability(features_QF) < self.config.hard_probability
            for query in np.flatnonzero(easy_Q):
                self._owed += self.config.probe
                due = self._owed >= 1 - 1e-9  # ten times .1 is not 1
                weights_Q[query] = 1 / self.config.probe if due else 0.0
                self._owed -= due
                probes += due
        return self._begin(features_QF, weights_Q, probes)

    def _begin(self, features_QF: Array | None, weights_Q: Array, probes: int) -> Array:
        if self._pending is not None:
            raise ValueError("expected backward() after forward(), found a second forward()")
        keep_Q = weights_Q > 0
        kept = None if features_QF is None else features_QF[keep_Q]
        self._pending = _Step(len(keep_Q), probes, kept, weights_Q[keep_Q])
        return keep_Q

    def backward(self, losses_K: Array) -> Array:
        """bool [K]: which of the groups that were run forward are run backward, too.

        The threshold is that of before the step; then all its losses enter the statistics. A loss
        that is not finite is kept, for the loop to stop at, and enters nothing. Ends the step: also
        to be called with no losses, if nothing was run forward.

        Raises:
            ValueError: `forward` was not called, or kept another number of groups.
        """
        if self._pending is None:
            raise ValueError("expected forward() before backward(), found none in this step")
        step, losses_K = self._pending, np.asarray(losses_K, dtype=np.float64)
        if losses_K.shape != step.weights_K.shape:
            raise ValueError(
                f"expected losses of the {len(step.weights_K)} queries that forward() kept, found "
                f"shape {losses_K.shape}; gather them from all workers, in the order of the rows"
            )
        threshold = self.threshold
        easy_K = losses_K < (-np.inf if threshold is None else threshold)
        self._pending = None
        self._learn(step, losses_K, threshold)
        warmup = step.queries if threshold is None else 0
        skipped = step.queries - len(losses_K)
        added = (step.queries, warmup, skipped, step.probes, int(easy_K.sum()))
        for name, count in zip(_COUNTS, added, strict=True):
            self._counts[name] += count
        if self._fixed is None and not self.config.follow and self.threshold is not None:
            self._fixed = threshold_of(
                self._losses_N[-self.config.window :],
                self._weights_N[-self.config.window :],
                self.config,
            )
        return ~easy_K

    def _learn(self, step: _Step, losses_K: Array, threshold: float | None) -> None:
        finite = np.isfinite(losses_K)
        losses, weights = losses_K[finite], step.weights_K[finite]
        most = max(self.config.window, self.config.memory)
        self._losses_N = np.concatenate([self._losses_N, losses])[-most:]
        self._weights_N = np.concatenate([self._weights_N, weights])[-most:]
        if step.features_KF is None:
            return
        features = step.features_KF[finite]
        if self._model is not None and threshold is not None:
            hard = losses >= threshold
            rows = np.column_stack([self._model.log_loss(features, hard), hard, weights])
            self._unseen = np.concatenate([self._unseen, rows])[-(self.config.memory // 4) :]
        known = self._features_NF if self._features_NF.size else features[:0]
        self._features_NF = np.concatenate([known, features])[-most:]
        if threshold is not None and len(self._features_NF) >= self.config.memory // 4:
            part = slice(-self.config.memory, None)
            # labels by the threshold of today, whatever it was when the loss was measured
            self._model = Logistic.fit(
                self._features_NF[part], self._losses_N[part] >= threshold, self._weights_N[part]
            )

    def summary(self) -> dict[str, float | None]:
        """What was skipped, for the manifest and the tracker.

        queries: seen, over all workers. warmup: of them, before a threshold. skipped_forward: not
        run at all. probes: run although expected easy. skipped_backward: run forward only.
        kept_share: of all queries, trained on. compute: forwards and backwards done, as a share of
        those without a filter, where a backward counts two forwards; above 1 the filter cost more
        than it saved. threshold: None during the warm-up.
        """
        queries = max(self._counts["queries"], 1)
        examined = self._counts["queries"] - self._counts["skipped_forward"]
        kept = examined - self._counts["skipped_backward"]
        return {
            **self._counts,
            "kept_share": kept / queries,
            "compute": (examined - self._counts["warmup"] + 3 * kept) / (3 * queries),
            "threshold": self.threshold,
        }

    def beginning(self, step: int) -> str:
        """What is said when the warm-up ends with this step (from 1)."""
        kind = "mean" if self.config.threshold == "mean" else f"{self.config.quantile:g}-quantile"
        window = min(len(self._losses_N), self.config.window)
        return (
            f"Filtering begins after step {step}: from now on groups with a loss below "
            f"{self.threshold:.4g} are left out (the {kind} of the last {window:,} losses"
            f"{', which it follows' if self.config.follow else ''})."
        )

    def sentence(self) -> str:
        """The summary in words."""
        one = self.summary()
        if one["threshold"] is None:
            return (
                f"Filtering skipped nothing: all {one['queries']:,} queries belong to its warm-up "
                f"of {self.config.warmup_queries:,}; lower filtering.warmup_queries."
            )
        return (
            f"Filtering trained on {one['kept_share']:.1%} of {one['queries']:,} queries: "
            f"{one['skipped_backward']:,} were easier than the loss threshold "
            f"({one['threshold']:.4g} at the end), {one['skipped_forward']:,} were expected to be "
            f"and not run; {one['compute']:.0%} of the work of training on all."
        )

    def state(self) -> dict[str, Any]:
        """Everything it remembers, as JSON values that `load` restores to the last bit."""
        if self._pending is not None:
            raise ValueError("expected state() between steps, found one after forward()")
        return {
            "features": self._features_NF.tolist(),
            "losses": self._losses_N.tolist(),
            "weights": self._weights_N.tolist(),
            "unseen": self._unseen.tolist(),
            "model": None if self._model is None else self._model.state(),
            "fixed": self._fixed,
            "owed": self._owed,
            "counts": dict(self._counts),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, taken by a filter of the same config."""
        self._pending = None
        features = np.array(state["features"], dtype=np.float64)
        self._features_NF = features if features.ndim == 2 else np.empty((0, 0))
        self._losses_N = np.array(state["losses"], dtype=np.float64)
        self._weights_N = np.array(state["weights"], dtype=np.float64)
        self._unseen = np.array(state["unseen"], dtype=np.float64).reshape(-1, 3)
        model = state["model"]
        self._model = None if model is None else Logistic(*(np.array(a) for a in model))
        self._fixed, self._owed = state["fixed"], state["owed"]
        self._counts = {name: int(state["counts"][name]) for name in _COUNTS}


_COUNTS = ("queries", "warmup", "skipped_forward", "probes", "skipped_backward")


@dataclass(frozen=True)
class _Step:
    queries: int
    probes: int
    features_KF: Array | None
    weights_K: Array


def threshold_of(losses_N: Array, weights_N: Array, config: Filtering) -> float:
    """The automatic threshold of these losses, before `min_keep`."""
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


def step_weights(keep_Q: Array) -> Array:
    """[Q] what each query's loss is multiplied by in the step's sum: 1 / Q if kept, else 0.

    Divided by all queries, not by those kept. The gradient is then that of the unfiltered step less
    the terms that were judged small: nothing changes as the threshold goes to 0, a step with one
    hard query counts a sixteenth of a step with sixteen, and shares of workers add up without
    knowing each other's counts. Divided by the kept, one query left over would be taken as the
    whole step, and the rate per query would grow as fewer are kept. AdamW undoes any constant
    factor in time, so what remains is the weight of steps relative to each other, and clipping,
    which sees smaller norms.
    """
    keep_Q = np.asarray(keep_Q, dtype=bool)
    return keep_Q / max(len(keep_Q), 1)


def in_order(parts: Sequence[Array]) -> Array:
    """Values of rows[r::w] of every worker r of w, interleaved into the order of the rows.

    >>> in_order([np.array([0.0, 2.0]), np.array([1.0])])
    array([0., 1., 2.])
    """
    out = np.empty(sum(len(part) for part in parts), dtype=np.float64)
    for rank, part in enumerate(parts):
        out[rank :: len(parts)] = part
    return out
