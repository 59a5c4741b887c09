"""What a recipe needs is what its jobs make: all of it, of every job that can be run on it."""

from __future__ import annotations

import json

import pytest

from raypipe.commands.compare import plan_of
from raypipe.commands.mine import steps_of
from raypipe.commands.needs import needs_of
from raypipe.commands.prune import ARTIFACTS, TUNE_FOLDERS, left_overs, run
from raypipe.config import ConfigError, to_yaml
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.space import Sweep
from raypipe.recipe.trials import expand
from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import inventory
from raypipe.sweep.plan import Plan
from raypipe.sweep.search.journal import Draw, Journal
from raypipe.tracking.recorder import Recorder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def checkpoints(paths: set[str]) -> set[str]:
    return {path for path in paths if path.startswith("checkpoint/")}


def stages(experiment: Experiment) -> set[str]:
    return {stage.path for stage in Plan.of(expand(experiment)).stages.values()}


def changed(recipe, name: str, **fields) -> str:
    """A recipe with other fields, written beside the recipe."""
    path = recipe.with_name(name)
    path.write_text(json.dumps({"base": recipe.name, **fields}))
    return str(path)


def test_every_job_of_a_recipe_counts(recipe, store):
    needs = needs_of(str(recipe), store)
    experiment = load(Experiment, recipe)
    assert {step.path for step in steps_of(experiment).values()} <= needs
    comparison, _ = plan_of(experiment)
    for trial in comparison.plan.trials:
        assert comparison.plan.metrics(trial).path in needs
    assert checkpoints(needs) == stages(experiment)
    only = changed(recipe, "only.yaml", sweep={"space": {"order": ["contrastive"]}})
    # jobs/sweep.py trains one stage of it, jobs/train.py both
    assert checkpoints(needs_of(only, store)) == stages(experiment)
    assert not inventory_of(store)  # nothing was made


def inventory_of(store: Store) -> set[str]:
    try:
        return set(inventory(store).places)
    except ConfigError:
        return set()


def test_a_precision_that_the_machine_chooses_means_both(recipe, store):
    of_fp32 = needs_of(str(recipe), store)
    of_bf16 = needs_of(changed(recipe, "bf16.yaml", precision="bf16"), store)
    of_auto = needs_of(changed(recipe, "auto.yaml", precision="auto"), store)
    assert of_fp32 != of_bf16 and of_auto == of_fp32 | of_bf16
    recipe.write_text(recipe.read_text().replace("precision: fp32\n", ""))
    assert needs_of(str(recipe), store) == of_auto


def test_rows_that_cost_no_training_count(recipe, store):
    space = {"seed": [1, 2], "order": ["contrastive"]}
    wanted = ["seeds", "average", "interpolation"]
    fields = {"sweep": {"space": space}, "evaluation": {"ensembles": wanted}}
    few = needs_of(changed(recipe, "few.yaml", sweep={"space": space}), store)
    more = needs_of(changed(recipe, "more.yaml", **fields), store) - few
    names = [path.rpartition("-")[0] for path in more]
    assert any(name.startswith("run/ensemble-of-2-") for name in names)
    assert any(name.startswith("run/interpolated-") for name in names)
    assert any("mean-of-2-" in name for name in names)


def test_values_that_validation_chooses_count(recipe, store, monkeypatch):
    rates = {"stages.contrastive.lr": [1e-4, 1e-3]}
    sweep = {"space": {"order": ["contrastive"], "seed": [1, 2]}, "select": rates}
    named = changed(recipe, "select.yaml", sweep=sweep)
    candidates = checkpoints(needs_of(named, store))
    first = load(Experiment, named, ["sweep={}", "order=contrastive"])
    for rate in (1e-4, 1e-3):
        tried = first.replace(stages=with_rate(first, rate))
        assert tried.trained().path in candidates
        assert tried.replace(seed=2).trained().path not in candidates  # nobody knows yet
    from raypipe.storage.artifacts import Artifact

    def find(self, step):
        """Both candidates stand, and the second one is better."""
        rate = step.config.lr if step.kind == "checkpoint" and step.seed == 1 else None
        if rate not in (1e-4, 1e-3):
            return None
        return Artifact(self, step.path, {"counts": {"best": {"nDCG@10": rate}}})

    monkeypatch.setattr(Store, "find", find)
    chosen = first.replace(stages=with_rate(first, 1e-3), seed=2).trained().path
    assert chosen in needs_of(named, store)


