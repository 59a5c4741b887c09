"""Watches a training and says what goes wrong, in plain sentences with figures and a remedy.

Shapes: Q queries, D documents per group (padded to the longest).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.train.drift import (
    LossCurve,
    drift_sentence,
    percent,
    rate_sentence,
    spacing_share,
)
from raypipe.train.selection import merit

AGAIN = 10
"""An alarm is repeated when its figure has become this many times worse."""
CONSTANT_STEPS = 3
"""Steps in a row with constant scores: bfloat16 scores of a pair alone tie now and then."""
WINDOW = 15
"""Steps whose median is the spread of the scores, so that one odd step decides nothing."""
COLLAPSE = 20
"""The spread of the scores has collapsed when it is below 1/COLLAPSE of its running maximum."""


class Alarms:
    """Watches one stage; `messages` holds all its sentences, in order.

    Call per step `on_scores` for every block, then `on_step`; `on_validation` after each
    validation; `on_start` and `on_end` once. No call changes the training or draws a random number.
    Every worker may hold alarms, which judge the scores of its own queries, but the `say` of only
    one worker should print.

    Args:
        say: receives each sentence, once.
        selection: the key of validation values that selects checkpoints, see `Selection`.
        first_stage: the validation values of the candidates before re-ranking; None if not known.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        selection: str,
        first_stage: Mapping[str, float] | None,
    ) -> None:
        self.messages: list[str] = []
        self._say, self._selection = say, selection
        self._first = dict(first_stage or {})
        self._pending: list[Tensor] = []  # of the blocks of this step, on the model's device
        self._figures: dict[str, float] = {}  # of each alarm, when it was last said
        self._constant = 0
        self._spreads: list[float] = []
        self._losses: list[float] = []
        self._widest: tuple[float, int, float] = (0.0, 0, 0.0)  # spread, its step, loss then
        self._curve = LossCurve()
        self._plateau: float | None = None
        self._quarter = 0
        self._lr = 0.0
        self._last: tuple[int, float] | None = None  # step and value of a validation
        self._best: tuple[int, float] | None = None

    def on_start(
        self,
        model: nn.Module,
        lr: float,
        plateau: float | None = None,
        steps: int = 0,
        pooler: str | None = None,
    ) -> float:
        """Before the first step, with the schedule's highest rate; returns `spacing_share`.

        Args:
            plateau: the loss of a model that ranks nothing: `Loss.of_equal_scores`.
            steps: of the whole stage.
            pooler: what `untrained_pooler` says of the model.
        """
        self._plateau, self._quarter = plateau, max(steps // 4, WINDOW)
        share = spacing_share(model, lr)
        sentence = rate_sentence(share, lr)
        if sentence:
            self._tell("rate", share, sentence)
        if pooler is not None:
            self._tell("pooler", 1.0, pooler)
        return share

    def on_scores(self, step: int, scores_QD: Tensor, mask_QD: Tensor) -> None:
        """Take the scores of one block of whole groups; waits for no device."""
        with torch.no_grad():
            self._pending.append(_spread_sums(scores_QD.detach().float(), mask_QD.bool()))

    def on_step(self, step: int, loss: float, grad_norm: float, lr: float) -> None:
        """After a step, with its mean loss over all workers, its norm before clipping, its rate."""
        self._lr = max(self._lr, lr)
        if math.isfinite(loss):
            self._curve.add(loss)
            self._losses = [*self._losses, loss][-WINDOW:]
            self._on_plateau(step)
        if self._pending:
            groups, constant, spread = torch.stack(self._pending).sum(0).tolist()
            self._pending.clear()
            if groups and math.isfinite(spread):
                self._on_constant(step, constant / groups)
                self._on_spread(step, spread / groups)

    def on_validation(self, step: int, values: Mapping[str, float]) -> None:
        """After a validation, with the means of its measures."""
        value = float(values[self._selection])
        self._last = (step, value)
        best = (
            None if self._best is None else merit(self._selection, {self._selection: self._best[1]})
        )
        if best is None or merit(self._selection, values) > best:
            self._best = (step, value)

    def on_end(self, moved: Mapping[str, float] | None = None) -> None:
        """After the last step and validation, with the result of `drift`."""
        flat = self._curve.flat()
        # scores without spread explain a flat loss, and ask for a lower lr, not for a higher one
        if flat and not {"constant", "collapse"} & self._figures.keys():
            first, last = flat
            self._tell(
                "flat",
                1.0,
                f"The loss did not fall over the stage beyond its noise ({first:.4g} in the first "
                f"quarter, {last:.4g} in the last, highest lr {self._lr:g}): raise lr or train "
                "longer; if a smaller loss is impossible here, look at the targets.",
            )
        below = self._below_first_stage()
        if below:
            self._tell("below", 1.0, below)
        if self._best is not None and self._best[0] == 0:
            self._tell("start", 1.0, self._no_better_than_the_start(self._best[1]))
        elif moved and moved["drift_unchanged_layers"] > 0.5:
            self._tell("unmoved", 1.0, f"{drift_sentence(moved)} Raise lr or unfreeze layers.")

    def _no_better_than_the_start(self, start: float) -> str:
        assert self._last is not None, "there was a validation"
        return (
            f"No step was better than the start: validation {self._selection} was {start:.4f} "
            f"before the first step and {self._last[1]:.4f} after the last. The checkpoint has the "
            "start's weights; lower lr, train longer, or leave the stage out."
        )

    def _below_first_stage(self) -> str | None:
        first = self._first.get(self._selection)
        if self._last is None or self._best is None or first is None or self._last[1] >= first:
            return None
        checkpoint = "the best checkpoint is no better: "
        if self._best[1] >= first:
            checkpoint = (
                f"the checkpoint of step {self._best[0]} with {self._best[1]:.4f} is kept; "
            )
        return (
            f"Validation {self._selection} is {self._last[1]:.4f} after the last step, below the "
            f"first stage's {first:.4f}; {checkpoint}train longer, try another lr or a better "
            "teacher, or interpolate with the first stage."
        )

    def _on_plateau(self, step: int) -> None:
        if self._plateau is None or step < self._quarter or len(self._losses) < WINDOW:
            return
        loss = statistics.median(self._losses)
        if abs(loss - self._plateau) <= 0.02 * self._plateau:
            self._tell(
                "plateau",
                1.0,
                f"Step {step}: after a quarter of the stage the loss is {loss:.4g}; a model that "
                f"gives all documents one score has {self._plateau:.4g}: nothing is learned yet; "
                "raise lr, train longer, or start from a sentence encoder with "
                "model.head=similarity.",
            )

    def _on_constant(self, step: int, share: float) -> None:
        self._constant = self._constant + 1 if share > 0.5 else 0
        if self._constant >= CONSTANT_STEPS:
            # scores that were constant before the first step are no matter of lr
            lower = "" if step <= self._constant else "lower lr, "
            self._tell(
                "constant",
                self._constant,
                f"Step {step}: all documents of a group have the same score in {share:.0%} of the "
                f"groups, for {self._constant} steps now: such scores rank nothing and most losses "
                f"have no gradient there; {lower}start from a sound checkpoint, or look at the "
                "head and at what the model is given to read.",
            )

    def _on_spread(self, step: int, spread: float) -> None:
        self._spreads = [*self._spreads, spread][-WINDOW:]
        if len(self._spreads) < WINDOW or len(self._losses) < WINDOW:
            return
        spread, loss = statistics.median(self._spreads), statistics.median(self._losses)
        if spread > self._widest[0]:
            self._widest = (spread, step, loss)
        widest, widest_step, loss_then = self._widest
        # scores may draw together as long as the loss falls: 2 % is more than noise of a median
        if spread < widest / COLLAPSE and loss > loss_then - 0.02 * abs(loss_then):
            self._tell(
                "collapse",
                widest / max(spread, widest * 1e-9),
                f"Step {step}: the scores within a group have a standard deviation of "
                f"{spread:.2g}, under 1/{COLLAPSE} of the {widest:.2g} at step {widest_step}, and "
                f"the loss has not fallen since ({loss_then:.4g} then, {loss:.4g} now): the scores "
                "collapse; lower lr, lengthen the warm-up or lower clip.",
            )

    def _tell(self, name: str, figure: float, sentence: str) -> None:
        """Say an alarm, unless it was said with a figure about as bad."""
        if name in self._figures and figure < AGAIN * self._figures[name]:
            return
        self._figures[name] = figure
        self.messages.append(sentence)
        self._say(sentence)

    def state(self) -> dict[str, Any]:
        """Everything the alarms remember, as JSON values; only between steps."""
        if self._pending:
            raise ValueError(
                "expected state() after on_step(), found scores of an unfinished step; call "
                "on_step first"
            )
        return {
            "messages": list(self.messages),
            "said": dict(self._figures),
            "constant": self._constant,
            "spreads": list(self._spreads),
            "losses": list(self._losses),
            "widest": list(self._widest),
            "curve": self._curve.state(),
            "lr": self._lr,
            "last": self._last,
            "best": self._best,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; a sentence said before is not said again."""
        self._pending.clear()
        self.messages = list(state["messages"])
        self._figures = dict(state["said"])
        self._constant = int(state["constant"])
        self._spreads, self._losses = list(state["spreads"]), list(state["losses"])
        spread, step, loss = state["widest"]
        self._widest = (spread, step, loss)
        self._curve = LossCurve(**state["curve"])
        self._lr = state["lr"]
        self._last = None if state["last"] is None else (state["last"][0], state["last"][1])
        self._best = None if state["best"] is None else (state["best"][0], state["best"][1])


def _spread_sums(scores_QD: Tensor, mask_QD: Tensor) -> Tensor:
    """[3] groups of two documents or more, how many are constant, sum of standard deviations."""
    count_Q = mask_QD.sum(1)
    many_Q = count_Q >= 2
    clean_QD = torch.where(mask_QD, scores_QD, 0.0)
    mean_Q = clean_QD.sum(1) / count_Q.clamp(min=1)
    square_QD = torch.where(mask_QD, (clean_QD - mean_Q[:, None]) ** 2, 0.0)
    deviation_Q = (square_QD.sum(1) / count_Q.clamp(min=1)).sqrt()
    high_Q = torch.where(mask_QD, scores_QD, -math.inf).amax(1)
    low_Q = torch.where(mask_QD, scores_QD, math.inf).amin(1)
    size_Q = torch.maximum(high_Q.abs(), low_Q.abs())
    constant_Q = (high_Q - low_Q) <= size_Q * torch.finfo(torch.float32).eps
    columns = (many_Q.float(), (many_Q & constant_Q).float(), torch.where(many_Q, deviation_Q, 0.0))
    return torch.stack([column.sum() for column in columns])


def not_finite(step: int, loss: float, grad_norm: float, lr: float) -> str | None:
    """The text of the exception for a NaN or infinite loss or gradient norm; None if both are fine.

    With fp16 an infinite norm is part of the search for a loss scale: ask after the search ended.
    """
    for what, value in (("loss", loss), ("norm of the gradient", grad_norm)):
        if not math.isfinite(value):
            return (
                f"Step {step}: the {what} is {value} at lr {lr:.3g}: lower lr, raise warmup or the "
                "loss's temperature, or use precision=fp32; the last checkpoint is unharmed."
            )
    return None


def cut_sentence(cut: int, documents: int, reads: str) -> str:
    """Says how many of the groups' documents are longer than what the model reads of them.

    Args:
        reads: `Truncation.reads`.
    """
    share = cut / max(documents, 1)
    text = f"{percent(share)} of the documents ({cut:,} of {documents:,}) are cut: the model reads"
    remedy = ""
    if share > 0.2:
        remedy = "; raise the token limit, or read several passages (truncation.type=max_p)"
    return f"{text} {reads}{remedy}."
