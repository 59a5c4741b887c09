"""Queries that train, that choose and that judge are different ones: checked before work."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from raypipe.artifacts import Builder
from raypipe.config import ConfigError
from raypipe.data.collection import index_of, read_docs
from raypipe.data.sets import QUERIES_FILE, Collection, Queries
from raypipe.experiment import Experiment


def check_held_out(experiments: Iterable[Experiment], builder: Builder) -> None:
    """Make the query sets of all experiments, and compare them; needs no cluster.

    Sets are compared by query id where their collection is the same; the ids of different
    collections (numbers, mostly) can be equal by chance.

    Raises:
        ConfigError: training queries are validation or test queries, or validation queries are test
            queries: the fields, how many, and what to set.
    """
    found: list[str] = []
    compared: set[tuple[str, str]] = set()
    for experiment in experiments:
        held_out = [(f"data.{r}", experiment.queries(r)) for r in ("validation", "test")]
        pairs = [(one, other) for one in training_queries(experiment) for other in held_out]
        for (field, asked), (held, kept) in [*pairs, *combinations(held_out, 2)]:
            if (asked.digest, kept.digest) in compared:
                continue
            compared.add((asked.digest, kept.digest))
            if problem := _shared(field, asked, held, kept, builder):
                found.append(problem)
    if found:
        raise ConfigError("\n".join(found))


def training_queries(experiment: Experiment) -> list[tuple[str, Queries]]:
    """The distinct queries that stages train on, with the dotted path of the field that names
    them."""
    found: dict[tuple[str, str], Queries] = {}
    for stage in experiment.stage_names:
        own = "groups" if experiment.stages[stage].groups is None else f"stages.{stage}.groups"
        data = experiment.training(stage)
        field = "data.train" if data.training_set.queries is None else f"{own}.queries"
        queries = data.queries()
        found.setdefault((field, queries.digest), queries)
    return [(field, queries) for (field, _), queries in found.items()]


def _shared(field: str, asked: Queries, held: str, kept: Queries, builder: Builder) -> str:
    """What is wrong with two sets of queries, or nothing."""
    made = [builder.get(one) for one in (asked, kept)]  # an empty split is found now too
    if Collection(asked.queries).digest != Collection(kept.queries).digest:
        return ""
    ours, theirs = (read_docs(one.local() / QUERIES_FILE).ids() for one in made)
    shared = np.flatnonzero(index_of(ours, theirs) >= 0)
    if not len(shared):
        return ""
    beyond = int(shared[-1]) + 1
    remedy = (
        f"set {field}.skip={asked.queries.skip + beyond}: by the hash of their ids those come first"
        if beyond < len(ours)
        else f"name other queries, or part these by `limit` in {held} and as large a `skip` in "
        f"{field}"
    )
    return (
        f"{field}: {len(shared)} of its {len(ours)} queries are in {held} too, for example "
        f"{ours[int(shared[0])].as_py()!r}; {remedy}"
    )
