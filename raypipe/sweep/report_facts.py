"""What a report says beside its rows: titles of test sets, curves, alarms, links, references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.evaluation.report.contents import SetFacts, StageHistory
from raypipe.evaluation.report.published import published_for
from raypipe.evaluation.results import MAIN, Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import by_row
from raypipe.stages.stage import history
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan
from raypipe.tracking.relay import Relay, series

_DELETED = "its checkpoint was deleted; the values are stored, so nothing was trained again"
_FIGURE = re.compile(r"\d+([.,]\d+)*(e[+-]?\d+)?")


def set_facts(
    experiment: Experiment, counts: Mapping[str, Any], roles: Sequence[str]
) -> tuple[SetFacts, ...]:
    """Test sets as tables name them, with the sizes that a reader needs to judge them.

    Args:
        counts: of what was mined, by `queries/ROLE`, `collection/ROLE` and `groups`.
    """
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
        title += _group_lines(counts)
    values, sources = published_for(
        experiment.published, queries.dataset, queries.split, source.label
    )
    suite = experiment.evaluation.suite_of(role)
    return SetFacts(role, tuple(title), experiment.measures(role), suite, values, sources)


def _group_lines(counts: Mapping[str, Any]) -> list[str]:
    """How many groups were trained on, a line per training set."""
    lines = []
    for key, groups in counts.items():
        name, _, stages = key.partition("/")
        if name == "groups":
            of = f" of {stages}" if stages else ""
            lines.append(
                f"{groups['groups']:,} training groups{of}, {groups['pairs']:,} pairs per epoch"
            )
    return lines


def curves_of(plan: Plan, builder: Builder) -> dict[str, list[StageHistory]]:
    """What the stages of every row reported while they were trained, from standing checkpoints."""
    return {
        row: [
            StageHistory(stage.stage_name, trial.experiment.seed, series(history(checkpoint)))
            for trial in trials
            for stage in plan.chain(trial)
            if (checkpoint := builder.find(stage)) is not None
        ]
        for row, trials in by_row(plan.trials).items()
    }


def alarms_of(plan: Plan, builder: Builder) -> list[str]:
    """The alarms, the filters' shares and the deleted checkpoints of all stages, in sentences.

    A stage that several trials share is asked once. Of an alarm that a stage repeated, because its
    figure had become worse, the last sentence stands. Seeds of a row whose sentences about a stage
    are alike get one sentence: the first seed's, with the other seeds named behind it. Alarms are
    alike if they differ in their figures only; of a filter the figures are what the sentence says,
    so they must be equal.
    """
    sentences: dict[tuple[str, int, str, str], str] = {}  # by row, position, stage and gist
    seeds: dict[tuple[str, int, str, str], list[str]] = {}
    asked: set[str] = set()
    for trial in plan.trials:
        for position, stage in enumerate(plan.chain(trial)):
            if stage.digest in asked:
                continue
            asked.add(stage.digest)
            checkpoint = builder.find(stage)
            counts = {"alarms": [_DELETED]} if checkpoint is None else checkpoint.counts
            by_gist = {_FIGURE.sub("0", alarm): alarm for alarm in counts.get("alarms", ())}
            by_gist |= {share: share for share in _filter_shares(counts)}
            for gist, sentence in by_gist.items():
                key = (trial.row, position, stage.stage_name, gist)
                sentences.setdefault(key, f"{trial.name}, {stage.stage_name}: {sentence}")
                seeds.setdefault(key, []).append(str(trial.experiment.seed))
    return [sentence + _likewise(seeds[key][1:]) for key, sentence in sentences.items()]


def _likewise(seeds: Sequence[str]) -> str:
    """The end of a sentence that holds for further seeds too."""
    if not seeds:
        return ""
    return f" (Likewise seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}.)"


def _filter_shares(counts: Mapping[str, Any]) -> list[str]:
    """How much a stage's filter kept, if the stage has one; what that did to the model only a row
    without the filter can say."""
    if counts.get("filtering/kept_share") is None:
        return []
    kept, work = counts["filtering/kept_share"], counts["filtering/compute"]
    return [
        f"its filter kept {100 * kept:.0f} % of {counts['filtering/queries']:,.0f} groups, at "
        f"{100 * work:.0f} % of the work of training on all"
    ]


def links_of(rows: Sequence[Row], relay: Relay) -> dict[str, list[str]]:
    """Row name to the addresses of its tracked runs, those of failed tries among them."""
    links = relay.links()
    return {row.name: links[row.name] for row in rows if row.name in links}


def references_of(experiment: Experiment, rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The recipe's references that have a row in the table, and a note on each other one.

    A search has none: nothing is tested against anything.
    """
    references = experiment.reference if experiment.sweep.mode == "compare" else ()
    sound = {row.name for row in rows if not row.error}
    return [name for name in references if name in sound], [
        f"reference {name!r} has no row: nothing was tested against it"
        for name in references
        if name not in sound
    ]
