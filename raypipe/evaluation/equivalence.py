"""Is a difference small enough not to matter? Equivalence tests and the verdict they lead to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from raypipe.evaluation.significance import pairs_of

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]


def tost(a: Sequence[float], b: Sequence[float], margin: float) -> float:
    """p of two one-sided paired t-tests (Schuirmann 1987): a small p says |mean(a - b)| < margin.

    The larger p of the tests of a - b > -margin and a - b < margin.

    Args:
        margin: more than 0, in the unit of the measure.

    Returns:
        0..1; NaN with fewer than two queries. If all differences are equal, 0 or 1.

    Raises:
        ValueError: as `paired_test`, or a margin that is not positive.
    """
    from statsmodels.stats.weightstats import ttost_paired

    left, right = pairs_of(a, b)
    if not margin > 0:
        raise ValueError(f"expected a margin above 0, found {margin}; 0.01 is one point of nDCG")
    difference = left - right
    if len(difference) < 2:
        return math.nan
    if np.ptp(difference) == 0:  # no spread, no t-test
        return float(abs(difference[0]) >= margin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ttost_paired(left, right, -margin, margin)[0])


def smallest_margin(a: Sequence[float], b: Sequence[float], alpha: float = 0.05) -> float:
    """The smallest margin for which `tost` gives alpha on these queries.

    |mean(d)| + t(1 - alpha, n - 1) * sd(d) / sqrt(n): these queries cannot confirm a smaller
    margin. The formula ignores Holm's correction, which asks for a little more.

    Returns:
        In the unit of the measure; infinite with fewer than two queries.
    """
    from scipy.stats import t

    left, right = pairs_of(a, b)
    difference = left - right
    n = len(difference)
    if n < 2:
        return math.inf
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    return abs(float(difference.mean())) + float(t.ppf(1 - alpha, n - 1)) * error


def verdict(difference: float, p: float, p_equivalence: float, alpha: float = 0.05) -> Verdict:
    """What the two corrected tests say together.

    A difference that is surely smaller than the margin is `equivalent`, even if it is surely not 0:
    within the margin the user calls two rows the same. Where neither test is significant, nothing
    is known: `inconclusive`.

    Args:
        difference: mean of the row minus mean of the reference.
        p: of the test of a difference, corrected; NaN says nothing.
        p_equivalence: of `tost`, corrected; NaN says nothing.
    """
    if p_equivalence < alpha:
        return "equivalent"
    if p < alpha:
        return "better" if difference > 0 else "worse"
    return "inconclusive"
