"""What decided a job's results beside its recipe: packages, and the versions of its steps."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping

from raypipe.storage.artifacts import Step
from raypipe.sweep.counters import steps_behind
from raypipe.tracking.recorder import commit

LOCK = "lock.txt"
"""A file of a job's tracked run."""


def lock_text(steps: Mapping[str, Step]) -> str:
    """Lines as `pip install -r` reads them; what is no package stands in comments.

    Args:
        steps: the last steps of the job, by name; those that they are made from are added.
    """
    every = [*steps.values(), *(step for _, step in steps_behind(steps))]
    versions = sorted({f"# step {type(step).__name__} {step.version}" for step in every})
    names = {f"{package.name}=={package.version}" for package in importlib.metadata.distributions()}
    head = [f"# Python {platform.python_version()}, {platform.platform()}"]
    head += [f"# raypipe at {sha}" for sha in commit().values()]
    return "\n".join([*head, *versions, *sorted(names, key=str.lower)]) + "\n"
