"""What a report says beside its rows: titles of test sets, curves, alarms, links, references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from raypipe.evaluation.report.contents import SetFacts, StageHistory
from raypipe.evaluation.report.published import published_for
from raypipe.evaluation.results import MAIN, Row
from raypipe.evaluation.slices import Slices
from raypipe.groups.joined import groups_by_set
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import by_row
from raypipe.stages.stage import history, label_of
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


def judged_on(sets: Sequence[SetFacts], rows: Sequence[Row]) -> tuple[SetFacts, ...]:
    """The test sets, with the names of their rows where not every row was judged."""

    def of(test_set: SetFacts) -> SetFacts:
        here = tuple(row.name for row in rows if row.error or test_set.name in row.results)
        return test_set if len(here) == len(rows) else replace(test_set, rows=here)

    return tuple(map(of, sets))


def with_slices(
    sets: Sequence[SetFacts], rows: Sequence[Row], slices: Mapping[str, Slices]
) -> tuple[SetFacts, ...]:
    """The test sets, with the groups of their judged queries by slice; a slice that has none of a
    set's queries is left out there."""
    group_of = {name: chosen.group_of() for name, chosen in slices.items()}

    def of(test_set: SetFacts) -> SetFacts:
        judged = next(
            (r.results[test_set.name][0] for r in rows if r.results.get(test_set.name)), {}
        )
        asked = judged.get(test_set.measures[0], {})
        own = {
            name: {query_id: groups[query_id] for query_id in asked if query_id in groups}
            for name, groups in group_of.items()
        }
        return replace(test_set, slices={name: groups for name, groups in own.items() if groups})

    return tuple(map(of, sets))


def without_queries(sets: Sequence[SetFacts], slices: Mapping[str, Slices]) -> list[str]:
    """A sentence on every slice that has no query of any test set."""
    return [
        f"evaluation.slices.{name}: no test query is in {chosen.path}, so it has no table; correct "
        "its query_id"
        for name, chosen in slices.items()
        if not any(name in test_set.slices for test_set in sets)
    ]


def _set_facts(experiment: Experiment, counts: Mapping[str, Any], role: str) -> SetFacts:
    queries, source = experiment.query_set(role), experiment.source(role)
    name = experiment.name if role == MAIN else f"{experiment.name}, {role}"
    asked, docs = counts[f"queries/{role}"]["queries"], counts[f"collection/{role}"]["docs"]
    title = [
        f"{name}: {queries.title}",
        f"{docs:,} documents; {asked:,} test queries",
        f"first {experiment.depth(role)} of {source.label} re-ranked; "
        f"{experiment.reading.reads}, {experiment.precision}",
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
    """How many groups were trained on, a line per training set; of several sets joined, those of
    each."""
    joined = {
        key.partition("/")[2]: groups_by_set(groups)
        for key, groups in counts.items()
        if key.startswith("joined_groups")
    }
    members = {
        ", ".join(f"{stage} ({name})" for stage in stages.split(", "))
        for stages, sizes in joined.items()
        for name in sizes
    }
    lines = []
    for key, groups in counts.items():
        name, _, stages = key.partition("/")
        alone = name == "groups" and stages not in joined and stages not in members
        if alone or name == "joined_groups":
            of = f" of {stages}" if stages else ""
            sizes = ", ".join(f"{n:,} of {member}" for member, n in groups_by_set(groups).items())
            lines.append(
                f"{groups['groups']:,} training groups{of}{f' ({sizes})' if sizes else ''}, "
                f"{groups['pairs']:,} pairs per epoch"
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


def alarms_of(plan: Plan, builder: Builder, heard: Set[str] = frozenset()) -> list[str]:
    """The alarms, the filters' shares and the deleted checkpoints of all stages, in sentences.

    A stage that several trials share is asked once. Of an alarm that a stage repeated, because its
    figure had become worse, the last sentence stands. Seeds of a row whose sentences about a stage
    are alike get one sentence: the first seed's, with the other seeds named behind it. Alarms are
    alike if they differ in their figures only; of a filter the figures are what the sentence says,
    so they must be equal.

    Args:
        heard: digests of stages that are left out, because their workers said all this.
    """
    sentences: dict[tuple[str, int, str, str], str] = {}  # by row, position, stage and gist
    seeds: dict[tuple[str, int, str, str], list[str]] = {}
    asked: set[str] = set()
    for trial in plan.trials:
        for position, stage in enumerate(plan.chain(trial)):
            if stage.digest in asked or stage.digest in heard:
                continue
            asked.add(stage.digest)
            checkpoint = builder.find(stage)
            counts = {"alarms": [_DELETED]} if checkpoint is None else checkpoint.counts
            by_gist = {_FIGURE.sub("0", alarm): alarm for alarm in counts.get("alarms", ())}
            by_gist |= {share: share for share in _filter_shares(counts)}
            for gist, sentence in by_gist.items():
                key = (trial.row, position, stage.stage_name, gist)
                sentences.setdefault(key, f"{label_of(trial.name, stage.stage_name)}: {sentence}")
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
