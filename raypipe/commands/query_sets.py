"""The query sets of a recipe: the field that names each, and what is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.candidates import Source
from raypipe.datasets.queries import SelectedQueries
from raypipe.datasets.steps import QRELS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.evaluation.results import MAIN
from raypipe.recipe.experiment import Experiment, Role
from raypipe.storage.artifacts import Artifact
from raypipe.storage.builder import Builder


@dataclass(frozen=True)
class NamedQueries:
    """A set of queries, the dotted path of the field that names it, and its first stage."""

    field: str
    queries: Queries
    source: Source = field(compare=False)

    @property
    def collection(self) -> Collection:
        return Collection(self.queries.queries)


Read = Callable[[Queries], SelectedQueries]
"""Gives the content of a query set."""


def contents(builder: Builder, *, make: bool) -> Read:
    """A reader of query sets, each of which is read once.

    Args:
        make: whether a set that does not stand in the store is stored; else it is only read.
    """
    known: dict[str, SelectedQueries] = {}

    def read(step: Queries) -> SelectedQueries:
        if step.digest not in known:
            artifact = builder.get(step) if make else builder.find(step)
            known[step.digest] = step.select() if artifact is None else _stored(artifact)
        return known[step.digest]

    return read


def _stored(artifact: Artifact) -> SelectedQueries:
    folder = artifact.local()
    queries = pa.ipc.open_file(pa.memory_map(str(folder / QUERIES_FILE))).read_all()
    return SelectedQueries(queries, pq.read_table(folder / QRELS_FILE), dict(artifact.counts))


def training_queries(experiment: Experiment) -> list[NamedQueries]:
    """The distinct queries that stages train on."""
    distinct: dict[tuple[str, str], NamedQueries] = {}
    for stage in experiment.stage_names:
        own = "groups" if experiment.stages[stage].groups is None else f"stages.{stage}.groups"
        data = experiment.training(stage)
        path = "data.train" if data.training_set.queries is None else f"{own}.queries"
        further = {f"{own}.further.{name}.queries": other for name, other in data.further.items()}
        for field_path, member in {path: data, **further}.items():
            queries = member.queries()
            named = NamedQueries(field_path, queries, member.source)
            distinct.setdefault((field_path, queries.digest), named)
    return list(distinct.values())


def evaluated_queries(
    experiment: Experiment, roles: Sequence[Role] | None = None
) -> list[NamedQueries]:
    """Validation queries, then those of the test sets.

    Args:
        roles: the test sets; None takes all that the recipe itself names.
    """
    roles = [MAIN, *experiment.evaluation.sets] if roles is None else roles
    return [
        NamedQueries(_field(experiment, role), experiment.queries(role), experiment.source(role))
        for role in ("validation", *roles)
    ]


def _field(experiment: Experiment, role: Role) -> str:
    if role in ("validation", MAIN):
        return f"data.{role}"
    own = role in experiment.evaluation.sets
    return f"evaluation.sets.{role}.queries" if own else f"evaluation.suites, {role}"


def all_queries(
    experiments: Sequence[Experiment], roles: Sequence[Role] | None = None
) -> list[NamedQueries]:
    """The distinct sets that the trials train on, then those that the first one is judged on."""
    trained = [named for experiment in experiments for named in training_queries(experiment)]
    named_sets = [*trained, *evaluated_queries(experiments[0], roles)]
    return list({named.queries.digest: named for named in reversed(named_sets)}.values())[::-1]
