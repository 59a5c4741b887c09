"""A search on real Ray: draws, pruning, the journal, and what the same command does again.

Six starts of Ray Train at most.
"""

from __future__ import annotations

import json

import pytest

from raypipe.artifacts import Store
from raypipe.config import ConfigError, load
from raypipe.experiment import Experiment
from raypipe.space import Search, parse_axis
from raypipe.sweep.search.drawing import Drawing, best_trial
from raypipe.sweep.search.job import run_or_plan
from raypipe.sweep.search.journal import Drawn, Journal
from raypipe.sweep.search.sampler import Sampler
from raypipe.sweep.space import expand

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


def drawing(recipe, trials: int, space=SPACE, known=(), standing=lambda step: False, **search):
    experiment = load(Experiment, recipe, overrides(trials, space, **search))
    sampler = Sampler(experiment.sweep.axes(), experiment.sweep.search, known)
    journal = Journal.of(experiment, Store(str(recipe.parent / "storage")))
    held = {one.number: one for one in known}
    return Drawing(experiment, sampler, journal, standing, held), journal


# --- draws ----------------------------------------------------------------------------------------


def test_draws_stay_in_their_ranges_and_conditions_hold():
    axes = [parse_axis(key, given) for key, given in SPACE.items()]
    for algorithm in ("random", "tpe"):
        sampler = Sampler(axes, Search(algorithm=algorithm, startup=3))
        seen = set()
        for number in range(24):
            drawn = sampler.draw(number)
            assert 1e-4 <= drawn.params["stages.contrastive.lr"] <= 1e-2
            loss = drawn.params["stages.contrastive.loss"]
            conditional = "stages.contrastive.loss.temperature" in drawn.params
            assert conditional == (loss == "infonce")
            seen.add(loss)
            drawn.state, drawn.value = "finished", float(loss == "hinge")
            sampler.tell(drawn)
        assert seen == {"infonce", "hinge"}


def test_tpe_learns_what_is_good_and_random_does_not():
    axes = [parse_axis("x", {"type": "uniform", "low": 0.0, "high": 1.0})]

    def late_values(algorithm: str) -> list[float]:
        sampler = Sampler(axes, Search(algorithm=algorithm, startup=5))
        found = []
        for number in range(40):
            drawn = sampler.draw(number)
            drawn.state, drawn.value = "finished", -abs(drawn.params["x"] - 0.8)
            sampler.tell(drawn)
            found.append(drawn.params["x"])
        return found[20:]

    def away(values):
        return sum(abs(v - 0.8) for v in values) / len(values)

    assert away(late_values("tpe")) < 0.7 * away(late_values("random"))


def test_a_continued_search_draws_something_else():
    axes = [parse_axis("x", {"type": "uniform", "low": 0.0, "high": 1.0})]
    first = Sampler(axes, Search()).draw(0)
    first.state, first.value = "finished", 0.5
    again = Sampler(axes, Search(), [first]).draw(1)
    assert again.params != first.params
    same = Sampler(axes, Search()).draw(0)
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
    plan, _ = drawing(recipe, 9, seeds, algorithm="random")
    # order=contrastive leaves distil's rate without effect: all draws are one stage
    first = plan.next()
    assert first is not None and first["prunable"]
    assert plan.next() is None and len(plan.readiness.waiting) >= 1  # waits, holds nothing
    plan.readiness.finished(first["position"])
    second = plan.next()
    assert second is not None and not second["prunable"]


def test_an_interrupted_draw_is_run_again_with_its_values(recipe):
    lost = Drawn(0, {"stages.contrastive.lr": 0.005, "stages.contrastive.loss": "hinge"})
    over = Drawn(1, {"stages.contrastive.lr": 0.001, "stages.contrastive.loss": "hinge"})
    over.state, over.value = "finished", 0.5
    plan, _ = drawing(recipe, 3, known=[lost, over])
    assert plan.left == 2
    config = plan.next()
    assert config["number"] == 0
    assert ("stages.contrastive.lr", "0.005", 0.005) in config["choices"]
    plan.readiness.finished(config["position"])
    assert plan.next()["number"] == 2 and plan.left == 0


def test_the_journal_survives_half_a_file(recipe, tmp_path):
    _, journal = drawing(recipe, 3)
    journal.write(Drawn(0, {"a": 1}, "pruned", 0.25, [0.5, 0.25]))
    folder = recipe.parent / "storage" / journal.path
    (folder / "trial-00001.json").write_text('{"number": 1, "par')
    assert journal.read() == [Drawn(0, {"a": 1}, "pruned", 0.25, [0.5, 0.25])]


def test_only_finished_trials_can_be_the_best(recipe):
    experiment = load(Experiment, recipe, overrides(3))
    params = {"stages.contrastive.loss": "hinge"}
    drawn = [
        Drawn(0, {**params, "stages.contrastive.lr": 0.001}, "finished", 0.4),
        Drawn(1, {**params, "stages.contrastive.lr": 0.002}, "pruned", 0.9),
        Drawn(2, {**params, "stages.contrastive.lr": 0.003}, "finished", 0.6),
    ]
    assert best_trial(experiment, drawn).experiment.stages["contrastive"].lr == 0.003
    with pytest.raises(RuntimeError, match="no trial of the search finished"):
        best_trial(experiment, drawn[1:2])


# --- on a cluster ---------------------------------------------------------------------------------


@pytest.mark.ray
def test_a_search_prunes_reports_and_goes_on(cluster, recipe):
    space = {"stages.contrastive.lr": {"good": 3e-3, "none": 1e-9}, "seed": [1, 2, 3]}
    given = [
        *overrides(4, space, algorithm="random", pruning={"grace": 1, "reduction": 2.0}),
        "stages.contrastive.validations=4",
        "stages.contrastive.steps=16",
    ]
    said: list[str] = []
    result = run_or_plan(load(Experiment, recipe, given), False, said.append)
    report = result.report
    assert len(report.searched) == 4 == sum(result.counts["trials"].values())
    assert result.counts["trials"].keys() <= {"finished", "pruned"}
    assert report.mode == "search"
    (best,) = [row for row in report.rows if row.kind == "trained"]
    finished = {one.value for one in report.searched if one.state == "finished"}
    assert max(finished) == max(one.value for one in report.searched if one.state == "finished")
    # nothing is claimed, and only one trial has read the test queries
    assert all(v is None for line in report.lines["test"] for v in line.versus.values())
    assert len(list((recipe.parent / "storage" / "run").glob("*contrastive*test*"))) == 1
    pruned = [one for one in report.searched if one.state == "pruned"]
    standing = list((recipe.parent / "storage" / "checkpoint").glob("*/manifest.json"))
    assert len(standing) == len({str(o.settings) for o in report.searched if o not in pruned})

    more = [*given, "sweep.search.trials=5"]
    again = run_or_plan(load(Experiment, recipe, more), False, said.append)
    assert list(again.report.searched)[:4] == list(report.searched)
    assert len(again.report.searched) == 5
    assert any("(4 done)" in line for line in said)
    assert best.seeds and again.counts["trials"].get("failed", 0) == 0
