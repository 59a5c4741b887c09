"""How often a comparison finds a difference: a simulation over queries, seeds and their spread.

`python -m raypipe.evaluation.power` prints the table of docs/seeds.md; `rejections` answers for a
planned study how many queries and seeds it needs.

A value is query effect + seed effect + noise of that query under that seed, all normal. The
defaults are what nDCG@10 of small re-rankers has on pydoc.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np

from raypipe.evaluation.spread import Values, spread, t_tail
from raypipe.names import counted

QUERIES = (43, 200, 600, 1200)
SEED_SDS = (0.0, 0.005, 0.01, 0.02)
SEEDS = (1, 3, 5, 12)
_CELLS = 4_000_000
"""Values drawn at a time: 32 MB."""


class Rejections(NamedTuple):
    """Shares of simulated comparisons that found a difference."""

    queries_alone: float
    """By the t-test over queries, of values averaged over seeds."""
    with_seeds: float
    """By `significance.paired_test`."""


def rejections(
    queries: int,
    seeds: int,
    seed_sd: float,
    difference: float = 0.0,
    query_sd: float = 0.2,
    noise_sd: float = 0.15,
    alpha: float = 0.05,
    runs: int = 4000,
) -> Rejections:
    """Simulate comparisons of two recipes, each trained with `seeds` seeds.

    Args:
        seed_sd: standard deviation of a recipe's mean between seeds.
        difference: true difference of the recipes; 0 gives the level of the tests, others their
            power.
        query_sd: standard deviation over queries of the difference between the recipes.
        noise_sd: standard deviation of one query's value between seeds, beside `seed_sd`.
    """
    rng = np.random.default_rng([queries, seeds])
    step = max(1, _CELLS // (2 * seeds * queries))
    found = np.zeros(2)
    for start in range(0, runs, step):
        count = min(step, runs - start)
        arms = rng.normal(0.0, noise_sd, (count, 2, seeds, queries))
        arms += rng.normal(0.0, seed_sd, (count, 2, seeds, 1)) if seed_sd else 0.0
        arms[:, 0] += difference + rng.normal(0.0, query_sd, (count, 1, queries))
        found += (_p_values(arms) < alpha).sum(axis=1)
    return Rejections(*(found / runs).tolist())


def _p_values(arms: Values) -> Values:
    """p of both tests, [2, comparisons]."""
    differences = arms[:, 0].mean(axis=1) - arms[:, 1].mean(axis=1)
    mean = np.abs(differences.mean(axis=1))
    spreads = spread(differences, []), spread(differences, [arms[:, 0], arms[:, 1]])
    return np.stack([2 * t_tail(mean / error, freedom) for error, freedom in spreads])


def table(runs: int, difference: float) -> list[str]:
    """Markdown: level and power per number of queries, spread between seeds and seeds."""
    head = ["queries", "sd of seeds"]
    head += [counted(seeds, "seed") for seeds in SEEDS]
    lines = [f"| {' | '.join(head)} |", "| ---: " * len(head) + "|"]
    for queries in QUERIES:
        for seed_sd in SEED_SDS:
            cells = [f"{queries:,}", f"{seed_sd:g}"]
            for seeds in SEEDS:
                level = rejections(queries, seeds, seed_sd, runs=runs)
                power = rejections(queries, seeds, seed_sd, difference, runs=runs)
                alone = f"{level.queries_alone:.3f}"
                cells.append(f"{alone} / **{level.with_seeds:.3f}** / {power.with_seeds:.2f}")
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=4000, help="simulated comparisons per cell")
    parser.add_argument("--difference", type=float, default=0.015, help="of the power")
    arguments = parser.parse_args()
    print("\n".join(table(arguments.runs, arguments.difference)))


if __name__ == "__main__":
    main()
