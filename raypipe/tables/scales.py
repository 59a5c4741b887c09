"""The values of one list brought to a scale on which lists can be added up."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def zscore(values: Array) -> Array:
    """Zero mean, unit variance; a constant list becomes zeros."""
    values = _within_range(values)
    if not len(values) or np.ptp(values) == 0:  # the deviation of equal doubles can be 1e-17
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


def min_max(values: Array) -> Array:
    """(value - lowest) / (highest - lowest); a constant list becomes zeros."""
    values = _within_range(values)
    span = float(np.ptp(values)) if len(values) else 0.0
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def _within_range(values: Array) -> Array:
    """The values, by a power of two larger or smaller where their squares leave the range of
    doubles: neither scale changes by it, and so no bit of usual values."""
    largest = float(np.abs(values).max(initial=0.0))
    if not np.isfinite(largest) or largest == 0 or 1e-100 < largest < 1e100:
        return values
    return np.ldexp(values, -int(np.frexp(largest)[1]))
