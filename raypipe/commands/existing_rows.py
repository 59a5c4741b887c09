"""Looks, before work, at the runs and models that a recipe shows as rows."""

from __future__ import annotations

from collections.abc import Iterator

from raypipe.commands.query_sets import Read, evaluated_queries, training_queries
from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.recipe.experiment import Experiment
from raypipe.runs.existing import queries_in
from raypipe.runs.existing_model import ModelRow


def look_at_run_rows(experiment: Experiment, read: Read) -> Iterator[str]:
    """How many queries of its test set each file has, of the sets that the recipe itself names;
    how each model reads.

    Raises:
        ConfigError: a file has none, and whose queries it has if a set of the recipe's has them.
    """
    known = evaluated_queries(experiment)
    roles = ("validation", *(role for role in experiment.test_sets()))
    by_role = dict(zip(roles, known, strict=False))
    for name, row in experiment.evaluation.rows.items():
        if isinstance(row, ModelRow):
            yield f"evaluation.rows.{name}: {row.line(experiment.tracking_uri())}"
            continue
        for role, path in row.paths().items():
            if role not in by_role:  # of a suite: fetched later
                continue
            named = by_role[role]
            ids, found = read(named.queries).queries["query_id"].to_pylist(), queries_in(path)
            shared = sum(query_id in found for query_id in ids)
            line = f"evaluation.rows.{name}: {path} has {shared:,} of {len(ids):,} queries of "
            line += named.field
            if not shared:
                raise ConfigError(f"{line}{_whose(experiment, read, found, ids)}")
            yield line


def _whose(experiment: Experiment, read: Read, found: set[str], ids: list[str]) -> str:
    """The end of the error: another set with these queries, or how the ids differ."""
    for named in (*training_queries(experiment), *evaluated_queries(experiment)):
        others = read(named.queries).queries["query_id"].to_pylist()
        if any(query_id in found for query_id in others):
            return f", it has those of {named.field}; name a run of the test queries"
    theirs = quoted(min(found)) if found else "no line"
    return (
        f": it has {theirs}, the set {quoted(ids[0])}; the file's query ids must be those of the "
        "data set"
    )
