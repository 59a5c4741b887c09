"""Queries that train, that choose and that judge are different ones: checked before work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from raypipe.artifacts import Builder
from raypipe.config import ConfigError
from raypipe.data.collection import read_docs
from raypipe.data.sets import QUERIES_FILE, Collection, Queries
from raypipe.experiment import Experiment

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
    queries, others = (read_docs(artifact.local() / QUERIES_FILE) for artifact in made)
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
