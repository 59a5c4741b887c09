"""Drawing texts from a causal model: every text has a seed of its own, whatever its batch.

The largest of log p + G, with G from the Gumbel distribution, is a draw from p (Gumbel 1954;
Maddison et al. 2014), so decoding stays greedy over scores to which each row's own noise was added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from raypipe.inference.llm.base import Sampling


def drawing(
    rows: Sequence[Sampling | None], prompt_length: int, text: Callable[[Sequence[int]], str] | None
) -> dict[str, Any]:
    """Further arguments of transformers' `generate` for a batch; none where all is greedy.

    Args:
        rows: how each text of the batch is drawn; None is the likeliest text.
        prompt_length: tokens of the padded prompts.
        text: what new tokens say, which tells where a line ends; None lets no text end early.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    arguments: dict[str, Any] = {}
    if any(rows):
        arguments["logits_processor"] = LogitsProcessorList([_Noise(rows)])
    if text is not None and any(row is not None and row.one_line for row in rows):
        ends = _FirstLine([row is not None and row.one_line for row in rows], prompt_length, text)
        arguments["stopping_criteria"] = StoppingCriteriaList([ends])
    return arguments


class _Noise:
    """Adds each row's own noise to its scores; called once per new token."""

    def __init__(self, rows: Sequence[Sampling | None]) -> None:
        self._rows = rows
        seeds = [None if row is None else row.seed for row in rows]
        self._generators = [
            None if seed is None else torch.Generator().manual_seed(seed % 2**63) for seed in seeds
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[rows, vocabulary] scores whose largest entry is the token drawn."""
        drawn = scores.float().clone()
        for i, (row, generator) in enumerate(zip(self._rows, self._generators, strict=True)):
            if row is None:
                continue
            kept = nucleus(drawn[i] / row.temperature, row.top_p)
            uniform = torch.rand(kept.shape, generator=generator, dtype=torch.float64)
            noise = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
            drawn[i] = kept + noise.to(kept)
        return drawn


def nucleus(logits_V: torch.Tensor, top_p: float) -> torch.Tensor:
    """The logits with -inf for all but the likeliest tokens that together have probability `top_p`
    (Holtzman et al. 2020); the likeliest always stays.

    Probabilities .5, .3, .2 and top_p .6 keep the first two.
    """
    if top_p >= 1:
        return logits_V
    ordered, order = torch.sort(logits_V, descending=True, stable=True)
    before = torch.softmax(ordered, -1).cumsum(-1).roll(1)
    before[0] = 0
    out = torch.empty_like(logits_V)
    out[order] = ordered.masked_fill(before >= top_p, -torch.inf)
    return out


class _FirstLine:
    """Ends a text behind its first line that is not blank."""

    def __init__(
        self, rows: Sequence[bool], prompt_length: int, text: Callable[[Sequence[int]], str]
    ) -> None:
        self._rows, self._from, self._text = rows, prompt_length, text

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """[rows] whether the text is done."""
        new = input_ids[:, self._from :].tolist()
        done = [
            ends and "\n" in self._text(ids).lstrip()
            for ends, ids in zip(self._rows, new, strict=True)
        ]
        return torch.tensor(done, device=input_ids.device)
