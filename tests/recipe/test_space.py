"""The space of a sweep as journals of earlier searches know it."""

from __future__ import annotations

from raypipe.config import digest
from raypipe.recipe.space import Sweep, UniformRange

RANGE = {"type": "uniform", "low": 1e-4, "high": 1e-2, "log": True}


def test_a_range_keeps_its_name_and_digest():
    uniform = UniformRange(**RANGE)
    assert uniform.semantic()["class"] == "Uniform"
    assert digest(uniform) == "23be088ed393e406"


def test_the_same_search_goes_on_in_the_journal_of_earlier_versions():
    """A journal's path holds the digest of the recipe, the sweep among it."""
    sweep = Sweep(mode="search", space={"a.lr": RANGE})
    assert digest(sweep) == "4f0bf88c50fe64a0"
