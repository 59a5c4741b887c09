"""The order in which workers' losses reach the filter."""

from __future__ import annotations

import numpy as np

from raypipe.train.skipping import in_order


def test_gathered_losses_take_the_order_of_the_rows():
    rows = np.arange(11.0)
    for world in (1, 2, 3, 11):
        assert in_order([rows[rank::world] for rank in range(world)]).tolist() == rows.tolist()
