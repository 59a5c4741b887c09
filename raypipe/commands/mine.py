"""Mining: candidates, negatives, teacher scores and groups, as a job or as the start of one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raypipe.cluster import connect, expect_ray, may_start_late
from raypipe.commands.checks import check_held_out
from raypipe.commands.preview import preview
from raypipe.commands.query_facts import query_facts
from raypipe.commands.query_sets import all_queries, contents
from raypipe.commands.teacher_quality import TeacherQuality, teacher_quality
from raypipe.commands.worker_lines import show_own_lines
from raypipe.progress import Say, any_character
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import expand
from raypipe.resources import Context, RayOnDemand, Resources
from raypipe.storage.address import addresses
from raypipe.storage.artifacts import Artifact, Step
from raypipe.storage.builder import Builder
from raypipe.storage.claims import Claims
from raypipe.storage.keys import share
from raypipe.sweep.counters import behind, behind_lines, counts_line, said_once, steps_behind
from raypipe.sweep.encoders import trained_experiments
from raypipe.sweep.mining_notes import mining_notes
from raypipe.sweep.plan import Plan, training_sets
from raypipe.synthesis.known_items import synthetic_sets
from raypipe.train.group_reader import GroupReader

EVALUATED: tuple[Role, ...] = ("validation", "test")
_WITHOUT_RAY = {
    *("collection", "queries", "text_hashes", "bm25_terms", "bm25_index", "candidates"),
    *("positives", "negatives", "groups", "metrics"),
}
"""Kinds of steps that are made in this process while they are small. No model is behind them: its
vectors, scores or texts are steps of other kinds."""


def start_cluster(
    experiment: Experiment, builder: Builder, say: Say, *, late: bool = False
) -> None:
    """Join or start Ray for a recipe, and give the builder what it needs there.

    Args:
        late: as in `join_cluster`.
    """
    named = [experiment, builder.store.uri, experiment.tracking_uri()]
    shared = experiment.storage_shared
    join_cluster(
        builder, experiment.resources, experiment.precision, say, named, shared=shared, late=late
    )


def join_cluster(
    builder: Builder,
    resources: Resources,
    precision: str,
    say: Say,
    named: Sequence[Any],
    *,
    shared: bool = False,
    late: bool = False,
) -> None:
    """Join or start Ray, and give the builder what it needs there.

    Args:
        named: where addresses with keys may stand, which other processes of the job may ask for.
        shared: whether every node sees a storage that is a directory.
        late: start a Ray of this machine when a step needs it, which may be never.
    """
    any_character()  # a line that a terminal cannot show must not end a job

    def start() -> None:
        if late:
            expect_ray(models=False)
        connect(resources, builder.store.is_local, shared, say)
        show_own_lines()
        keyed = [address for address in addresses(named) if address.handle is not None]
        builder.keys = share({str(address.handle): address.reveal() for address in keyed})
        builder.claim = Claims(say)  # of a Ray that starts here, nobody else has any

    builder.announce = say
    bars = sys.stderr.isatty()
    builder.context = Context(
        resources, precision, progress_bars=bars, late=RayOnDemand(start) if late else None
    )
    if not late:
        start()


def does_without_ray(steps: Iterable[Step], resources: Resources) -> bool:
    """Whether a job of these steps, and of those behind them, may begin before Ray starts.

    Steps of others are made on Ray, which they may use in ways of their own.
    """
    return may_start_late(resources) and all(
        step.kind in _WITHOUT_RAY and type(step).__module__.startswith("raypipe.") for step in steps
    )


# --- the mining job -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mined:
    """What stands after the mining job."""

    artifacts: Mapping[str, Artifact]
    """By what they are, such as `negatives of contrastive`."""
    qualities: list[TeacherQuality]
    behind: Mapping[str, Artifact] = field(default_factory=dict)
    """What the artifacts were made from, by the way to it."""
    facts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """What queries, judgements and documents say of each other, by the field of the queries."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Empty: mining has no trials that could fail alone."""

    def summary(self) -> dict[str, Any]:
        """The content of `--summary FILE`."""
        counted = {**self.artifacts, **self.behind}
        return {
            "artifacts": {name: artifact.uri for name, artifact in self.artifacts.items()},
            "counts": {name: artifact.counts for name, artifact in counted.items()}
            | {f"facts of {name}": dict(counts) for name, counts in self.facts.items()},
            "teachers": [dict(quality.summary()) for quality in self.qualities],
        }


def steps_of(experiment: Experiment) -> dict[str, Step]:
    """What the recipe mines, in order: what is evaluated, then every distinct training set."""
    steps: dict[str, Step] = {}
    for role in EVALUATED:
        steps[f"{role} collection"] = experiment.collection(role)
        steps[f"{role} queries"] = experiment.queries(role)
        steps[f"{role} candidates"] = experiment.first_stage(role)
    for stages, data in training_sets(expand(experiment)).items():
        for name, step in data.steps().items():
            steps[f"{name} of {stages}"] = step
    first_names: dict[str, str] = {}
    for name, step in steps.items():
        first_names.setdefault(step.digest, name)
    return {name: step for name, step in steps.items() if first_names[step.digest] == name}


def plan_of(experiment: Experiment) -> tuple[dict[str, Step], Builder]:
    """The steps, checked, and a builder on their store; needs no cluster."""
    for trial in expand(experiment):
        trial.experiment.check(model=False)
    return steps_of(experiment), Builder(experiment.store())


