#!/usr/bin/env python
"""Mine what a recipe trains on: candidates, negatives, teacher scores, groups; count drops."""

from __future__ import annotations

from typing import Any

from raypipe.interrupts import one_sentence

with one_sentence():
    from raypipe.commands.command_line import main


def work(experiment: Any, dry_run: bool) -> Any:
    """Make the artifacts of every training set of the recipe, or print which there are."""
    from raypipe.commands import mine

    return mine.dry_run(experiment) if dry_run else mine.run(experiment)


if __name__ == "__main__":
    main(work, __doc__ or "", "default.yaml")
