#!/usr/bin/env python
"""Train one model through its stages, in order, and evaluate it beside first stage and teacher."""

from __future__ import annotations

from typing import Any

from raypipe.job import main


def work(experiment: Any, dry_run: bool) -> Any:
    """Run the recipe as it stands, without its sweep, or print the plan."""
    from raypipe.experiment import Sweep
    from raypipe.sweep.sweep import plan_of, run

    trained = " -> ".join(experiment.stage_names)
    experiment = experiment.replace(sweep=Sweep(), reference=trained)
    if not dry_run:
        return run(experiment)
    plan, builder = plan_of(experiment)
    print("\n".join(plan.summary(lambda step: builder.find(step) is not None)))
    return None


if __name__ == "__main__":
    main(work, __doc__ or "", "default.yaml")
