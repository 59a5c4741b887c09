"""Curves and costs of seeds as those of one row."""

from __future__ import annotations

from raypipe.evaluation.joined_rows import joined_curves, mean_costs
from raypipe.evaluation.results import QueryCost, Row


def row(depths: dict, costs: dict) -> Row:
    return Row("x", "trained", {}, depths=depths, costs=costs)


def test_seeds_stand_side_by_side_and_costs_are_means():
    one = row({"test": [{10: 0.1}]}, {"test": QueryCost(10.0, 50.0, 0.0, 90)})
    two = row({"test": [{10: 0.3}]}, {"test": QueryCost(20.0, 50.0, 1.0, 90)})
    assert joined_curves([one, two]) == {"test": [{10: 0.1}, {10: 0.3}]}
    assert mean_costs([one, two]) == {"test": QueryCost(15.0, 50.0, 0.5, 90)}


def test_a_set_that_one_seed_lacks_is_left_out():
    one = row({"test": [{10: 0.1}]}, {"test": QueryCost(10.0, 50.0, 0.0, 90)})
    assert joined_curves([one, row({}, {})]) == {} and mean_costs([one, row({}, {})]) == {}
