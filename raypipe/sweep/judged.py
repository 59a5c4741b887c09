"""Trials of one sweep are judged alike, which is checked before work; else their rows say nothing.

What may differ, and is yet shown once for all rows, is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.config import ConfigError, flatten
from raypipe.experiment import Experiment
from raypipe.sweep.space import Trial


def check_judged(trials: Sequence[Trial]) -> None:
    """Every trial has the first one's test queries and measures; in a search, which validation
    decides, its validation queries too.

    Raises:
        ConfigError: one has not; names the key that differs.
    """
    first = trials[0]
    expected = _judged(first.experiment)
    for trial in trials[1:]:
        found = _judged(trial.experiment)
        for key in [*expected, *found]:
            if found.get(key) != expected.get(key):
                raise ConfigError(
                    f"{key}: {found.get(key)} in trial {trial.name!r}, {expected.get(key)} in "
                    f"{first.name!r}; all trials of a sweep are judged on the same queries by the "
                    "same measures, so take this key out of sweep.space"
                )


def _judged(one: Experiment) -> Mapping[str, Any]:
    """By dotted key, the recipe's own test set first."""
    chosen = one.evaluation
    found: dict[str, Any] = flatten(one.data.test, "data.test")
    found["evaluation.measures"] = ", ".join(sorted(chosen.measures))
    if one.sweep.mode == "search":
        found |= flatten(one.data.validation, "data.validation")
        found["evaluation.selection"] = chosen.selection
    for name, test_set in chosen.sets.items():
        found |= flatten(test_set.queries, f"evaluation.sets.{name}.queries")
        found[f"evaluation.sets.{name}.measures"] = ", ".join(sorted(one.measures(name)))
    found["evaluation.suites"] = ", ".join(sorted(chosen.suites))
    return found


def differences(trials: Sequence[Trial]) -> list[str]:
    """Keys in which trials differ though titles and the rows without training are one trial's."""
    shown = [_shown(trial.experiment) for trial in trials]
    return [key for key in shown[0] if any(one[key] != shown[0][key] for one in shown)]


def _shown(one: Experiment) -> Mapping[str, Any]:
    chosen = one.evaluation
    found: dict[str, Any] = {
        "candidates": one.candidates,
        "teacher": one.teacher,
        "truncation": one.truncation,
        "precision": one.precision,
        "data.validation": one.data.validation,
        "evaluation.depth": chosen.depth,
        "evaluation.suite_candidates": chosen.suite_candidates if chosen.suites else None,
    }
    for name, test_set in chosen.sets.items():
        found[f"evaluation.sets.{name}.candidates"] = test_set.candidates
        found[f"evaluation.sets.{name}.depth"] = test_set.depth
    return found
