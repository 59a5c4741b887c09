"""From a recipe to trials: every combination of the sweep's values, validated on the driver."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.config import ConfigError, nearest, override, validate
from raypipe.experiment import ARROW, Experiment


@dataclass(frozen=True)
class Trial:
    """One combination; `name` is the row in tables."""

    name: str
    experiment: Experiment
    values: Mapping[str, str]
    """Dotted key to the label of its value."""


def expand(experiment: Experiment) -> list[Trial]:
    """All trials in the order of the space, the last key varying fastest.

    Raises:
        ConfigError: a combination is not a valid recipe, two have one name, or the recipe's
            `reference` names neither a trial nor another row of the table.
    """
    space = experiment.sweep.space
    axes = [[(key, label, value) for label, value in _labelled(space[key])] for key in space]
    base = experiment.model_dump(mode="json")
    trials = []
    for combination in itertools.product(*axes):
        tree: dict[str, Any] = dict(base)
        labels = {key: label for key, label, _ in combination}
        where = "sweep.space: " + ", ".join(f"{k}={v}" for k, v in labels.items())
        for key, _, value in combination:
            try:
                tree = _set(tree, key, value)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
        one = validate(Experiment, tree, where if labels else "the recipe")
        name = " / ".join(labels.values()) or f" {ARROW} ".join(one.stage_names)
        trials.append(Trial(name, one, labels))
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise ConfigError(f"sweep.space: two trials have one name among {names}")
    rows = [*names, *fixed_rows(experiment)]
    if experiment.reference is not None and experiment.reference not in rows:
        raise ConfigError(
            f"reference: no row {experiment.reference!r}{nearest(experiment.reference, rows)}"
        )
    return trials


def fixed_rows(experiment: Experiment) -> list[str]:
    """Names of the rows that need no training, in table order."""
    names = [experiment.candidates.label]
    if experiment.teacher is not None:
        names.append(f"teacher: {experiment.teacher.label}")
    return names


def _labelled(values: list[Any] | Mapping[str, Any]) -> list[tuple[str, Any]]:
    if isinstance(values, Mapping):
        return list(values.items())
    return [(v if isinstance(v, str) else json.dumps(v), v) for v in values]


def _set(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A mapping changes the fields it names and leaves the others, unless it has a `type`."""
    if isinstance(value, Mapping) and "type" not in value:
        for name, inner in value.items():
            tree = _set(tree, f"{key}.{name}", inner)
        return tree
    return override(Experiment, tree, key, value)
