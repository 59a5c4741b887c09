"""Queries that train, that choose and that judge are different ones: checked before work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from raypipe.config import ConfigError, flatten
from raypipe.datasets.steps import QUERIES_FILE, Collection, Queries
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable

Named = tuple[str, Queries]
"""The dotted path of the field that names the queries, and they."""


def check_held_out(experiments: Iterable[Experiment], builder: Builder) -> None:
    """Make the query sets of all experiments, and compare them; needs no cluster.

    Sets are compared by query id where their collection is the same; the ids of different
    collections (numbers, mostly) can be equal by chance. The sets of suites are not looked at:
    those that are not to be had are no error.

    Raises:
        ConfigError: training queries are validation or test queries, or validation queries are test
            queries: the fields, how many, and what to set. Or a set has no query.
    """
    found: list[str] = []
    compared: set[tuple[str, str]] = set()
    for experiment in experiments:
        for ours, theirs in _pairs(experiment):
            pair = (ours[1].digest, theirs[1].digest)
            if pair not in compared and (problem := _shared(ours, theirs, builder)):
                found.append(problem)
            compared.add(pair)
    if found:
        raise ConfigError("\n".join(found))


def _pairs(experiment: Experiment) -> Iterator[tuple[Named, Named]]:
    """What must be disjoint; test sets may share their queries, over different first stages."""
    chooses = ("data.validation", experiment.queries("validation"))
    judge = [("data.test", experiment.queries("test"))]
    for name in experiment.evaluation.sets:
        judge.append((f"evaluation.sets.{name}.queries", experiment.queries(name)))
    for one in _training(experiment):
        yield from ((one, other) for other in (chooses, *judge))
    yield from ((chooses, other) for other in judge)


def _training(experiment: Experiment) -> list[Named]:
    """The distinct queries that stages train on."""
    found: dict[tuple[str, str], Queries] = {}
    for stage in experiment.stage_names:
        own = "groups" if experiment.stages[stage].groups is None else f"stages.{stage}.groups"
        data = experiment.training(stage)
        field = "data.train" if data.training_set.queries is None else f"{own}.queries"
        queries = data.queries()
        found.setdefault((field, queries.digest), queries)
    return [(field, queries) for (field, _), queries in found.items()]


def _shared(ours: Named, theirs: Named, builder: Builder) -> str:
    """What is wrong with two sets of queries, or nothing."""
    made = [builder.get(queries) for _, queries in (ours, theirs)]  # an empty split is found too
    if Collection(ours[1].queries).digest != Collection(theirs[1].queries).digest:
        return ""
    queries, others = (TextTable(artifact.local() / QUERIES_FILE) for artifact in made)
    ids = queries.ids()
    shared = np.flatnonzero(others.rows_of(ids) >= 0)
    if not len(shared):
        return ""
    field, beyond = ours[0], int(shared[-1]) + 1
    remedy = (
        f"set {field}.skip={ours[1].queries.skip + beyond}: by the hash of their ids those come "
        "first"
        if beyond < len(ids)
        else f"name other queries, or part these by `limit` in {theirs[0]} and as large a `skip` "
        f"in {field}"
    )
    return (
        f"{field}: {len(shared)} of its {len(ids)} queries are in {theirs[0]} too, for example "
        f"{ids[int(shared[0])].as_py()!r}; {remedy}"
    )


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
