"""Test sets that can be had: those of suites are fetched, or listed with the reason."""

from __future__ import annotations

from raypipe.artifacts import Builder
from raypipe.experiment import Experiment


def available(experiment: Experiment, builder: Builder) -> tuple[tuple[str, ...], dict[str, str]]:
    """(test sets with queries and documents, reason by name of those that cannot be had).

    Sets that a recipe names itself must be there: `Experiment.check` has seen to it. Those of
    suites are fetched here; a data set that is gone, asks for an agreement or needs a network that
    is not there must not stop the others.
    """
    missing: dict[str, str] = {}
    for name in experiment.evaluation.suite_sets():
        try:
            experiment.query_set(name).open().check()
            builder.get(experiment.queries(name))
            builder.get(experiment.collection(name))
        except Exception as error:  # whatever a download or a parser of many formats raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            missing[name] = lines[0][:200]
    return tuple(name for name in experiment.test_sets() if name not in missing), missing


def missing_notes(experiment: Experiment, missing: dict[str, str]) -> list[str]:
    """One sentence per set that could not be had."""
    return [
        f"{name} ({experiment.query_set(name).dataset}) could not be had: {reason}"
        for name, reason in missing.items()
    ]
