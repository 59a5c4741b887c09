"""Rows that cost no training: seeds together, mean weights, first stage mixed in; and export."""

from __future__ import annotations

import json

import pytest

from raypipe.commands.compare import plan_of, run
from raypipe.commands.export import export
from raypipe.config import ConfigError
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import by_row, expand
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import derived_rows
from raypipe.sweep.plan import Plan
from raypipe.sweep.tracked_rows import read_report
from raypipe.tracking.stored_runs import TrackingStore

SEEDS = [
    'sweep.space={"seed": {"one": 1, "two": 2}}',
    "reference=contrastive",
    "order=contrastive",
]
ALL = "evaluation.ensembles=[seeds, average, interpolation]"


def test_rows_are_named_after_what_they_combine(recipe):
    plan = Plan.of(expand(load(Experiment, recipe, [*SEEDS, ALL])))
    rows = derived_rows(plan, ("seeds", "average", "interpolation"))
    assert [(row.name, len(row.plan.trials)) for row in rows] == [
        ("2 seeds: contrastive", 2),
        ("mean weights: contrastive", 2),
        ("2 seeds + first stage: contrastive", 2),
        ("one + first stage", 1),
        ("two + first stage", 1),
    ]
    assert [row.name for row in derived_rows(plan, ("average",))] == ["mean weights: contrastive"]
    assert derived_rows(plan, ()) == []


def test_sets_differ_in_their_seed_only(recipe):
    space = '{"seed": [1, 2], "stages.contrastive.lr": {"slow": 1e-4, "fast": 1e-3}}'
    given = [f"sweep.space={space}", "reference=slow", "order=contrastive"]
    sets = by_row(expand(load(Experiment, recipe, given)))
    assert {name: len(one) for name, one in sets.items()} == {"slow": 2, "fast": 2}


def test_seeds_without_seeds_are_an_error_before_work(recipe):
    experiment = load(Experiment, recipe, ["evaluation.ensembles=[average]"])
    with pytest.raises(ConfigError, match=r"average needs trials that differ only in their seed"):
        plan_of(experiment)


@pytest.mark.ray
def test_a_sweep_with_derived_rows_and_its_export(swept_recipe, unprobed, tmp_path):
    from sentence_transformers import CrossEncoder

    data = load(Experiment, swept_recipe).data.test.dataset
    deep = f"{{queries: {{dataset: '{data}', split: test}}, depth: 15, measures: [nDCG@10]}}"
    experiment = load(Experiment, swept_recipe, [*SEEDS, ALL, f"evaluation.sets={{deep: {deep}}}"])
    said: list[str] = []
    result = run(experiment, said.append)
    lines = {line.row.name: line for line in result.report.lines["test"]}
    assert result.counts["stages"] == {"distinct": 2, "trained": 1}  # seed 1 stands
    both, seeds = lines["2 seeds: contrastive"].row, lines["contrastive"]
    assert both.kind == "derived" and both.pairs == 2 * seeds.row.pairs
    assert seeds.row.seeds == (1, 2) and len(seeds.seed_means["nDCG@10"]) == 2
    assert seeds.means["nDCG@10"] == pytest.approx(sum(seeds.seed_means["nDCG@10"]) / 2)
    assert lines["mean weights: contrastive"].means.keys() == seeds.means.keys()
    # the mixture can choose the model alone, and test queries do not choose: only bounds hold
    assert 0 < lines["one + first stage"].means["nDCG@10"] <= lines["oracle"].means["nDCG@10"]
    # a further set: the same queries at another depth
    deep = {line.row.name: line for line in result.report.lines["deep"]}
    assert deep.keys() == lines.keys()
    assert deep["BM25"].means["nDCG@10"] == lines["BM25"].means["nDCG@10"]
    again = run(experiment, said.append)
    assert again.report.json()["sets"]["test"]["rows"][-1]["reused"] is True

    def values(result):
        return {k: v for k, v in result.report.lines.items() for v in [[x.means for x in v]]}

    assert values(again) == values(result)
    store = TrackingStore(experiment.tracking)
    read = read_report(store, store.job("tiny"))
    assert read.json()["sets"] == again.report.json()["sets"]
    (trial, _) = expand(experiment)
    folder = tmp_path / "model"
    export(trial, Builder(experiment.store()), folder)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "sentence-transformers" in card
    assert f"{seeds.seed_means['nDCG@10'][0]:.4f}" in card
    assert not (folder / "trainer.json").exists()
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    score = CrossEncoder(str(folder), device="cpu").predict([("a", "b")])
    assert score.shape == (1,)
