"""Figures as the cells of a table show them."""

from __future__ import annotations

import math

import pytest

from raypipe.evaluation.report.tables import figure, p_value, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, ".123"), (1.0, "1.000"), (-0.0504, "-.050"), (math.inf, "–")],  # noqa: RUF001
)
def test_figures(value, text):
    assert figure(value) == text


def test_small_figures():
    assert (p_value(0.0001), p_value(0.05), p_value(None)) == ("<.001", ".050", "–")  # noqa: RUF001
    assert (signed(0.0123), signed(-0.5), signed(1.25)) == ("+.012", "-.500", "+1.250")
