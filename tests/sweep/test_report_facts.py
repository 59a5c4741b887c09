"""What the report says of stages beside its figures."""

from __future__ import annotations

from types import SimpleNamespace

from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.sweep.plan import Plan
from raypipe.sweep.report_facts import alarms_of, references_of

COUNTS = {
    "contrastive": {
        "alarms": ["All scores of a list are equal.", "No weight moved."],
        "filtering/kept_share": 0.4,
        "filtering/queries": 1200,
        "filtering/compute": 0.55,
    },
    "distil": {"alarms": ["Validation is below the first stage."]},
}


class Trained:
    """A builder whose stages have the counts of their name."""

    def __init__(self, counts) -> None:
        self.counts = counts
        self.asked: list[str] = []

    def find(self, stage):
        self.asked.append(stage.stage_name)
        return SimpleNamespace(counts=self.counts[stage.stage_name])


def test_alarms_and_filters_of_every_distinct_stage(recipe):
    trials = expand(load(Experiment, recipe))  # contrastive, and it again with distil behind it
    builder = Trained(COUNTS)
    assert alarms_of(Plan.of(trials), builder) == [
        "contrastive: All scores of a list are equal.",
        "contrastive: No weight moved.",
        "contrastive: its filter kept 40 % of 1,200 groups, at 55 % of the work of training on all",
        "contrastive -> distil, distil: Validation is below the first stage.",
    ]
    assert builder.asked == ["contrastive", "distil"]


def test_stages_whose_workers_said_it_are_left_out(recipe):
    trials = expand(load(Experiment, recipe))
    plan = Plan.of(trials)
    heard = {stage.digest for stage in plan.stages.values() if stage.stage_name == "contrastive"}
    assert alarms_of(plan, Trained(COUNTS), heard) == [
        "contrastive -> distil, distil: Validation is below the first stage.",
    ]


def test_a_stage_that_has_nothing_to_say_says_nothing(recipe):
    unfiltered = {"alarms": [], "filtering/kept_share": None}
    trials = expand(load(Experiment, recipe))
    assert alarms_of(Plan.of(trials), Trained({"contrastive": unfiltered, "distil": {}})) == []


class Told(Trained):
    """A builder whose stages have the counts of their seed and name."""

    def find(self, stage):
        return SimpleNamespace(counts=self.counts[stage.seed, stage.stage_name])


def test_what_seeds_are_told_alike_stands_once(recipe):
    trials = expand(
        load(Experiment, recipe, ['sweep.space={"seed": [1, 2, 3, 4]}', "reference=null"])
    )
    low = "Validation nDCG@10 is {}, below the first stage's 0.41."
    stuck = "At a rate of {} most weights do not move."
    counts = {
        (1, "contrastive"): {"alarms": [low.format("0.2594")]},
        (2, "contrastive"): {"alarms": [low.format("1e-05"), stuck.format(1e-9)]},
        (3, "contrastive"): {"alarms": ["No weight moved.", low.format("0.3")]},
        (4, "contrastive"): {"alarms": [stuck.format("1.5e-10")]},
    }
    counts |= {(seed, "distil"): {"alarms": [low.format(seed)]} for seed in (1, 3)}
    counts |= {(seed, "distil"): {} for seed in (2, 4)}
    assert alarms_of(Plan.of(trials), Told(counts)) == [
        f"{trials[0].name}, contrastive: {low.format('0.2594')} (Likewise seeds 2, 3.)",
        f"{trials[0].name}, distil: {low.format('1')} (Likewise seed 3.)",
        f"{trials[1].name}, contrastive: {stuck.format(1e-9)} (Likewise seed 4.)",
        f"{trials[2].name}, contrastive: No weight moved.",
    ]


def test_an_alarm_that_a_stage_repeated_stands_once_with_its_last_figure(recipe):
    trials = expand(load(Experiment, recipe))
    repeated = [f"Step {n}: all scores are equal, for {n} steps now." for n in (3, 30, 300)]
    counts = {
        "contrastive": {"alarms": [*repeated[:2], "No weight moved.", repeated[2]]},
        "distil": {},
    }
    assert alarms_of(Plan.of(trials), Trained(counts)) == [
        f"contrastive: {repeated[2]}",
        "contrastive: No weight moved.",
    ]


def test_a_stage_that_runs_twice_speaks_for_itself(recipe):
    given = ['sweep.space={"seed": [1, 2]}', "reference=null", "order=contrastive -> contrastive"]
    trials = expand(load(Experiment, recipe, given))
    counts = {(seed, "contrastive"): {"alarms": [f"Loss {seed}."]} for seed in (1, 2)}
    once = f"{trials[0].name}, contrastive: Loss 1. (Likewise seed 2.)"
    assert alarms_of(Plan.of(trials), Told(counts)) == [once, once]


def test_what_filters_left_out_is_told_of_every_seed(recipe):
    given = ['sweep.space={"seed": [1, 2, 3]}', "reference=null", "order=contrastive"]
    trials = expand(load(Experiment, recipe, given))
    counts = {
        (seed, "contrastive"): {
            "filtering/kept_share": kept,
            "filtering/queries": 256,
            "filtering/compute": 0.57,
        }
        for seed, kept in ((1, 0.39), (2, 0.44), (3, 0.39))
    }
    first, second = alarms_of(Plan.of(trials), Told(counts))
    assert "kept 39 % of 256" in first and first.endswith("(Likewise seed 3.)")
    assert "kept 44 % of 256" in second and "ikewise" not in second


def test_a_reference_that_failed_is_named_and_the_others_stay(recipe):
    one = load(Experiment, recipe, ["reference=[BM25, contrastive]", "order=contrastive"])
    rows = [Row("BM25", "first_stage", {}), Row("contrastive", "trained", {}, error="nan")]
    note = "reference 'contrastive' has no row: nothing was tested against it"
    assert references_of(one, rows) == (["BM25"], [note])
    search = one.replace(sweep={"mode": "search", "space": {"stages.contrastive.lr": [1e-3]}})
    assert references_of(search, rows) == ([], [])
