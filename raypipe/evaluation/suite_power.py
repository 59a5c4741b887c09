"""How often the test of a suite's mean finds a difference: a simulation over sets and seeds.

`python -m raypipe.evaluation.suite_power` prints the table of docs/seeds.md.

A query's value is query effect + set effect + seed effect + noise of that query under that seed,
all normal. The defaults are those of `power`.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from raypipe.evaluation.significance import paired_test
from raypipe.evaluation.spread import Values
from raypipe.evaluation.suite_test import suite_test
from raypipe.names import counted

SETS = (3, 5, 12)
SET_SDS = (0.0, 0.03, 0.1)
SEEDS = (1, 3, 5)


class SuiteRejections(NamedTuple):
    """Shares of simulated comparisons that found a difference."""

    queries_alone: float
    """By the t-test over the queries of all sets, of values averaged over seeds."""
    over_sets: float
    """By `suite_test`."""


def suite_rejections(
    sets: int,
    seeds: int,
    set_sd: float,
    seed_sd: float = 0.01,
    difference: float = 0.0,
    queries: int = 100,
    query_sd: float = 0.2,
    noise_sd: float = 0.15,
    alpha: float = 0.05,
    runs: int = 1000,
    resamples: int = 200,
) -> SuiteRejections:
    """Simulate comparisons of two recipes on a suite of `sets` sets of `queries` queries each.

    Args:
        set_sd: standard deviation between sets of the true difference of the recipes.
        seed_sd: standard deviation between seeds of a recipe's mean, the same on all sets.
        difference: true difference over all sets that there might be; 0 gives the level.
        query_sd: standard deviation over queries of the difference between the recipes.
        noise_sd: standard deviation of one query's value between seeds, beside `seed_sd`.
    """
    rng = np.random.default_rng([sets, seeds])
    found = np.zeros(2)
    for _ in range(runs):
        arms_KSQ: list[Values] = [
            rng.normal(0.0, noise_sd, (sets, seeds, queries))
            + rng.normal(0.0, seed_sd, (1, seeds, 1))
            for _ in range(2)
        ]
        arms_KSQ[0] += difference + rng.normal(0.0, set_sd, (sets, 1, 1))
        arms_KSQ[0] += rng.normal(0.0, query_sd, (sets, 1, queries))
        pooled = [np.concatenate(arm.mean(axis=1)) for arm in arms_KSQ]
        left, right = map(list, arms_KSQ)
        p_values = paired_test(*pooled).p, suite_test(left, right, resamples).p
        found += np.array(p_values) < alpha
    return SuiteRejections(*(found / runs).tolist())


def table(runs: int, difference: float) -> list[str]:
    """Markdown: level and power per number of sets, spread between sets and seeds."""
    head = ["sets", "sd of sets"]
    head += [counted(seeds, "seed") for seeds in SEEDS]
    lines = [f"| {' | '.join(head)} |", "| ---: " * len(head) + "|"]
    for sets in SETS:
        for set_sd in SET_SDS:
            cells = [str(sets), f"{set_sd:g}"]
            for seeds in SEEDS:
                seed_sd = 0.01 if seeds > 1 else 0.0  # of one seed a verdict says nothing of others
                level = suite_rejections(sets, seeds, set_sd, seed_sd, runs=runs)
                power = suite_rejections(sets, seeds, set_sd, seed_sd, difference, runs=runs)
                alone = f"{level.queries_alone:.3f}"
                cells.append(f"{alone} / **{level.over_sets:.3f}** / {power.over_sets:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000, help="simulated comparisons per cell")
    parser.add_argument("--difference", type=float, default=0.03, help="of the power")
    arguments = parser.parse_args()
    print("\n".join(table(arguments.runs, arguments.difference)), flush=True)


if __name__ == "__main__":
    main()
