"""The values of one list brought to a scale on which lists can be added up."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def zscore(values: Array) -> Array:
    """Zero mean, unit variance; a constant list becomes zeros."""
    if not len(values) or np.ptp(values) == 0:  # the deviation of equal doubles can be 1e-17
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def min_max(values: Array) -> Array:
    """(value - lowest) / (highest - lowest); a constant list becomes zeros."""
    span = float(np.ptp(values)) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)
