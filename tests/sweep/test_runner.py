"""How Ray Tune is asked for trials, and what it says of those that failed; needs no cluster."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import TUNE_OVER, inventory
from raypipe.sweep.plan import Plan, Readiness
from raypipe.sweep.runner import PlanSearcher, errors_of, tune_over, tune_run


def test_a_trial_whose_stage_is_being_trained_waits(recipe):
    plan = Plan.of(expand(load(Experiment, recipe)))
    committed: set[str] = set()
    cancelled: list[str] = []
    slots = SimpleNamespace(cancel=cancelled.extend)
    readiness = Readiness(plan.chains, lambda step: step.digest in committed, [0, 1])
    search = PlanSearcher(readiness, slots)
    assert search.suggest("a") == {"trial": 0}
    assert search.suggest("b") is None
    committed.add(plan.chains[0][0].digest)
    assert search.suggest("b") == {"trial": 1}
    assert search.suggest("c") == PlanSearcher.FINISHED
    search.on_trial_complete("a")
    assert cancelled == [stage.digest for stage in plan.chains[0]]  # if any is still trained
    assert search.positions == {"a": 0, "b": 1}


def test_a_job_that_ends_says_so_in_tune_s_folder(tmp_path):
    store = Store(str(tmp_path))
    tune_over("0123456789abcdef", store, "mine")  # a job of one trial has no such folder
    assert list(tmp_path.iterdir()) == []
    config = tune_run("0123456789abcdef", store, "mine", 0)
    Path(config.storage_path, config.name).mkdir(parents=True)
    tune_over("0123456789abcdef", store, "mine")
    assert inventory(store).tune[config.name].files == {TUNE_OVER}


def test_the_errors_of_trials_that_said_nothing_else():
    results = [
        SimpleNamespace(metrics={"trial_id": one}, error=error)
        for one, error in [("a", None), ("b", RuntimeError("first\nlast")), ("c", OSError("full"))]
    ]
    assert errors_of(results, {"b": 3, "c": 0, "a": 5}) == [(3, "last"), (0, "OSError: full")]


def test_no_name_leads_out_of_tune_s_folder(tmp_path):
    store = Store(str(tmp_path))
    for name in ("../../../x", "a/b", "..", "x" * 300, "\x00"):
        folder = tune_run("0123456789abcdef", store, name, 0).name
        assert "/" not in folder and folder.endswith("-01234567") and len(folder) <= 255
    assert tune_run("0123456789abcdef", store, "ms marco", 0).name == "ms marco-01234567"
