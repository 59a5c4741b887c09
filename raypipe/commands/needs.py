"""Which artifacts recipes need: those of every job that can be run on them, and what these read.

Nothing is made. A recipe with `precision: auto` needs what it makes on machines of either kind, so
that a laptop may tidy up the storage of a cluster.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from raypipe.commands.mine import steps_of
from raypipe.commands.teacher_quality import quality_steps
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, written
from raypipe.recipe.space import Sweep
from raypipe.recipe.trials import expand
from raypipe.runs.depth_curve import depth_curve
from raypipe.runs.metrics import Metrics
from raypipe.storage.address import masks_allowed
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import derived_rows, retrieved_rows
from raypipe.sweep.plan import Plan, training_sets
from raypipe.sweep.questions import answer, candidates_of, questions
from raypipe.sweep.search.journal import Journal
from raypipe.sweep.search.space_sampler import SpaceSampler
from raypipe.sweep.search.state import trial_of_draw
from raypipe.sweep.table_rows import baseline_runs

_AUTO = ("bf16", "fp32")
"""What `precision: auto` becomes, see `resources.default_precision`."""


def needs_of(word: str, store: Store, tracking: str | None = None) -> set[str]:
    """Paths of the artifacts that a recipe needs.

    Args:
        word: the path of a YAML file; or a tracked job, which is a recipe with its overrides: a run
            id, or the name of an experiment, whose latest job is meant.
        store: where the draws of searches and the answers of `sweep.select` stand.

    Raises:
        ConfigError: no such file or job, a recipe that is not valid, or one that names what is not
            on this machine, so that its needs cannot be told.
    """
    path = Path(word)
    is_file = path.is_file() or path.suffix in (".yaml", ".yml")
    return _paths(_of_file(path) if is_file else _of_job(word, tracking), store)


def _of_file(path: Path) -> list[Experiment]:
    """The recipe, in every precision that a machine may settle on if it names none."""
    if written(path).get("precision", "auto") != "auto":
        return [load(Experiment, path)]
    return [load(Experiment, path, [f"precision={precision}"]) for precision in _AUTO]


def _of_job(named: str, tracking: str | None) -> list[Experiment]:
    from raypipe.tracking.stored_runs import TrackingStore

    job = TrackingStore(tracking).job(named)
    with tempfile.TemporaryDirectory() as folder:
        recipe = job.file("recipe.yaml", Path(folder))
        if recipe is None:
            raise ConfigError(f"tracked job {named}: expected its recipe.yaml, found none")
        with masks_allowed():  # what is needed does not depend on where it is
            return [load(Experiment, recipe)]


def _paths(recipes: Iterable[Experiment], store: Store) -> set[str]:
    """Paths of the artifacts of all jobs on these recipes, and of what those are made from."""
    paths: set[str] = set()

    def visit(step: Step) -> None:
        if step.path not in paths:
            paths.add(step.path)
            for below in {**step.inputs(), **step.needs()}.values():
                visit(below)

    for recipe in recipes:
        for step in _steps(recipe, Builder(store)):
            visit(step)
    return paths


def _steps(recipe: Experiment, builder: Builder) -> Iterator[Step]:
    """The last steps of everything that the jobs can make of a recipe."""
    yield from steps_of(recipe).values()
    for experiment in (recipe, _alone(recipe)):
        trials = expand(experiment)
        first = trials[0].experiment
        for role in first.test_sets():
            made = (run(role) for _, _, run in baseline_runs(first))
            for step in made:
                if step is not None:
                    yield from _measured(first.metrics(step, role))
        yield from quality_steps(first, training_sets(trials), builder)
        if experiment.sweep.mode == "search":
            plan = Plan.joined([Plan.of(trials), _drawn(experiment, builder.store)])
        else:
            asked = questions(experiment, trials)
            yield from candidates_of(asked).stages.values()
            plan = Plan.of(answer(trials, asked, builder, {}).trials)
            derived = derived_rows(plan, experiment.evaluation.ensembles)
            for row in [*derived, *retrieved_rows(plan)]:
                for role in first.test_sets():
                    yield from _measured(row.metrics(role))
        yield from plan.stages.values()
        for trial in plan.trials:
            for role in trial.experiment.test_sets():
                yield from _measured(plan.metrics(trial, role))


def _measured(metrics: Metrics) -> Iterator[Step]:
    """A row's metrics, and its values at other depths."""
    curve = depth_curve(metrics)
    yield from (metrics,) if curve is None else (metrics, curve)


def _alone(recipe: Experiment) -> Experiment:
    """The recipe without its sweep, as jobs/train.py runs it."""
    ensembles = tuple(name for name in recipe.evaluation.ensembles if name == "interpolation")
    evaluation = recipe.evaluation.replace(ensembles=ensembles)  # the others need several seeds
    return recipe.replace(sweep=Sweep(), reference=None, published=(), evaluation=evaluation)


def _drawn(experiment: Experiment, store: Store) -> Plan:
    """The trials that a search has drawn so far."""
    sampler = SpaceSampler(experiment.sweep.axes(), experiment.sweep.search)
    draws = [d for d in Journal.of(experiment, store).read() if d.state != "invalid"]
    return Plan.of(
        [trial_of_draw(experiment, draw.number, sampler.choices(draw)) for draw in draws]
    )
