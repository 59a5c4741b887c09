"""Rows that cost no training: seeds together, mean weights, first stage mixed in; and export."""

from __future__ import annotations

import json
import re

import pytest

from raypipe.commands.compare import plan_of, run
from raypipe.commands.export import export
from raypipe.config import ConfigError
from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import by_row, expand
from raypipe.storage.builder import Builder
from raypipe.sweep.derived import derived_rows, joined_seeds
from raypipe.sweep.plan import Plan
from raypipe.sweep.tracked_report import read_report
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
        ("contrastive + first stage", 1),  # one row of two seeds
        ("contrastive + first stage", 1),
    ]
    labels = [row.label for row in rows]
    assert labels[0] == "2 seeds: contrastive"
    assert labels[-2:] == ["contrastive + first stage (one)", "contrastive + first stage (two)"]
    assert [row.name for row in derived_rows(plan, ("average",))] == ["mean weights: contrastive"]
    assert derived_rows(plan, ()) == []


def test_with_the_fusion_every_mix_stands_twice(recipe):
    given = ["evaluation.untrained=[cosine, fusion]", ALL]
    plan = Plan.of(expand(load(Experiment, recipe, [*SEEDS, *given])))
    rows = derived_rows(plan, ("seeds", "interpolation"))
    assert [row.name for row in rows[1:]] == [
        "2 seeds + first stage: contrastive",
        "2 seeds + first stage + cosine: contrastive",
        *["contrastive + first stage", "contrastive + first stage + cosine"] * 2,
    ]
    plain, fused = rows[-2:]
    assert plain.mix.weight().fusion is None and not plain.mix.is_fused
    experiment = plan.trials[-1].experiment
    depth = experiment.evaluation.depth
    scores = [experiment.untrained_scores("fusion", role, depth) for role in ("validation", "test")]
    run = fused.run("test")
    assert [run.weight.fusion.digest, run.fusion.digest] == [step.digest for step in scores]
    assert scores[0].teacher.weight_of_first_stage == 0.5
    assert scores[0].teacher.backbone == experiment.model.backbone


def test_seeds_of_a_mix_are_seeds_of_one_row():
    def row(seed: int, value: float, **more) -> Row:
        results = {"test": [{"nDCG@10": {"q": value}}]}
        runs = {"test": [f"run {seed}"]}
        given = {"seconds": 2.0 * seed, "runs": runs, "reused": seed == 1, "tied": {"test": 1}}
        return Row("x + first stage", "derived", results, (seed,), **{**given, **more})

    other = Row("2 seeds: x", "derived", {"test": [{}]}, (1, 2))
    both, alone = joined_seeds([row(2, 0.4), row(1, 0.3), other])
    assert both.seeds == (1, 2) and both.runs == {"test": ["run 1", "run 2"]}
    assert [seed["nDCG@10"]["q"] for seed in both.results["test"]] == [0.3, 0.4]
    assert (both.seconds, both.reused, both.tied) == (3.0, False, {"test": 2})
    assert alone.name == "2 seeds: x" and alone.seeds == (1, 2)


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
    mixed = lines["contrastive + first stage"]
    assert mixed.row.seeds == (1, 2) and len(mixed.seed_means["nDCG@10"]) == 2
    assert 0 < mixed.means["nDCG@10"] <= lines["oracle"].means["nDCG@10"]
    (weights,) = [line for line in said if line.startswith("contrastive + first stage: the model")]
    assert re.search(r"weighs [\d.]+, [\d.]+, chosen on validation queries$", weights)
    # a further set: the same queries at another depth
    deep = {line.row.name: line for line in result.report.lines["deep"]}
    assert deep.keys() == lines.keys()
    assert deep["BM25"].means["nDCG@10"] == lines["BM25"].means["nDCG@10"]
    again = run(experiment, said.append)
    assert again.report.json()["sets"]["test"]["rows"][-1]["reused"] is True

    def values(result):
        return {k: v for k, v in result.report.lines.items() for v in [[x.means for x in v]]}

    assert values(again) == values(result)
    store = TrackingStore(experiment.tracking.uri)
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
