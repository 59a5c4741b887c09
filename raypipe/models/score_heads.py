"""What makes one float32 score of a transformer's output."""

from __future__ import annotations

from pathlib import Path
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.models.attention import attention_kernel
from raypipe.models.sentence_modules import SentenceModules
from raypipe.models.vector_head import vector_head
from raypipe.models.weights import read_encoder


class LabelOdds(nn.Module):
    """A head with several outputs as one score: the log-odds of one label."""

    def __init__(self, model: nn.Module, label: int) -> None:
        super().__init__()
        self.model = model
        self.label = label

    def forward(self, **inputs_BL: Tensor) -> SimpleNamespace:
        logits_BL = self.model(**inputs_BL).logits.float()
        others = [n for n in range(logits_BL.shape[1]) if n != self.label]
        odds_B = logits_BL[:, self.label] - logits_BL[:, others].logsumexp(1)
        return SimpleNamespace(logits=odds_B[:, None])


class ModularScorer(nn.Module):
    """A transformer whose score is made by sentence-transformers' modules."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, **inputs_BL: Tensor) -> SimpleNamespace:
        hidden_BLH = self.model(**inputs_BL).last_hidden_state
        return SimpleNamespace(logits=self.head(hidden_BLH, inputs_BL["attention_mask"]))


def modular_scorer(
    folder: Path, modules: SentenceModules, where: str, device: str
) -> ModularScorer:
    """The scorer in evaluation mode on `device`.

    Raises:
        ConfigError: the folder lacks weights.
    """
    model = read_encoder(folder, where, lambda kind: attention_kernel(device, kind))
    width = int(model.config.hidden_size)  # type: ignore[union-attr]
    head = vector_head(folder, modules.pooling, modules.layers, width, where)
    return ModularScorer(model, head).to(device).eval()


def score_in_float32(model: nn.Module) -> None:
    """Make the head compute in float32 under autocast too: bf16 scores have three digits and tie.

    The new forward is a bound method, which `copy.deepcopy` binds to the copy; a closure in a copy
    would still read the weights of the original model.
    """
    head = getattr(model, "classifier", None) or model.score
    head.forward = MethodType(_float32_forward, head)  # type: ignore[method-assign]


def _float32_forward(head: nn.Module, features: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        scores: Tensor = type(head).forward(head, features.float(), *args, **kwargs)
    return scores
