"""Token vectors to one vector per text, in every way that sentence-transformers knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def pool(hidden_BLH: Tensor, mask_BL: Tensor, modes: Iterable[Mode]) -> Tensor:
    """[batch, modes x hidden]: the vectors of all modes one after the other.

    Args:
        mask_BL: 1 for tokens and 0 for padding, which stands at the end.
    """
    mask_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLH.dtype)
    return torch.cat([_pooled(hidden_BLH, mask_BL1, mode) for mode in modes], dim=-1)


def _pooled(hidden_BLH: Tensor, mask_BL1: Tensor, mode: Mode) -> Tensor:
    match mode:
        case "cls":
            return hidden_BLH[:, 0]
        case "lasttoken":
            last_B = mask_BL1[:, :, 0].sum(1).long() - 1
            return hidden_BLH[torch.arange(len(last_B), device=last_B.device), last_B]
        case "max":
            return hidden_BLH.masked_fill(mask_BL1 == 0, -torch.inf).max(1).values
        case "weightedmean":  # later tokens count more
            places_L1 = torch.arange(1, hidden_BLH.shape[1] + 1, device=hidden_BLH.device)[:, None]
            mask_BL1 = mask_BL1 * places_L1.to(hidden_BLH.dtype)
            return (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
        case "mean_sqrt_len_tokens":
            return (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1).sqrt()
        case "mean":
            return (hidden_BLH * mask_BL1).sum(1) / mask_BL1.sum(1)
