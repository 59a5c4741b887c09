#!/usr/bin/env python
"""Compare losses, backbones and stage orders: mine once, train each distinct stage once, report."""

from __future__ import annotations

from typing import Any

from raypipe.job import main


def work(experiment: Any, dry_run: bool) -> Any:
    """Run every trial of the recipe's sweep, or print the plan."""
    from raypipe.sweep.sweep import plan_of, run

    if not dry_run:
        return run(experiment)
    plan, builder = plan_of(experiment)
    print("\n".join(plan.summary(lambda step: builder.find(step) is not None)))
    return None


if __name__ == "__main__":
    main(work, __doc__ or "", "default.yaml")
