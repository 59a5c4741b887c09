#!/usr/bin/env python
"""Compare losses, backbones and stage orders: mine once, train each distinct stage once, report."""

from __future__ import annotations

from typing import Any

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.commands.command_line import main


def work(experiment: Any, dry_run: bool) -> Any:
    """Run every trial of the recipe's sweep, or print the plan."""
    from raypipe.commands.compare import run_or_plan

    return run_or_plan(experiment, dry_run)


if __name__ == "__main__":
    main(work, __doc__ or "", "default.yaml")
