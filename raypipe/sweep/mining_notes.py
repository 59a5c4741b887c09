"""Sentences about what mining lost or kept out, for the console and below the report's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raypipe.candidates import Source
from raypipe.groups.form import Groups
from raypipe.groups.joined import groups_by_set
from raypipe.groups.judge import PAST, Relabelled
from raypipe.groups.judged_page import PAGE
from raypipe.groups.training_set import TrainingData
from raypipe.recipe.experiment import Experiment, Role
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.synthesis.notes import synthetic_notes
from raypipe.train.settings import too_short

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
    asked_of = {f"{role} queries": experiment.queries(role) for role in roles}
    asked_of |= {f"training queries of {stages}": data.queries() for stages, data in sets.items()}
    synthetic = [(w, step) for w, step in asked_of.items() if isinstance(step, SyntheticQueries)]
    notes = list(synthetic_notes(synthetic, lambda step: counts_in(step, builder)))
    for role in roles:
        step, asked = experiment.first_stage(role), counts_in(experiment.queries(role), builder)
        source = experiment.source(role)
        notes += _unanswered(f"{role} queries", source, counts_in(step, builder), asked)
    for stages, data in sets.items():
        notes += _of_training(stages, data, builder)
    for name in experiment.stage_names:
        if groups := counts_in(experiment.training(name).joined_groups(), builder).get("groups"):
            line = too_short(name, experiment.stages[name], groups)
            notes += [] if line is None else [line]
    return notes


def each_positive_line(stages: str, settled: Groups, positives: int, queries: int) -> Iterator[str]:
    """What `auto` chose, where it is not the usual."""
    if settled.groups_per_query == "each_positive":
        yield (
            f"groups of {stages}: small, so each of {positives:,} positives of {queries:,} queries "
            "has one; groups_per_query=one makes one per query"
        )


def _of_training(stages: str, data: TrainingData, builder: Builder) -> Iterator[str]:
    asked = counts_in(data.queries(), builder)
    if data.training_set.triples is None:
        what = f"training queries of {stages}"
        yield from _unanswered(what, data.source, counts_in(data.candidates(), builder), asked)
    negatives = counts_in(data.sampled(), builder)
    if negatives.get("auto_chose_each_positive"):
        settled = data.training_set.plain().replace(groups_per_query="each_positive")
        positives, queries = negatives.get("groups", 0), negatives.get("queries", 0)
        yield from each_positive_line(stages, settled, positives, queries)
    rows, grouped = negatives.get("rows", 0), negatives.get("queries", 0)
    if grouped < rows:
        yield (
            f"groups of {stages}: {rows - grouped:,} of {rows:,} training queries form none "
            f"({_reasons(negatives, _NO_GROUP)})"
        )
    if kept_out := _reasons(negatives, _KEPT_OUT):
        yield f"groups of {stages}: kept out of the negatives: {kept_out}"
    yield from _judged(stages, data.negatives(), builder)
    used, judged = negatives.get("positives", 0), negatives.get("judged_positives", 0)
    if used < judged and data.training_set.positives != "any":
        yield (
            f"groups of {stages} use {used:,} of {judged:,} judged positives; max_positives or "
            "groups_per_query=each_positive would use more"
        )
    groups = counts_in(data.groups(), builder)
    if data.teacher is not None and (lost := groups.get("groups_without_teacher")):
        rows = groups["rows"]
        yield (
            f"groups of {stages}: {lost:,} of {rows:,} are lost ({lost / rows:.0%}), since the "
            f"teacher ({data.teacher.title}) has no value for a positive and a negative of theirs; "
            "take negatives from the lists that it knows"
        )
    if data.further:
        yield from _joined(stages, counts_in(data.joined_groups(), builder))


def _judged(stages: str, step: Step, builder: Builder) -> Iterator[str]:
    """What the models of a judge answered, what was done, and where the page is."""
    artifact = builder.find(step)
    if artifact is None or not isinstance(step, Relabelled):
        return
    counts = artifact.counts
    asked = {"_first": step.first, "": step.verdicts}
    answers = [
        f"{verdicts.engine.label} calls {counts.get(f'relevant{suffix}', 0):,} of "
        f"{counts.get(f'asked{suffix}', 0):,} relevant"
        + (f", {lost:,} without an answer" if (lost := counts.get(f"unanswered{suffix}")) else "")
        for suffix, verdicts in asked.items()
        if verdicts is not None
    ]
    past = PAST[step.relabel]
    yield (
        f"negatives of {stages}, judged: {'; '.join(answers)}; "
        f"{counts.get(f'negatives_{past}', 0):,} {past}; look at {artifact.uri}: {PAGE}"
    )
    if lost := counts.get("groups_without_negatives"):
        yield f"groups of {stages}: {lost:,} are lost, since the judge left them no negative"


def _joined(stages: str, counts: Mapping[str, Any]) -> Iterator[str]:
    """How many groups each set gave, and of how many there are, where that is not all once."""
    parts = []
    for name, number in groups_by_set(counts).items():
        repeated = counts.get(f"groups_repeated_of_{name}", 0)
        there = number + counts.get(f"groups_left_out_of_{name}", 0) - repeated
        behind = "" if number == there else f" from {there:,}{' repeated' if repeated else ''}"
        parts.append(f"{name} {number:,}{behind} ({number / counts['groups']:.0%})")
    if parts:
        yield f"groups of {stages} with further sets: {', '.join(parts)}"


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


def counts_in(step: Step, builder: Builder) -> Mapping[str, Any]:
    """The counters of a standing artifact; none of one that is not there."""
    artifact = builder.find(step)
    return {} if artifact is None else artifact.counts
