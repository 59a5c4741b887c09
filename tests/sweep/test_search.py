"""A search on real Ray: draws, pruning, the journal, and what the same command does again.

Six starts of Ray Train at most.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.commands import job
from raypipe.commands import search as command
from raypipe.commands.search import run_or_plan
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.space import Search, parse_axis
from raypipe.recipe.trials import expand
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Store
from raypipe.sweep.plan import Plan
from raypipe.sweep.run_trial import Work, run_trial
from raypipe.sweep.search.journal import Draw, Journal
from raypipe.sweep.search.space_sampler import SpaceSampler
from raypipe.sweep.search.state import SearchState, best_trial
from raypipe.sweep.search.tuning import DrawSearcher, Validations, scheduler

SPACE = {
    "stages.contrastive.lr": {"type": "uniform", "low": 1e-4, "high": 1e-2, "log": True},
    "stages.contrastive.loss": {"infonce": {"type": "infonce"}, "hinge": {"type": "hinge"}},
    "stages.contrastive.loss.temperature": {
        "values": [0.5, 1.0],
        "when": {"stages.contrastive.loss": "infonce"},
    },
}


def overrides(trials: int, space=SPACE, **search) -> list[str]:
    chosen = {"trials": trials, "startup": 2, **search}
    return [
        f"sweep={json.dumps({'mode': 'search', 'space': space, 'search': chosen, 'retries': 0})}",
        "order=contrastive",
        "reference=null",
    ]


def search_state(recipe, trials: int, space=SPACE, known=(), standing=lambda step: False, **search):
    experiment = load(Experiment, recipe, overrides(trials, space, **search))
    sampler = SpaceSampler(experiment.sweep.axes(), experiment.sweep.search, known)
    journal = Journal.of(experiment, Store(str(recipe.parent / "storage")))
    held = {one.number: one for one in known}
    return SearchState(experiment, sampler, journal, standing, held), journal


# --- draws ----------------------------------------------------------------------------------------


def test_draws_stay_in_their_ranges_and_conditions_hold():
    axes = [parse_axis(key, given) for key, given in SPACE.items()]
    for algorithm in ("random", "tpe"):
        sampler = SpaceSampler(axes, Search(algorithm=algorithm, startup=3))
        seen = set()
        for number in range(24):
            draw = sampler.draw(number)
            assert 1e-4 <= draw.params["stages.contrastive.lr"] <= 1e-2
            loss = draw.params["stages.contrastive.loss"]
            conditional = "stages.contrastive.loss.temperature" in draw.params
            assert conditional == (loss == "infonce")
            seen.add(loss)
            draw.state, draw.value = "finished", float(loss == "hinge")
            sampler.tell(draw)
        assert seen == {"infonce", "hinge"}


def test_tpe_learns_what_is_good_and_random_does_not():
    axes = [parse_axis("x", {"type": "uniform", "low": 0.0, "high": 1.0})]

    def late_values(algorithm: str) -> list[float]:
        sampler = SpaceSampler(axes, Search(algorithm=algorithm, startup=5))
        found = []
        for number in range(40):
            draw = sampler.draw(number)
            draw.state, draw.value = "finished", -abs(draw.params["x"] - 0.8)
            sampler.tell(draw)
            found.append(draw.params["x"])
        return found[20:]

    def away(values):
        return sum(abs(v - 0.8) for v in values) / len(values)

    assert away(late_values("tpe")) < 0.7 * away(late_values("random"))


def test_a_continued_search_draws_something_else():
    axes = [parse_axis("x", {"type": "uniform", "low": 0.0, "high": 1.0})]
    first = SpaceSampler(axes, Search()).draw(0)
    first.state, first.value = "finished", 0.5
    again = SpaceSampler(axes, Search(), [first]).draw(1)
    assert again.params != first.params
    same = SpaceSampler(axes, Search()).draw(0)
    assert same.params == first.params


def test_every_value_is_validated_before_work(recipe):
    trials = expand(load(Experiment, recipe, overrides(3)))
    losses = {trial.experiment.stages["contrastive"].loss.type for trial in trials}
    rates = {trial.experiment.stages["contrastive"].lr for trial in trials}
    heats = {getattr(t.experiment.stages["contrastive"].loss, "temperature", None) for t in trials}
    assert losses == {"infonce", "hinge"} and rates == {1e-4, 1e-2} and {0.5, 1.0} <= heats
    wrong = {**SPACE, "stages.contrastive.clip": [1.0, -1.0]}
    with pytest.raises(ConfigError, match=r"stages\.contrastive\.clip"):
        expand(load(Experiment, recipe, overrides(3, wrong)))


# --- what may run, what may be stopped ------------------------------------------------------------


def test_a_shared_last_stage_is_not_pruned(recipe):
    seeds = {"stages.distil.lr": [1e-3, 2e-3]}
    state, _ = search_state(recipe, 9, seeds, algorithm="random")
    # order=contrastive leaves distil's rate without effect: all draws are one stage
    first = state.next()
    assert first is not None and first["prunable"]
    assert state.next() is None and len(state.readiness.waiting) >= 1  # waits, holds nothing
    state.readiness.finished(first["position"])
    second = state.next()
    assert second is not None and not second["prunable"]


def test_an_interrupted_draw_is_run_again_with_its_values(recipe):
    lost = Draw(0, {"stages.contrastive.lr": 0.005, "stages.contrastive.loss": "hinge"})
    over = Draw(1, {"stages.contrastive.lr": 0.001, "stages.contrastive.loss": "hinge"})
    over.state, over.value = "finished", 0.5
    state, _ = search_state(recipe, 3, known=[lost, over])
    assert state.left == 2
    config = state.next()
    assert config["number"] == 0
    assert ("stages.contrastive.lr", "0.005", 0.005) in config["choices"]
    state.readiness.finished(config["position"])
    assert state.next()["number"] == 2 and state.left == 0


def test_a_draw_never_takes_the_number_of_another(recipe):
    params = {"stages.contrastive.lr": 0.005, "stages.contrastive.loss": "hinge"}
    known = [Draw(1, params), Draw(2, params, "finished", 0.5)]  # 0 was lost
    state, journal = search_state(recipe, 4, known=known)
    for one in known:
        journal.write(one)
    numbers = []
    while (config := state.next()) is not None:
        numbers.append(config["number"])
        state.readiness.finished(config["position"])
    assert numbers == [1, 3, 4] and state.left == 0
    assert [one.number for one in journal.read()] == [1, 2, 3, 4]
    assert journal.read()[1] == Draw(2, params, "finished", 0.5)


def test_a_journal_file_is_written_whole_or_not_at_all(recipe, monkeypatch):
    _, journal = search_state(recipe, 3)
    before = Draw(0, {"a": 1})
    journal.write(before)

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        journal.write(Draw(0, {"a": 1}, "finished", 0.5))
    assert journal.read() == [before]


def test_what_a_search_is_continued_by(recipe):
    def path(*more: str) -> str:
        experiment = load(Experiment, recipe, [*overrides(3), *more])
        return Journal.of(experiment, Store("unused")).path

    assert path() == path("sweep.retries=2") == path("sweep.search.trials=9")
    assert path() != path("sweep.search.seed=2") and path() != path("seed=2")


@pytest.mark.parametrize(
    ("file", "same"),
    [
        ("corpus.jsonl", False),
        ("qrels/train.tsv", False),
        ("qrels/validation.tsv", False),
        ("qrels/test.tsv", True),
    ],
)
def test_values_of_other_data_are_not_gone_on_from(recipe, beir_folder, file, same, tmp_path):
    """An old winner was reported with its old value after its training data had changed."""
    shutil.copytree(beir_folder, tmp_path / "data" / beir_folder.name)
    folder = tmp_path / "data" / beir_folder.name
    recipe.write_text(recipe.read_text().replace(str(beir_folder), str(folder)))
    _, journal = search_state(recipe, 3)
    winner = Draw(0, {"stages.contrastive.lr": 0.005}, "finished", 0.9)
    journal.write(winner)
    with (folder / file).open("a") as data:
        data.write("q00\td001\t0\n" if file.endswith("tsv") else '{"_id": "new", "text": "new"}\n')
    _, later = search_state(recipe, 3)
    assert later.read() == ([winner] if same else [])


def test_a_journal_lies_below_the_storage_whatever_the_recipe_is_called(recipe):
    store = Store("/storage")
    for name, folder in {
        "tiny": "tiny",
        "kd/tiny": "kd/tiny",
        "../../../x": ".._.._.._x-",
    }.items():
        path = Journal.of(load(Experiment, recipe, [f"name={name}"]), store).path
        assert path.startswith(f"search/{folder}") and ".." not in path.split("/")


def test_the_journal_survives_half_a_file(recipe, tmp_path):
    _, journal = search_state(recipe, 3)
    journal.write(Draw(0, {"a": 1}, "pruned", 0.25, [0.5, 0.25]))
    folder = recipe.parent / "storage" / journal.path
    (folder / "trial-00001.json").write_text('{"number": 1, "par')
    assert journal.read() == [Draw(0, {"a": 1}, "pruned", 0.25, [0.5, 0.25])]


def test_only_finished_trials_can_be_the_best(recipe):
    experiment = load(Experiment, recipe, overrides(3))
    params = {"stages.contrastive.loss": "hinge"}
    draws = [
        Draw(0, {**params, "stages.contrastive.lr": 0.001}, "finished", 0.4),
        Draw(1, {**params, "stages.contrastive.lr": 0.002}, "pruned", 0.9),
        Draw(2, {**params, "stages.contrastive.lr": 0.003}, "finished", 0.6),
    ]
    assert best_trial(experiment, draws).experiment.stages["contrastive"].lr == 0.003
    with pytest.raises(RuntimeError, match="no trial of the search finished"):
        best_trial(experiment, draws[1:2])


# --- who is stopped -------------------------------------------------------------------------------

ORDERS = {
    "order": ["contrastive", "contrastive -> distil"],
    "stages.contrastive.lr": [1e-3, 2e-3, 3e-3],
}
ASHA = {"grace": 1, "reduction": 2.0}


class ScriptedTune:
    """What Ray Tune does with a searcher and a scheduler, on values that nobody trained for."""

    def __init__(self, state: SearchState) -> None:
        slots = SimpleNamespace(cancel=lambda digests: self.cancelled.extend(digests))
        self.search, self.scheduler = DrawSearcher(state, slots), scheduler(state)
        self.trials: dict[str, SimpleNamespace] = {}
        self.cancelled: list[str] = []

    def start(self, name: str) -> dict[str, Any] | None:
        config = self.search.suggest(name)
        if config is not None:
            self.trials[name] = SimpleNamespace(trial_id=name, config=config)
            self.scheduler.on_trial_add(None, self.trials[name])
        return config

    def tell(self, name: str, validation: int, value: float) -> str:
        result = {"validation": validation, "value": value}
        decision = self.scheduler.on_trial_result(None, self.trials[name], result)
        if decision == "STOP":
            self.search.on_trial_complete(name, result)
        else:
            self.search.on_trial_result(name, result)
        return decision


def scripted(
    recipe, *draws: tuple[str, str], pruning: Any = ASHA
) -> tuple[ScriptedTune, SearchState]:
    """A search that makes these draws, (order, rate), first."""
    known = [
        Draw(i, {"order": order, "stages.contrastive.lr": rate})
        for i, (order, rate) in enumerate(draws)
    ]
    state, _ = search_state(recipe, len(known), ORDERS, known, pruning=pruning)
    return ScriptedTune(state), state


def test_bad_ones_are_stopped_and_good_ones_are_not(recipe):
    tune, state = scripted(recipe, *(("contrastive", rate) for rate in ("0.001", "0.002", "0.003")))
    for name in "abc":
        assert tune.start(name)["prunable"]
    assert tune.tell("a", 1, 0.5) == "CONTINUE"  # nobody to be worse than
    assert tune.tell("b", 1, 0.7) == "CONTINUE"
    assert tune.tell("c", 1, 0.4) == "STOP"
    assert tune.tell("b", 2, 0.8) == "CONTINUE"
    assert tune.tell("a", 2, 0.6) == "STOP"
    # a pruned draw has the value that it was stopped with
    found = {n: (one.state, one.value, one.curve) for n, one in state.draws.items()}
    assert found == {
        0: ("pruned", 0.6, [0.5, 0.6]),
        1: ("running", None, [0.7, 0.8]),
        2: ("pruned", 0.4, [0.4]),
    }


def test_a_failed_trial_says_why_even_if_its_process_said_nothing(recipe):
    tune, state = scripted(recipe, ("contrastive", "0.001"), ("contrastive", "0.002"))
    assert tune.start("a") and tune.start("b")
    tune.search.on_trial_complete("a", {"finished": 1, "value": 0.5})
    tune.search.on_trial_complete("b", error=True)
    said = {"a": None, "b": RuntimeError("worker\ndied")}
    tune.search.read_errors(
        SimpleNamespace(metrics={"trial_id": one}, error=error) for one, error in said.items()
    )
    found = [(one.state, one.error) for one in state.journal.read()]
    assert found == [("finished", ""), ("failed", "died")]


def test_without_pruning_nothing_is_stopped(recipe):
    tune, _ = scripted(recipe, ("contrastive", "0.001"), ("contrastive", "0.002"), pruning=None)
    assert tune.start("a") and tune.start("b")
    assert [tune.tell("a", 1, 0.9), tune.tell("b", 1, 0.1)] == ["CONTINUE", "CONTINUE"]


@pytest.mark.parametrize("rate", ["0.002", "0.003"])
def test_a_stage_that_became_shared_is_not_stopped(recipe, rate):
    tune, state = scripted(
        recipe, ("contrastive", "0.001"), ("contrastive", "0.002"), ("contrastive -> distil", rate)
    )
    assert tune.start("good") and tune.start("bad")["prunable"]
    tune.tell("good", 1, 0.9)
    shared = rate == "0.002"
    assert (tune.start("later") is None) == shared  # it waits for the bad one's stage
    assert tune.tell("bad", 1, 0.1) == ("CONTINUE" if shared else "STOP")
    assert tune.tell("good", 2, 0.9) == "CONTINUE"
    if shared:
        assert tune.tell("bad", 2, 0.1) == "CONTINUE"
        assert state.draws[1].curve == [0.1, 0.1] and state.draws[1].state == "running"


def test_a_trial_that_is_run_again_tells_its_validations_from_the_first_on(recipe):
    tune, state = scripted(recipe, ("contrastive", "0.001"), ("contrastive", "0.002"))
    assert tune.start("a") and tune.start("b")
    for validation, value in enumerate([0.5, 0.6], start=1):
        assert tune.tell("a", validation, value) == "CONTINUE"
    for validation, value in enumerate([0.5, 0.6, 0.7, 0.8], start=1):  # its worker died
        assert tune.tell("a", validation, value) == "CONTINUE"
    assert state.draws[0].curve == [0.5, 0.6, 0.7, 0.8]
    assert tune.tell("b", 1, 0.5) == "CONTINUE" and tune.tell("b", 2, 0.55) == "STOP"


class Trains:
    """A builder whose stages report one validation each, and that of their start."""

    def __init__(self, folder: Path, values: dict[str, float]) -> None:
        self.context = Context(Resources())
        self.folder, self.values, self.trained = folder, values, []
        self.made: set[str] = set()
        facts = dict.fromkeys(["pairs", "tokens", "seconds", "flops", "workers"], 1)
        (folder / "trainer.json").write_text(json.dumps(facts))

    def find(self, stage):
        return self.get(stage) if stage.stage_name in self.trained else None

    def get(self, stage):
        name = stage.stage_name
        if name not in self.trained:
            self.trained.append(name)
            self.made.add(stage.digest)
            start = {"step": 0, "val/nDCG@10": 0.1}
            row = {"step": 1, "val/nDCG@10": self.values[name]}
            self.context.on_report(stage.digest, {"rows": [start, {"step": 1, "loss": 0.1}, row]})
        best = {"nDCG@10": self.values[name]}
        return SimpleNamespace(counts={"best": best}, local=lambda: self.folder)


def test_of_a_chain_only_the_last_stage_is_told(recipe, tmp_path):
    (trial,) = expand(
        load(
            Experiment, recipe, ["order=contrastive -> distil", "sweep.space={}", "reference=null"]
        )
    )
    told: list[dict[str, float]] = []
    asked: list[str] = []
    relay = SimpleNamespace(
        start=lambda *_: "run",
        send=lambda verb, *_: asked.append(verb),
        stored=lambda: asked.append("stored"),
    )
    builder = Trains(tmp_path, {"contrastive": 0.2, "distil": 0.7})
    tell = Validations(told.append, "val/nDCG@10")
    best = run_trial(trial, builder, relay, "parent", Work(Plan.of([trial]), ()), tell)
    assert builder.trained == ["contrastive", "distil"] and best == {"nDCG@10": 0.7}
    assert told == [{"validation": 1, "value": 0.7}]
    assert asked[-2:] == ["finish", "stored"]  # a process that ends has nothing left to repeat


# --- before work ----------------------------------------------------------------------------------


def test_the_plan_of_a_search_needs_no_cluster(recipe, monkeypatch):
    experiment = load(Experiment, recipe, overrides(5))
    monkeypatch.setattr(job, "start_cluster", lambda *_: pytest.fail("a cluster was started"))
    monkeypatch.setattr(command, "estimate", lambda plan, builder: [f"{len(plan.trials)} to show"])
    Journal.of(experiment, experiment.store()).write(Draw(0, {}, "pruned", 0.5))
    said: list[str] = []
    assert run_or_plan(experiment, True, said.append) is None
    lines = "\n".join(said).splitlines()
    assert lines[next(i for i, line in enumerate(lines) if line.startswith("search")) :] == [
        "search: 5 trials by tpe (1 done), hopeless ones are stopped; varies "
        "stages.contrastive.lr, stages.contrastive.loss, stages.contrastive.loss.temperature",
        "of 4 trials that show every value:",  # 2 rates, hinge, another temperature
        "4 to show",
    ]


# --- on a cluster ---------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_search_prunes_reports_and_goes_on(mined_recipe, unprobed):
    import ray

    rates = {"good": 3e-3, "none": 1e-9, "nil": 2e-9}  # of one seed: all begin alike
    given = [
        *overrides(3, {"stages.contrastive.lr": rates}, algorithm="random", pruning=ASHA),
        "stages.contrastive.validations=4",
        "stages.contrastive.steps=16",
        f"resources.cpus_per_worker={int(ray.cluster_resources()['CPU'])}",  # one after the other
    ]
    experiment = load(Experiment, mined_recipe, given)
    journal = Journal.of(experiment, experiment.store())
    for number, rate in enumerate(rates):  # the draws of an interrupted search
        journal.write(Draw(number, {"stages.contrastive.lr": rate}))
    said: list[str] = []
    result = run_or_plan(experiment, False, said.append)
    report = result.report
    states = {one.settings["stages.contrastive.lr"]: one.state for one in report.searched}
    assert states == {"good": "finished", "none": "pruned", "nil": "pruned"}
    assert result.counts["trials"] == {"finished": 1, "pruned": 2}
    values = {one.settings["stages.contrastive.lr"]: one.value for one in report.searched}
    assert values["none"] < values["good"] and values["nil"] < values["good"]
    assert report.mode == "search"
    (best,) = [row for row in report.rows if row.kind == "trained"]
    assert best.stages[0].lr == rates["good"] and best.seeds == (1,)
    # nothing is claimed, and only one trial has read the test queries
    assert not any(line.versus for line in report.lines["test"])
    assert len(list((mined_recipe.parent / "storage" / "run").glob("*contrastive*test*"))) == 1
    assert len(list((mined_recipe.parent / "storage" / "checkpoint").glob("*/manifest.json"))) == 1

    again = run_or_plan(
        load(Experiment, mined_recipe, [*given, "sweep.search.trials=4"]), False, said.append
    )
    assert list(again.report.searched)[:3] == list(report.searched)
    assert [one.number for one in again.report.searched] == [0, 1, 2, 3]
    assert any("(3 done)" in line for line in said)
    assert again.counts["trials"].get("failed", 0) == 0
