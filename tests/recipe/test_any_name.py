"""Names from all of Unicode in every field that takes one: refused when the recipe is read, or at
home in storage, tracking and run files. What reports make of them: evaluation/report."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import mlflow.utils.validation as mlflow_rules
import pyarrow as pa
import pytest
from any_names import names
from hypothesis import HealthCheck, given, settings
from report_rows import MEASURES

from raypipe.config import ConfigError
from raypipe.evaluation.ranking import write_trec_run
from raypipe.names import path_part, printable, trec_token
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import parse_yaml, validate
from raypipe.recipe.trials import Trial, expand
from raypipe.records import RUN
from raypipe.storage.artifacts import Step
from raypipe.sweep.plan import Plan
from raypipe.sweep.runner import tune_run
from raypipe.tracking.names import experiment_folder, file_name, metric_name, model_name, run_name

few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
RUN_FILE = {"type": "trec_run", "paths": ["/run.trec"], "depth": 20}
Tree = dict[str, Any]


# --- fields that take a name ----------------------------------------------------------------------


def recipe_name(tree: Tree, name: str) -> str:
    tree["name"] = name
    return "name"


def stage(tree: Tree, name: str) -> str:
    tree["stages"] = {name: tree["stages"]["contrastive"]}
    tree |= {"sweep": {}, "reference": None}
    return "stages"


def second_stage(tree: Tree, name: str) -> str:
    tree["stages"][name] = tree["stages"]["distil"]
    tree["sweep"] = {"space": {"order": [["contrastive", name]]}}
    tree["reference"] = None
    return "stages"


def judged_set(tree: Tree, name: str) -> str:
    tree["evaluation"]["sets"] = {name: {"queries": tree["data"]["test"], "candidates": RUN_FILE}}
    return "evaluation.sets"


def label(tree: Tree, name: str) -> str:
    tree["sweep"] = {"space": {"seed": [1, 2], "stages.distil.lr": {name: 1e-3, "plain": 2e-3}}}
    tree["reference"] = None
    return "sweep"


def listed_value(tree: Tree, name: str) -> str:
    tree["sweep"] = {"space": {"candidates.name": [name, "plain"]}}
    tree |= {"candidates": RUN_FILE, "reference": None}
    return "sweep"


def source(tree: Tree, name: str) -> str:
    tree["candidates"] = {**RUN_FILE, "name": name}
    return "candidates.name"


def fused_source(tree: Tree, name: str) -> str:
    tree["candidates"] = {
        "type": "fused",
        "sources": {name: RUN_FILE, "plain": {"type": "bm25", "depth": 20}},
        "depth": 20,
    }
    return "candidates.sources"


def teacher(tree: Tree, name: str) -> str:
    member = tree["teacher"]
    tree["teacher"] = {"type": "ensemble", "teachers": {name: member, "plain": member}}
    return "teacher.teachers"


def triples(tree: Tree, name: str) -> str:
    tree["groups"] = {
        "triples": {"type": "triples", "path": "/triples.tsv", "name": name},
    }
    return "groups.triples.name"


FIELDS = [
    *(recipe_name, stage, second_stage, judged_set, label, listed_value),
    *(source, fused_source, teacher, triples),
]


def read(recipe: Path, field: Any, name: str) -> tuple[Experiment, list[Trial]] | str:
    """The recipe with the name in this field, and its trials; or the error."""
    tree = parse_yaml(recipe.read_text())
    where = field(tree, name)
    try:
        experiment = validate(Experiment, tree, "tiny.yaml")
        return experiment, expand(experiment)
    except ConfigError as error:
        message = str(error)
        assert where in message and "expected" in message, message
        return message


# --- the property ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
@given(name=names)
@few
def test_any_name_is_refused_or_at_home(recipe, field, name):
    found = read(recipe, field, name)
    if isinstance(found, str):
        assert all(printable(line) == line for line in found.splitlines())
        assert len(found) < 2000
        return
    experiment, trials = found
    steps: list[Step] = []
    for trial in trials:
        plan = Plan.of([trial])
        for role in experiment.test_sets():
            steps += _behind(plan.metrics(trial, role))
    _at_home_in_the_storage(experiment, steps)
    _at_home_in_tracking(experiment, trials)
    _at_home_in_run_files({step.name for step in steps})


def _behind(step: Step) -> list[Step]:
    """The step and all that it is made from; no file outside is read."""
    below = {**step.inputs(), **step.needs()}.values()
    return [step, *(each for lower in below for each in _behind(lower))]


def _at_home_in_the_storage(experiment: Experiment, steps: list[Step]) -> None:
    for step in steps:
        vars(step)["digest"] = "0123456789abcdef"  # a run file of the recipe is not there
        path = Path(f"/storage/{step.path}")
        assert Path(f"/storage/{step.kind}") in path.resolve().parents
        assert all(len(part.encode()) <= 255 for part in path.parts)
        assert printable(step.path) == step.path
    tune = tune_run("0" * 32, experiment.store(), experiment.name, 0).name
    files = [file_name(f"run.{role}.trec") for role in experiment.test_sets()]
    for name in (tune, experiment_folder(experiment.name), *files):
        assert path_part(name) == name
    assert all(name.endswith(".trec") for name in files)


def _at_home_in_tracking(experiment: Experiment, trials: list[Trial]) -> None:
    mlflow_rules._validate_experiment_name(experiment.name)
    assert experiment.name != "Default"
    mlflow_rules._validate_model_name(model_name(experiment.name))
    tracked = [metric_name(f"{role}/{m}") for role in experiment.test_sets() for m in MEASURES]
    assert len(set(tracked)) == len(tracked)
    for name in tracked:
        mlflow_rules._validate_metric_name(name)
    for trial in trials:
        assert len(run_name(trial.name)) <= 250


def _at_home_in_run_files(step_names: set[str]) -> None:
    run = pa.table([["q"], [["d", "e"]], [[2.0, 1.0]]], schema=RUN)
    for name in step_names:
        out = io.StringIO()
        write_trec_run(out, run, trec_token(name))
        assert [len(line.split()) for line in out.getvalue().splitlines()] == [6, 6]


# --- names of today ------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
def test_a_name_that_can_be_seen_is_read(recipe, field):
    for name in ("DL 2019", "margin_mse", "v1.5", "first pass", "$x{", "[red]", "..", "日本語"):
        assert not isinstance(read(recipe, field, name), str)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.__name__)
def test_a_name_that_cannot_be_made_safe_is_refused(recipe, field):
    for name in ("a\nb", "a\x00b", "\ud800", "\u202ex", "a\u200bb"):
        assert isinstance(read(recipe, field, name), str)
    for name in ("", "x" * 300):  # what is listed may be a path or a prompt, and is cut where shown
        assert isinstance(read(recipe, field, name), str) or field is listed_value
