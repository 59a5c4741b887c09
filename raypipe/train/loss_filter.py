"""A loss filter at work: it remembers recent losses and says which groups a step leaves out.

Shapes: Q queries of a step over all workers, K of them that are run forward, F features, N recent
examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.train.filtering import Filtering, keeping, threshold_of
from raypipe.train.predictor import Logistic

Array = np.ndarray[Any, Any]

_COUNTS = ("queries", "warmup", "skipped_forward", "probes", "skipped_backward")


@dataclass(frozen=True)
class _Step:
    """A step whose losses `backward` waits for."""

    queries: int
    probes: int
    features_KF: Array | None
    weights_K: Array
    """How many groups each group stands for: 1, of a probe 1 / probe."""


class LossFilter:
    """Decides from the losses (and features) seen so far, in order, and from nothing else.

    One filter serves all workers of a training; `skipping.kept_rows` asks it. Per step, with `rows`
    the groups of the step over all workers:

        keep_Q = filter.forward(features_QF)     # mode backward: filter.forward_all(len(rows))
        losses of rows[keep_Q], without gradients, gathered from all workers in the order of rows
        keep_K = filter.backward(losses_K)
        forward and backward of rows[keep_Q][keep_K], every loss times 1 / Q

    Every loss is divided by all queries, not by the kept ones. So the gradient is that of the
    unfiltered step less the terms that were judged small, and a step with one hard query counts a
    sixteenth of a step with sixteen. Divided by the kept queries, a single one left over would
    count as a whole step. AdamW undoes a constant factor in time; what remains is the weight of
    steps relative to each other, and clipping, which sees smaller norms.

    A kept group is run forward twice: with a backward pass as long as two forward passes, a step
    costs K + 3 kept instead of 3 Q (`summary`: compute). So filtering costs more than it saves
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
        self._owed = 0.0  # probes that are due; counted, so that nothing is random
        self._pending: _Step | None = None
        self._counts = dict.fromkeys(_COUNTS, 0)

    @property
    def threshold(self) -> float | None:
        """A loss below it is skipped; None during the warm-up. Constant within a step."""
        if self._counts["queries"] < self.config.warmup_queries or not len(self._losses_N):
            return None
        automatic = self._automatic() if self._fixed is None else self._fixed
        if not self.config.min_keep:
            return automatic
        return min(automatic, keeping(*self._window(), self.config.min_keep))

    def _window(self) -> tuple[Array, Array]:
        """The recent losses behind the threshold, and their weights."""
        return self._losses_N[-self.config.window :], self._weights_N[-self.config.window :]

    def _automatic(self) -> float:
        return threshold_of(*self._window(), self.config)

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
        """bool [Q], all True: begins a step in mode backward.

        Raises:
            ValueError: the mode is another, or `backward` did not end the step before.
        """
        if self.config.mode != "backward":
            raise ValueError(
                f"expected forward(features) in mode {self.config.mode}, found forward_all; give "
                "group_features of every group of the step"
            )
        return self._begin(None, np.ones(queries), 0)

    def forward(self, features_QF: Array) -> Array:
        """bool [Q]: begins a step and says which of its groups are run forward.

        Args:
            features_QF: `group_features` of every group, finite.

        Raises:
            ValueError: features are not finite, or `backward` did not end the step before.
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
            raise ValueError(
                "expected backward() after forward(), found a second forward(); end every step "
                "with backward(losses), also without losses"
            )
        keep_Q = weights_Q > 0
        kept = None if features_QF is None else features_QF[keep_Q]
        self._pending = _Step(len(keep_Q), probes, kept, weights_Q[keep_Q])
        return keep_Q

    def backward(self, losses_K: Array) -> Array:
        """bool [K]: ends a step and says which of the groups run forward are run backward, too.

        The threshold of before the step decides; then all losses of the step enter the statistics.
        A loss that is not finite is kept, for the loop to stop at, and enters no statistic. A step
        in which nothing was run forward is ended with no losses.

        Raises:
            ValueError: `forward` was not called, or kept another number of groups.
        """
        if self._pending is None:
            raise ValueError(
                "expected forward() before backward(), found none in this step; begin every step "
                "with forward(features) or forward_all(queries)"
            )
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
            self._fixed = self._automatic()
        return ~easy_K

    def _learn(self, step: _Step, losses_K: Array, threshold: float | None) -> None:
        """Remember the step's losses; refit the classifier on the examples of `memory`."""
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

        queries: all queries, over all workers; warmup: those before there was a threshold.
        skipped_forward: groups not run at all; probes: groups run although expected easy;
        skipped_backward: groups run forward only. kept_share: share of all queries that was trained
        on. compute: forwards and backwards done, as a share of those without a filter, where a
        backward counts two forwards; above 1 the filter cost more than it saved. threshold: None
        during the warm-up.
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
        """The sentence for the user when the warm-up ends with this step (from 1)."""
        kind = "mean" if self.config.threshold == "mean" else f"{self.config.quantile:g}-quantile"
        window = min(len(self._losses_N), self.config.window)
        return (
            f"Filtering begins after step {step}: from now on groups with a loss below "
            f"{self.threshold:.4g} are left out (the {kind} of the last {window:,} losses"
            f"{', which it follows' if self.config.follow else ''})."
        )

    def sentence(self) -> str:
        """The summary in words."""
        figures = self.summary()
        if figures["threshold"] is None:
            return (
                f"Filtering skipped nothing: all {figures['queries']:,} queries belong to its "
                f"warm-up of {self.config.warmup_queries:,}; lower filtering.warmup_queries."
            )
        return (
            f"Filtering trained on {figures['kept_share']:.1%} of {figures['queries']:,} queries: "
            f"{figures['skipped_backward']:,} were easier than the loss threshold "
            f"({figures['threshold']:.4g} at the end), {figures['skipped_forward']:,} were "
            f"expected to be and not run; {figures['compute']:.0%} of the work of training on all."
        )

    def state(self) -> dict[str, Any]:
        """Everything the filter remembers, as JSON values that `load` restores to the last bit."""
        if self._pending is not None:
            raise ValueError(
                "expected state() between steps, found a step that forward() began; call "
                "backward(losses) first"
            )
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
        """Continue from the `state` of a filter of the same config."""
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
