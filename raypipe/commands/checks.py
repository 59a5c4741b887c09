"""Checks of a whole recipe before work: its query sets, its trials, and the sets of its suites.

1. `check_held_out`: no query both trains and chooses or judges, and none both chooses and judges,
   by id and by text.
2. `check_judged`, `differences`: all trials are judged alike; in what the table shows once they may
   differ, and then a note says so.
3. `available`: which test sets of suites can be had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from raypipe.candidates.trained import stages_of
from raypipe.commands.query_sets import NamedQueries, Read, evaluated_queries, training_queries
from raypipe.config import ConfigError, flatten
from raypipe.names import quoted
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.storage.builder import Builder
from raypipe.storage.masking import without_secrets
from raypipe.tables.plain_text import text_hashes

# --- queries that train, that choose, and that judge ----------------------------------------------


def check_held_out(experiments: Iterable[Experiment], read: Read) -> list[str]:
    """Compare the query sets of all experiments; needs no cluster.

    Sets are compared by query id where their collection is the same; ids of different collections
    are numbers mostly, and equal by chance. Texts are compared everywhere, up to case and spaces.
    The sets of suites are not looked at: a set that cannot be had is no error there.

    Returns:
        A sentence per two sets with some equal texts.

    Raises:
        ConfigError: training queries are validation or test queries, or validation queries are test
            queries, or half of a set's texts are in another: the fields, how many, and what to set.
            Or a set has no query.
    """
    problems: list[str] = []
    notes: list[str] = []
    compared: set[tuple[str, str]] = set()
    for experiment in experiments:
        for first, second in _must_be_disjoint(experiment):
            pair = (first.queries.digest, second.queries.digest)
            if pair in compared:
                continue
            compared.add(pair)
            if problem := _overlap(first, second, read):
                problems.append(problem)
            elif shared := _shared_texts(first, second, read):
                (problems if shared.too_many else notes).append(shared.sentence)
    if problems:
        raise ConfigError("\n".join(problems))
    return notes


def _must_be_disjoint(experiment: Experiment) -> Iterator[tuple[NamedQueries, NamedQueries]]:
    """Pairs of query sets; test sets may share their queries, over different first stages."""
    chooses, *judge = evaluated_queries(experiment)
    for trains in training_queries(experiment):
        yield from ((trains, other) for other in (chooses, *judge))
    yield from ((chooses, other) for other in judge)


def _overlap(first: NamedQueries, second: NamedQueries, read: Read) -> str:
    """What is wrong with two sets that share queries, and the remedy; empty if they share none."""
    # both are read in any case: an empty set is an error of its own
    ids, others = (read(named.queries).queries["query_id"] for named in (first, second))
    if first.collection.digest != second.collection.digest:
        return ""
    shared = np.flatnonzero(pc.is_in(ids, value_set=others.combine_chunks()))
    if not len(shared):
        return ""
    field, beyond = first.field, int(shared[-1]) + 1
    remedy = (
        f"set {field}.skip={first.queries.queries.skip + beyond}: by the hash of their ids those "
        "come first"
        if beyond < len(ids)
        else f"name other queries, or part these by `limit` in {second.field} and as large a "
        f"`skip` in {field}"
    )
    return (
        f"{field}: {len(shared)} of its {len(ids)} queries are in {second.field} too, for example "
        f"{ids[int(shared[0])].as_py()!r}; {remedy}"
    )


class SharedTexts(NamedTuple):
    """What is to be said of two sets whose texts are equal in part."""

    sentence: str
    too_many: bool
    """Half of the second set, in the same collection: it measures nothing."""


def _shared_texts(first: NamedQueries, second: NamedQueries, read: Read) -> SharedTexts | None:
    """Queries of the second set that ask what one of the first asks, whatever their ids."""
    tables = [read(named.queries).queries for named in (first, second)]
    hashes, others = (text_hashes(table["text"].to_pylist()) for table in tables)
    shared = np.flatnonzero(np.isin(others, hashes))
    if not len(shared):
        return None
    query_id, text = (tables[1][name][int(shared[0])].as_py() for name in ("query_id", "text"))
    same_place = first.collection.digest == second.collection.digest
    sentence = (
        f"{second.field}: {len(shared)} of its {len(others)} queries have the text of a query in "
        f"{first.field}, for example {query_id!r}: {quoted(text, 60)}; leave them out of one of "
        "the two for values that hold for unseen queries"
    )
    return SharedTexts(sentence, same_place and 2 * len(shared) >= len(others))


# --- what the trials of a sweep have in common ----------------------------------------------------


def check_judged(trials: Sequence[Trial]) -> None:
    """All trials have the same test queries and measures; in a search, whose trials validation
    decides between, the same validation queries too.

    Raises:
        ConfigError: a trial differs from the first one; names the key.
    """
    first = trials[0]
    expected = _judged_by(first.experiment)
    for trial in trials[1:]:
        values = _judged_by(trial.experiment)
        for key in [*expected, *values]:
            if values.get(key) != expected.get(key):
                raise ConfigError(
                    f"{key}: {values.get(key)} in trial {trial.name!r}, {expected.get(key)} in "
                    f"{first.name!r}; all trials of a sweep are judged on the same queries by the "
                    "same measures, so take this key out of sweep.space"
                )


def _judged_by(experiment: Experiment) -> Mapping[str, Any]:
    """What decides how the trial is judged, by dotted key, the recipe's own test set first."""
    evaluation = experiment.evaluation
    values: dict[str, Any] = flatten(experiment.data.test, "data.test")
    values["evaluation.measures"] = ", ".join(sorted(evaluation.measures))
    if experiment.sweep.mode == "search":
        values |= flatten(experiment.data.validation, "data.validation")
        values["evaluation.selection"] = evaluation.selection
        values["evaluation.selection_pool"] = str(evaluation.selection_pool)
    for name, test_set in evaluation.sets.items():
        values |= flatten(test_set.queries, f"evaluation.sets.{name}.queries")
        measures = ", ".join(sorted(experiment.measures(name)))
        values[f"evaluation.sets.{name}.measures"] = measures
    values["evaluation.suites"] = ", ".join(sorted(evaluation.suites))
    return values