def plan_lines(steps: Mapping[str, Step], builder: Builder) -> list[str]:
    """What would be made, and what is there."""
    return [
        f"{'there' if builder.find(step) is not None else 'to do'}  {name}  {step.path}"
        for name, step in steps.items()
    ]


def dry_run(experiment: Experiment, say: Say = print) -> None:
    """Check everything, say what would be read and made."""
    steps, builder = plan_of(experiment)
    for line in preview(expand(experiment), builder, model=False):
        say(line)
    for line in plan_lines(steps, builder):
        say(line)


def run(experiment: Experiment, say: Say = print) -> Mined:
    """Mine everything that the recipe's stages train on and are evaluated on.

    Raises:
        ConfigError: before any work, if something the recipe names is not usable.
    """
    steps, builder = plan_of(experiment)
    every = [*steps.values(), *(step for _, step in steps_behind(steps))]
    late = does_without_ray(every, experiment.resources)
    if not late:
        expect_ray(models=bool({step.kind for step in every} & {"embeddings", "teacher"}))
    builder.announce = say
    trials = expand(experiment)
    read = contents(builder, make=True)
    if any(synthetic_sets(trial.experiment.query_sets().values()) for trial in trials):
        start_cluster(experiment, builder, say)  # queries are written there
    notes = check_held_out(trained_experiments(trials), read)
    start_cluster(experiment, builder, say, late=late)
    facts = query_facts(all_queries([trial.experiment for trial in trials]), builder, read)
    for line in [*notes, *(note for fact in facts.values() for note in fact.notes)]:
        say(line)
    # early, so that a bad teacher is known before it scores all training lists, which costs
    qualities = teacher_quality(experiment, training_sets(trials), builder, say)
    artifacts, made_from = made(steps, builder, say)
    for quality in qualities:
        for line in quality.lines():
            say(line)
    for note in mining_notes(experiment, EVALUATED, training_sets(trials), builder):
        say(note)
    return Mined(artifacts, qualities, made_from, {k: fact.counts for k, fact in facts.items()})


def made(
    steps: Mapping[str, Step], builder: Builder, say: Say
) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """Make the steps, say all their counts; (their artifacts, what these were made from)."""
    artifacts = {name: builder.get(step) for name, step in steps.items()}
    made_from = behind(steps, builder)
    for name, artifact in said_once(artifacts).items():
        say(counts_line(name, artifact.counts))
    for line in behind_lines(made_from):
        say(line)
    return artifacts, made_from


# --- the start of a comparison or a search --------------------------------------------------------


def mine_shared(plan: Plan, roles: Sequence[str], builder: Builder, say: Say) -> dict[str, Any]:
    """Make everything that trials share; say and return the counts of every drop.

    Raises:
        ConfigError: what was mined cannot carry a stage, however late in its trial that comes.
    """
    mine_stages(plan, builder)
    for experiment in _re_ranked(plan):
        for role in roles:
            for step in experiment.reranking(role).steps().values():
                builder.get(step)
    artifacts, made_from = made(_counted_steps(plan, roles), builder, say)
    return {name: artifact.counts for name, artifact in {**artifacts, **made_from}.items()}


def mine_stages(plan: Plan, builder: Builder) -> None:
    """Make what the stages of a plan read.

    Raises:
        ConfigError: what was mined cannot carry a stage.
    """
    for step in plan.shared():
        builder.get(step)
    for stage in plan.stages.values():
        groups = GroupReader(builder.get(stage.groups).local())
        context = builder.context
        stage.check(groups, context.micro_batch_tokens(), use_gpu=context.device() == "cuda")


def mine_encoders(plan: Plan, builder: Builder, say: Say) -> dict[str, Any]:
    """Make what stages read whose models retrieve lists; say and return the counts of every drop.

    Raises:
        ConfigError: what was mined cannot carry a stage.
    """
    mine_stages(plan, builder)
    steps = {
        f"{name.replace(' ', '_')}/{stages}": step
        for stages, data in training_sets(plan.trials).items()
        for name, step in data.steps().items()
    }
    artifacts, made_from = made(steps, builder, say)
    return {name: artifact.counts for name, artifact in {**artifacts, **made_from}.items()}


def _re_ranked(plan: Plan) -> list[Experiment]:
    """One experiment per model and first stages: what is re-ranked depends on nothing else."""

    def key(experiment: Experiment) -> tuple[str, str, str]:
        first_stages = (
            experiment.candidates.model_dump_json(),
            experiment.evaluation.model_dump_json(),
        )
        return (experiment.last_model.model_dump_json(), *first_stages)

    return list({key(trial.experiment): trial.experiment for trial in plan.trials}.values())


def _counted_steps(plan: Plan, roles: Sequence[str]) -> dict[str, Step]:
    """The mined steps whose counts a reader needs, by name."""
    first = plan.trials[0].experiment
    steps: dict[str, Step] = {}
    for role in ("validation", *roles):
        steps[f"collection/{role}"] = first.collection(role)
        steps[f"queries/{role}"] = first.queries(role)
        steps[f"candidates/{role}"] = first.first_stage(role)
    sets = training_sets(plan.trials)
    for stages, data in sets.items():
        for name, step in data.steps().items():
            key = name.replace(" ", "_")
            steps[key if len(sets) == 1 else f"{key}/{stages}"] = step
    return steps
