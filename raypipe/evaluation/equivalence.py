"""Is a difference small enough not to matter? Equivalence tests and the verdict they lead to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from raypipe.evaluation.significance import PairedTest
from raypipe.evaluation.spread import t_quantile, t_tail

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]
TURNED: Mapping[Verdict, Verdict] = {"better": "worse", "worse": "better"}
"""Verdicts that another one stands for when both rows change places."""


def tost(test: PairedTest, margin: float) -> float:
    """p of two one-sided t-tests (Schuirmann 1987): a small p says |mean(a - b)| < margin.

    The larger p of the tests of a - b > -margin and a - b < margin.

    Args:
        margin: more than 0, in the unit of the measure.

    Returns:
        0..1; NaN with fewer than two queries. If all differences are equal, 0 or 1.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"expected a margin above 0, found {margin}; 0.01 is one point of nDCG")
    within = margin - abs(test.difference)
    if test.error == 0:  # no spread, no t-test
        return float(within <= 0)
    return float(t_tail(within / test.error, test.freedom))


def smallest_margin(test: PairedTest, alpha: float = 0.05) -> float:
    """The smallest margin for which `tost` gives alpha on these queries.

    |difference| + t(1 - alpha) * error: these queries and seeds cannot confirm a smaller margin.
    The formula ignores Holm's correction, which asks for a little more.

    Returns:
        In the unit of the measure; infinite with fewer than two queries.
    """
    if math.isnan(test.error):
        return math.inf
    return abs(test.difference) + t_quantile(1 - alpha, test.freedom) * test.error


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