def differences(trials: Sequence[Trial]) -> list[str]:
    """Keys in which trials differ though the table's titles and its rows without training are of
    one trial."""
    values = [_shown_once(trial.experiment) for trial in trials]
    return [key for key in values[0] if any(other[key] != values[0][key] for other in values)]


def _shown_once(experiment: Experiment) -> Mapping[str, Any]:
    """What titles and the rows without training depend on, by dotted key."""
    evaluation = experiment.evaluation
    values: dict[str, Any] = {
        "candidates": (experiment.candidates, _made_by(experiment)),
        "teacher": experiment.teacher,
        "truncation": experiment.reading,
        "precision": experiment.precision,
        "data.validation": experiment.data.validation,
        "evaluation.depth": evaluation.depth,
        "evaluation.suite_candidates": evaluation.suite_candidates if evaluation.suites else None,
        "evaluation.rows": evaluation.rows,
    }
    for name, test_set in evaluation.sets.items():
        values[f"evaluation.sets.{name}.candidates"] = test_set.candidates
        values[f"evaluation.sets.{name}.depth"] = test_set.depth
    return values


def _made_by(experiment: Experiment) -> list[str]:
    """The digests of the stages whose models make the first stage's lists."""
    return [experiment.encoder(name)[1].digest for name in stages_of(experiment.candidates)]


# --- test sets of suites --------------------------------------------------------------------------


def available(experiment: Experiment, builder: Builder) -> tuple[tuple[str, ...], dict[str, str]]:
    """(test sets with queries and documents, reason by name of the sets that cannot be had).

    Sets that a recipe names itself must be there: `Experiment.check` has looked. Sets of suites are
    fetched here; one that is gone, asks for an agreement or needs a network that is missing does
    not stop the others.
    """
    missing: dict[str, str] = {}
    for name in experiment.evaluation.suite_sets():
        try:
            experiment.query_set(name).check()
            builder.get(experiment.queries(name))
            builder.get(experiment.collection(name))
        except Exception as error:  # whatever a download or a parser of many formats raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            missing[name] = without_secrets(lines[0])[:200]
    return tuple(name for name in experiment.test_sets() if name not in missing), missing


def missing_notes(experiment: Experiment, missing: Mapping[str, str]) -> list[str]:
    """One sentence per set that could not be had."""
    return [
        f"{name} ({experiment.query_set(name).dataset}) could not be had: {reason}"
        for name, reason in missing.items()
    ]
