"""Which document stands before which in one query: margins, ordered pairs, ranks.

Shapes: Q queries of the batch, D documents per group; QDD holds (i, j) at [q, i, j].
"""

from __future__ import annotations

import torch
from torch import Tensor


def margins(values_QD: Tensor) -> Tensor:
    """v_i - v_j at [q, i, j]."""
    return values_QD.unsqueeze(2) - values_QD.unsqueeze(1)


def usable_pairs(mask_QD: Tensor) -> Tensor:
    """True at [q, i, j] where both documents are usable; i = j included."""
    return mask_QD.unsqueeze(2) & mask_QD.unsqueeze(1)


def ordered(targets_QD: Tensor, mask_QD: Tensor) -> Tensor:
    """True at [q, i, j] where both documents are usable and target i is above target j."""
    return usable_pairs(mask_QD) & (targets_QD.unsqueeze(2) > targets_QD.unsqueeze(1))


def ranks(before_QDD: Tensor, mask_QD: Tensor) -> Tensor:
    """Rank of every document, 1 is first; documents that tie share their mean rank. No gradient.

    Args:
        before_QDD: True where i stands before j; documents tie where neither stands before the
            other.

    Returns:
        Float32, shape QD; anything from 1/2 where the mask is False.
    """
    # 1 for every j before i, 1/2 for every tie; i ties with itself, which 1/2 + 1/2 makes rank 1.
    halves_QDD = 1.0 + before_QDD.transpose(1, 2).float() - before_QDD.float()
    return 0.5 + 0.5 * (halves_QDD * mask_QD.unsqueeze(1)).sum(2)


def soft_ranks(scores_QD: Tensor, mask_QD: Tensor, temperature: float) -> Tensor:
    """r_i = 1 + sum over usable j != i of sigmoid((s_j - s_i) / T), the ranks of Qin et al. 2010.

    Documents of equal score get their mean rank. A document 7 T away counts 0.001 wrong, and its
    gradient is as small.
    """
    before_QDD = torch.sigmoid(-margins(scores_QD) / temperature)
    # j = i adds 1/2 without a gradient
    return 0.5 + (before_QDD * mask_QD.unsqueeze(1)).sum(2)
