#!/usr/bin/env python
"""Mine what a recipe trains on: candidates, negatives, teacher scores, groups; count drops."""

from __future__ import annotations

from typing import Any

from raypipe.commands.command_line import main


def work(experiment: Any, dry_run: bool) -> Any:
    """Make the artifacts of every training set of the recipe, or print which there are."""
    from raypipe.commands.mine import plan_lines, plan_of, run

    if not dry_run:
        return run(experiment)
    print("\n".join(plan_lines(*plan_of(experiment))))
    return None


if __name__ == "__main__":
    main(work, __doc__ or "", "default.yaml")
