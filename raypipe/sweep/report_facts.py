"""The finished comparison: printed, and handed to the tracked run as text, page and data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.evaluation.report.contents import SetFacts, StageHistory
from raypipe.evaluation.report.published import published_for
from raypipe.evaluation.results import Row
from raypipe.recipe.evaluation_sets import MAIN
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import Trial
from raypipe.stages.stage import history
from raypipe.storage.builder import Builder
from raypipe.tracking.relay import Relay, series

_GONE = "its checkpoint was deleted; the values are stored, so nothing was trained again"
_FIGURE = re.compile(r"\d+([.,]\d+)*(e[+-]?\d+)?")


def set_facts(
    experiment: Experiment, counts: Mapping[str, Any], roles: Sequence[str]
) -> tuple[SetFacts, ...]:
    """Test sets as tables name them, with the sizes that a reader needs to judge them."""
    return tuple(_set_facts(experiment, counts, role) for role in roles)


def _set_facts(experiment: Experiment, counts: Mapping[str, Any], role: str) -> SetFacts:
    queries, source = experiment.query_set(role), experiment.source(role)
    split = f" {queries.split}" if queries.split else ""
    name = experiment.name if role == MAIN else f"{experiment.name}, {role}"
    asked, docs = counts[f"queries/{role}"]["queries"], counts[f"collection/{role}"]["docs"]
    title = [
        f"{name}: {queries.dataset}{split}",
        f"{docs:,} documents; {asked:,} test queries",
        f"first {experiment.depth(role)} of {source.label} re-ranked; "
        f"{experiment.truncation.reads}, {experiment.precision}",
    ]
    if role == MAIN:
        title.append(f"{counts['queries/validation']['queries']:,} validation queries")
        title += _groups(counts)
    values, sources = published_for(
        experiment.published, queries.dataset, queries.split, source.label
    )
    suite = experiment.evaluation.suite_of(role)
    return SetFacts(role, tuple(title), experiment.measures(role), suite, values, sources)


def _groups(counts: Mapping[str, Any]) -> list[str]:
    said = []
    for key, groups in counts.items():
        name, _, stages = key.partition("/")
        if name == "groups":
            of = f" of {stages}" if stages else ""
            said.append(
                f"{groups['groups']:,} training groups{of}, {groups['pairs']:,} pairs per epoch"
            )
    return said


def curves_of(
    rows: Mapping[str, Sequence[Trial]], builder: Builder
) -> dict[str, list[StageHistory]]:
    """What every stage of these rows reported, from the checkpoints that stand."""
    return {
        name: [
            StageHistory(stage.stage_name, trial.experiment.seed, series(history(checkpoint)))
            for trial in trials
            for stage in trial.experiment.trained().chain()
            if (checkpoint := builder.find(stage)) is not None
        ]
        for name, trials in rows.items()
    }


def alarms_of(trials: Sequence[Trial], builder: Builder) -> list[str]:
    """What alarms and filters said of the trials' stages, each stage once; which are gone.

    An alarm that several seeds of a row were told, whatever its figures, stands once, with the
    figures of the first and the names of the others; of filters what has the same figures.
    """
    said: dict[tuple[str, int, str, str], tuple[str, list[str]]] = {}
    heard: set[str] = set()
    for trial in trials:
        for place, stage in enumerate(trial.experiment.trained().chain()):
            if stage.digest in heard:
                continue
            heard.add(stage.digest)
            checkpoint = builder.find(stage)
            counts = {"alarms": [_GONE]} if checkpoint is None else checkpoint.counts
            alike = {one: _FIGURE.sub("0", one) for one in counts.get("alarms", ())}
            alike |= {one: one for one in _filtered(counts)}  # there the figures are what counts
            for sentence, gist in alike.items():
                kind = (trial.row, place, stage.stage_name, gist)
                whole = f"{trial.name}, {stage.stage_name}: {sentence}"
                said.setdefault(kind, (whole, []))[1].append(str(trial.experiment.seed))
    return [
        f"{first} (Likewise seed{'s' * (len(seeds) > 2)} {', '.join(seeds[1:])}.)"
        if seeds[1:]
        else first
        for first, seeds in said.values()
    ]


def _filtered(counts: Mapping[str, Any]) -> list[str]:
    """What a stage's filter left out; the row without the filter says what it did."""
    if counts.get("filtering/kept_share") is None:
        return []
    kept, work = counts["filtering/kept_share"], counts["filtering/compute"]
    return [
        f"its filter kept {100 * kept:.0f} % of {counts['filtering/queries']:,.0f} groups, at "
        f"{100 * work:.0f} % of the work of training on all"
    ]


def links_of(rows: Sequence[Row], relay: Relay) -> dict[str, list[str]]:
    """Addresses of the tracked runs, a try that failed among them."""
    links = relay.links()
    return {row.name: links[row.name] for row in rows if row.name in links}


def reference_of(experiment: Experiment, rows: Sequence[Row]) -> tuple[str | None, list[str]]:
    """The reference if its row is there; a note if it is not."""
    named = experiment.reference
    if named is None or any(row.name == named and not row.error for row in rows):
        return named, []
    return None, [f"reference {named!r} has no row: nothing was tested against it"]
