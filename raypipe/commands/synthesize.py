"""Write a recipe's synthetic queries: passages are drawn, queries written, kept or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from raypipe.commands.mine import made, plan_lines, start_cluster
from raypipe.commands.query_sets import all_queries
from raypipe.config import ConfigError
from raypipe.datasets.steps import QUERIES_FILE
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import expand
from raypipe.storage.artifacts import Artifact
from raypipe.storage.builder import Builder
from raypipe.sweep.mining_notes import counts_in
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.synthesis.notes import synthetic_notes

SHOWN = 5
"""Queries of each set that are said, for people to look at."""


@dataclass(frozen=True)
class Synthesized:
    """What stands after the job."""

    artifacts: Mapping[str, Artifact]
    """By the field that names the queries, then by the way to what they were made from."""
    notes: list[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    """Empty: there are no trials that could fail alone."""

    def summary(self) -> dict[str, Any]:
        """The content of `--summary FILE`."""
        return {
            "artifacts": {name: artifact.uri for name, artifact in self.artifacts.items()},
            "counts": {name: artifact.counts for name, artifact in self.artifacts.items()},
            "notes": self.notes,
        }


def sets_of(experiment: Experiment) -> dict[str, SyntheticQueries]:
    """The recipe's distinct synthetic sets by the field that names each; where trials have several
    in one field, further ones with their digest.

    Raises:
        ConfigError: something outside the recipe is missing, or it has no such set.
    """
    trials = [trial.experiment for trial in expand(experiment)]
    for trial in trials:
        trial.check(model=False)
    named: dict[str, SyntheticQueries] = {}
    for each in all_queries(trials):
        if isinstance(each.queries, SyntheticQueries):
            known = each.field in named
            named[f"{each.field} {each.queries.digest}" if known else each.field] = each.queries
    if not named:
        raise ConfigError(
            "the recipe has no synthetic queries; set data.train={type: synthetic, dataset: ...}"
        )
    return named


def dry_run(experiment: Experiment, say: Say = print) -> None:
    """Check everything, say what would be made."""
    for line in plan_lines(sets_of(experiment), Builder(experiment.store())):
        say(line)


def run(experiment: Experiment, say: Say = print) -> Synthesized:
    """Write the queries of all sets, and say what was kept and dropped.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable; or no query is
            left of a set.
    """
    sets, builder = sets_of(experiment), Builder(experiment.store(), announce=say)
    start_cluster(experiment, builder, say)
    artifacts, made_from = made(sets, builder, say)
    notes = list(synthetic_notes(sets.items(), lambda step: counts_in(step, builder)))
    for note in notes:
        say(note)
    for name, artifact in artifacts.items():
        for line in _some(name, artifact):
            say(line)
    return Synthesized({**artifacts, **made_from}, notes)


def _some(name: str, artifact: Artifact) -> list[str]:
    """The first queries of a set, by the hash of their ids."""
    path = artifact.local() / QUERIES_FILE
    rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all().slice(0, SHOWN).to_pylist()
    return [f"{name}, such as {row['query_id']}: {row['text']}" for row in rows]
