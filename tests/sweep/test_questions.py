"""Rates that validation queries choose before a comparison. Three starts of Ray Train."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from raypipe.commands.compare import plan_of, run
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import by_row, expand
from raypipe.sweep.plan import Plan
from raypipe.sweep.questions import answer, candidates_of, questions

RATES = [1e-4, 1e-3]
SELECT = {"stages.contrastive.lr": RATES, "stages.distil.lr": RATES}


def read(recipe, space, select=SELECT, *more: str) -> Experiment:
    given = json.dumps({"space": space, "select": select})
    return load(Experiment, recipe, [f"sweep={given}", *more])


class Standing:
    """A builder in whose store every candidate stands, with the best validation of its rate."""

    def __init__(self, worth) -> None:
        self.worth = worth

    def find(self, stage):
        value = self.worth(stage)
        return None if value is None else SimpleNamespace(counts={"best": {"nDCG@10": value}})


def test_what_is_asked_once_is_trained_once(recipe):
    space = {"order": ["contrastive", "distil", "contrastive -> distil"], "seed": [1, 2, 3]}
    one = read(recipe, space, SELECT, "reference=contrastive")
    trials = expand(one)
    asked = questions(one, trials)
    assert len(trials) == 9 and len(asked) == 12  # two stages of three seeds' two-stage trials
    assert {q.name for q in asked.values()} == {"contrastive", "distil"}
    candidates = candidates_of(asked).trials
    assert [c.name for c in candidates] == [
        "select / contrastive / lr=0.0001",
        "select / contrastive / lr=0.001",
        "select / distil / lr=0.0001",
        "select / distil / lr=0.001",
    ]
    assert {c.experiment.seed for c in candidates} == {1}
    assert all(len(c.experiment.stage_names) == 1 for c in candidates)


def test_whatever_else_varies_is_asked_for_itself(recipe):
    losses = {"infonce": {"type": "infonce"}, "hinge": {"type": "hinge"}}
    one = read(
        recipe,
        {"stages.contrastive.loss": losses, "order": ["contrastive"], "seed": [1, 2]},
        {"stages.contrastive.lr": RATES},
        "reference=infonce / contrastive",
    )
    asked = questions(one, expand(one))
    assert {q.name for q in asked.values()} == {"infonce / contrastive", "hinge / contrastive"}
    assert len(candidates_of(asked).trials) == 4


def test_a_candidate_of_several_questions_is_trained_once(recipe):
    """Both questions try infonce, which has no margin: three stages, not four."""
    losses = {"H1": {"type": "hinge", "margin": 0.1}, "H2": {"type": "hinge", "margin": 0.2}}
    experiment = read(
        recipe,
        {"stages.contrastive.loss": losses, "order": ["contrastive"]},
        {"stages.contrastive.loss.type": ["hinge", "infonce"]},
        "reference=H1 / contrastive",
    )
    asked = questions(experiment, expand(experiment))
    assert sum(len(question.candidates.trials) for question in asked.values()) == 4
    plan = candidates_of(asked)
    assert len(plan.trials) == len(plan.stages) == len({t.name for t in plan.trials})
    assert {digest for q in asked.values() for digest in q.digests} == plan.stages.keys()
    assert len(plan.trials) < 4


def test_the_best_validation_decides_per_stage_and_is_reused(recipe):
    space = {"order": ["contrastive", "contrastive -> distil"], "seed": [1, 2]}
    one = read(recipe, space, SELECT, "reference=contrastive")
    trials = expand(one)
    asked = questions(one, trials)
    best = {"contrastive": 1e-4, "distil": 1e-3}
    worth = Standing(lambda stage: 0.5 + (stage.config.lr == best[stage.stage_name]) / 4)
    answers = answer(trials, asked, worth, {})
    chosen = answers.trials
    assert answers.errors == {}
    for trial in chosen:
        for name in trial.experiment.stage_names:
            assert trial.experiment.stages[name].lr == best[name]
            assert trial.chosen[f"stages.{name}.lr"] == best[name]
    assert [t.name for t in chosen] == [t.name for t in trials]
    assert by_row(chosen).keys() == {"contrastive", "contrastive -> distil"}
    ready = candidates_of(asked).stages.keys()
    stages = Plan.of(chosen).stages
    assert len(stages) == 4 and len(ready & stages.keys()) == 1  # the first seed's first stage
    assert answers.sentences[0].startswith(
        "contrastive: lr 0.0001 chosen by validation nDCG@10 (0.0001: 0.750"
    )


def test_ties_failures_and_nothing_left(recipe):
    one = read(recipe, {"order": ["contrastive"]}, {"stages.contrastive.lr": RATES})
    trials = expand(one)
    asked = questions(one, trials)
    (tie,) = answer(trials, asked, Standing(lambda stage: 0.5), {}).trials
    assert tie.experiment.stages["contrastive"].lr == RATES[0]
    lost = {"select / contrastive / lr=0.0001": "NaN"}
    (other,) = answer(trials, asked, Standing(lambda stage: 0.5), lost).trials
    assert other.experiment.stages["contrastive"].lr == RATES[1]
    answers = answer(trials, asked, Standing(lambda stage: None), lost)
    assert answers.trials == trials and answers.sentences == []
    assert answers.errors == {"contrastive": "sweep.select: every value of contrastive failed: NaN"}


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"stages.contrastiv.lr": [1]}, "no trial has a stage 'contrastiv'; did you mean 'contr"),
        ({"lr": [1]}, "sweep.select.lr: expected a key stages.NAME.FIELD"),
        ({"stages.distil.lr": []}, "expected a key stages.NAME.FIELD with a list of values"),
        ({"stages.contrastive.lr": [7]}, "stages.contrastive.lr=7: stages.contrastive.lr: input"),
        ({"stages.contrastive.lrr": [1]}, "unknown key 'lrr'; did you mean 'lr'?"),
    ],
)
def test_wrong_keys_are_named_before_work(recipe, select, expected):
    with pytest.raises(ConfigError) as error:
        plan_of(read(recipe, {"order": ["contrastive"]}, select))
    assert expected in str(error.value)


def test_the_plan_says_what_is_chosen_before(recipe, unprobed):
    one = read(recipe, {"order": ["contrastive"]}, {"stages.contrastive.lr": RATES})
    comparison, builder = plan_of(one)
    lines = comparison.plan_lines(builder)
    assert lines[2] == (
        "before: 2 short comparisons on validation queries choose stages.contrastive.lr"
    )


@pytest.mark.ray
def test_a_comparison_with_chosen_rates(swept_recipe, unprobed):
    """Two candidates, of which one is the first stage of both trials and stands, as does the
    second stage."""
    select = {"stages.contrastive.lr": [1e-9, 3e-3]}
    one = read(swept_recipe, {"order": ["contrastive", "contrastive -> distil"]}, select)
    said: list[str] = []
    result = run(one, said.append)
    assert result.counts["stages"] == {"distinct": 3, "trained": 1}
    row = next(r for r in result.report.rows if r.name == "contrastive")
    assert row.stages[0].lr == 3e-3
    note = next(n for n in result.report.notes if "chosen by validation" in n)
    assert note.startswith("contrastive: lr 0.003") and "1e-09" in note
    runs = list((swept_recipe.parent / "storage" / "run").glob("*contrastive*"))
    assert len(runs) == 2  # a value that was not chosen never saw the test queries
