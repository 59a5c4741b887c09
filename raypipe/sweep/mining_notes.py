"""Sentences about what mining lost or kept out, for the console and below the report's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.candidates import Source
from raypipe.groups.training_set import TrainingData
from raypipe.recipe.experiment import Experiment, Role
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder

_NO_GROUP = {
    "queries_without_positive": "no positive with text",
    "queries_with_no_positive_retrieved": "no positive retrieved",
    "queries_without_positive_score": "no teacher score of a positive",
    "queries_without_negatives": "no negative left",
    "queries_with_one_document": "one document only",
}
"""Why a query has no group, by the counter of negatives that says so."""
_KEPT_OUT = {
    "removed_as_copies_of_relevant_documents": "copies of relevant documents",
    "removed_as_the_query_itself": "documents that are the query itself",
}

_MANY = 0.1
"""Share of queries without a candidate from which their script may be the reason."""


def mining_notes(
    experiment: Experiment,
    roles: Sequence[Role],
    sets: Mapping[str, TrainingData],
    builder: Builder,
) -> list[str]:
    """Of standing artifacts alone.

    Args:
        roles: the query sets that are evaluated.
        sets: the training sets by the stages that use them.
    """
    notes: list[str] = []
    for role in roles:
        step, asked = experiment.first_stage(role), _counts(experiment.queries(role), builder)
        source = experiment.source(role)
        notes += _unanswered(f"{role} queries", source, _counts(step, builder), asked)
    for stages, data in sets.items():
        notes += _of_training(stages, data, builder)
    return notes


def _of_training(stages: str, data: TrainingData, builder: Builder) -> Iterator[str]:
    asked = _counts(data.queries(), builder)
    if data.training_set.triples is None:
        what = f"training queries of {stages}"
        yield from _unanswered(what, data.source, _counts(data.candidates(), builder), asked)
    negatives = _counts(data.negatives(), builder)
    rows, grouped = negatives.get("rows", 0), negatives.get("queries", 0)
    if grouped < rows:
        yield (
            f"groups of {stages}: {rows - grouped:,} of {rows:,} training queries form none "
            f"({_reasons(negatives, _NO_GROUP)})"
        )
    if kept_out := _reasons(negatives, _KEPT_OUT):
        yield f"groups of {stages}: kept out of the negatives: {kept_out}"
    used, judged = negatives.get("positives", 0), negatives.get("judged_positives", 0)
    if used < judged and data.training_set.positives != "any":
        yield (
            f"groups of {stages} use {used:,} of {judged:,} judged positives; max_positives or "
            "groups_per_query=each_positive would use more"
        )
    groups = _counts(data.groups(), builder)
    if data.teacher is not None and (lost := groups.get("groups_without_teacher")):
        rows = groups["rows"]
        yield (
            f"groups of {stages}: {lost:,} of {rows:,} are lost ({lost / rows:.0%}), since the "
            f"teacher ({data.teacher.title}) has no value for a positive and a negative of theirs; "
            "take negatives from the lists that it knows"
        )


def _unanswered(
    what: str, source: Source, counts: Mapping[str, Any], asked: Mapping[str, Any]
) -> Iterator[str]:
    """Of a first stage: the queries for which it has no document."""
    if empty := counts.get("queries_without_candidates"):
        every = asked.get("queries", empty)
        by_words = source.type == "bm25" and source.analyser != "ngrams"
        remedy = "; analyser=ngrams reads scripts without spaces" if by_words else ""
        hint = remedy if empty >= _MANY * every else ""
        yield f"{source.label} has no document for {empty:,} of {every:,} {what}{hint}"


def _reasons(counts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return ", ".join(f"{text} {counts[key]:,}" for key, text in words.items() if counts.get(key))


def _counts(step: Step, builder: Builder) -> Mapping[str, Any]:
    artifact = builder.find(step)
    return {} if artifact is None else artifact.counts