def with_rate(experiment: Experiment, rate: float) -> dict:
    contrastive = experiment.stages["contrastive"].replace(lr=rate)
    return {**experiment.stages, "contrastive": contrastive}


def test_the_draws_of_a_search_count(recipe, store):
    rate = {"type": "uniform", "low": 1e-4, "high": 1e-2, "log": True}
    sweep = {"mode": "search", "space": {"stages.contrastive.lr": rate}}
    named = changed(recipe, "search.yaml", sweep=sweep, order="contrastive", reference=None)
    experiment = load(Experiment, named)
    drawn = experiment.replace(sweep=Sweep(), stages=with_rate(experiment, 2e-3)).trained().path
    assert drawn not in needs_of(named, store)
    params = {"stages.contrastive.lr": 2e-3}
    journal = Journal.of(experiment, store)
    journal.write(Draw(0, params, "finished", 0.5))
    journal.write(Draw(1, {"stages.contrastive.lr": 5e-3}, "invalid"))
    needs = needs_of(named, store)
    assert drawn in needs
    invalid = experiment.replace(sweep=Sweep(), stages=with_rate(experiment, 5e-3)).trained().path
    assert invalid not in needs


def test_a_tracked_job_counts_as_it_ran(recipe, store, tmp_path):
    uri = f"sqlite:///{tmp_path}/tracked.db"
    experiment = load(Experiment, recipe, ["seed=2"])
    recorder = Recorder(uri, experiment.name)
    recorder.start("job", experiment.name, "job")
    recorder.log_text("job", to_yaml(experiment), "recipe.yaml")
    recorder.finish("job")
    assert recorder.drain() == (0, 0)
    recorder.close()
    needs = needs_of("tiny", store, uri)
    assert checkpoints(needs) == stages(experiment)
    assert checkpoints(needs).isdisjoint(checkpoints(needs_of(str(recipe), store)))
    with pytest.raises(ConfigError, match="no tracked experiment 'tinny'"):
        needs_of("tinny", store, uri)


def test_a_recipe_whose_needs_cannot_be_told_is_an_error(recipe, store, command):
    store.fs.create_dir(store.root)
    named = changed(recipe, "gone.yaml", data={"test": {"dataset": "beir:/no/such/folder"}})
    done = command("artifacts.py", "prune", "--storage", store.uri, "--keep", named, "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no folder at /no/such/folder" in done.stderr
    done = command("artifacts.py", "prune", "--storage", store.uri, "--keep", "tyni.yaml", "--yes")
    assert done.returncode == 2 and "no recipe at tyni.yaml" in done.stderr


@pytest.mark.ray
def test_a_sweep_needs_all_that_it_made(swept, swept_recipe):
    """Whatever a job makes that is not listed here would be lost by pruning."""
    store = Store(str(swept_recipe.parent / "storage"))
    before = set(inventory(store).artifacts)
    garbage = left_overs(store, [str(swept_recipe)]).garbage
    assert garbage[ARTIFACTS] == []
    assert len(garbage[TUNE_FOLDERS]) == 1  # the job has ended, so its folder goes at once
    needs = needs_of(str(swept_recipe), store)
    assert run(store, [changed(swept_recipe, "two.yaml", seed=2)], None, True, lambda line: None)
    after = set(inventory(store).artifacts)
    lost = {path.partition("/")[0] for path in before - after}
    assert lost == {"checkpoint", "run", "metrics"} and after < before <= needs
