"""Every example of docs/plug-ins.md, run: what it says is what happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
import yaml
from chunks_here import builder_here
from own_packages import examples, work_in, write
from tiny_training import column, fit, write_data

from raypipe.config import to_yaml
from raypipe.evaluation.measures import means
from raypipe.evaluation.results import MAIN
from raypipe.losses.listwise import InfoNCE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load, merged
from raypipe.sweep.table_rows import per_query
from raypipe.train.group_reader import GroupReader


@pytest.fixture
def own_recipe(recipe, tmp_path, monkeypatch) -> Iterator[Path]:
    """The tiny recipe with every example of the page."""
    files, pieces = examples()
    write(tmp_path, {"my_package/__init__.py": "", **files})
    work_in(tmp_path, monkeypatch)
    tree = yaml.safe_load(recipe.read_text())
    for piece in pieces:
        tree = merged(tree, yaml.safe_load(piece))
    recipe.write_text(yaml.safe_dump(tree, sort_keys=False))
    return recipe


@pytest.fixture
def experiment(own_recipe) -> Experiment:
    return load(Experiment, own_recipe)


def own_choices(experiment: Experiment) -> dict[str, object]:
    stage = experiment.stages["contrastive"]
    return {
        "losses:Margin": stage.loss,
        "samplers:EveryNth": experiment.groups.negatives,
        "filters:Unlike": experiment.groups.filters[0],
        "sources:Overlap": experiment.candidates,
        "teachers:SharedWords": experiment.teacher,
        "optimizers:Momentum": stage.optimizer,
        "objectives:Spread": stage.objective,
    }


def test_the_page_has_an_example_of_every_kind_and_all_are_read(experiment):
    for name, choice in own_choices(experiment).items():
        assert choice.type == f"my_package.{name}"
        assert choice.semantic()["code"] == choice.plugin_origin.code
    assert experiment.measures()[1] == "my_package.measures:Decay(base=3)@10"
    assert experiment.stages["contrastive"].loss.margin == 0.5


def test_a_printed_recipe_reads_back(experiment, tmp_path):
    path = tmp_path / "printed.yaml"
    path.write_text(to_yaml(experiment))
    assert load(Experiment, path) == experiment


def test_source_sampler_filter_and_teacher_mine(experiment, monkeypatch):
    builder = builder_here(experiment.store(), monkeypatch)
    data = experiment.training("contrastive")
    candidates = builder.get(data.candidates())
    lists = candidates.table().to_pylist()
    for row in lists:
        assert row["scores"] == sorted(row["scores"], reverse=True) and len(row["doc_ids"]) <= 20
    assert lists[0]["sources"][0] == "Overlap" and candidates.counts["candidates"] > 0
    negatives = builder.get(data.negatives())
    assert negatives.counts["removed_by_my_package.filters:Unlike"] > 0
    for row in negatives.table().to_pylist():
        ranks = [r for r, rel in zip(row["ranks"], row["relevance"], strict=True) if rel == 0]
        assert len(ranks) <= 3 and ranks == sorted(ranks)
    groups = GroupReader(builder.get(data.groups()).local())
    values = pc.list_flatten(groups.table["teacher_values"]).to_pylist()
    assert min(values) >= 0 and max(values) > 1  # only the bonus leads above 1


def folder(tmp_path: Path) -> Path:
    (made := tmp_path / "groups").mkdir()
    return made


def test_the_measure_is_one_of_the_metrics(experiment, monkeypatch):
    builder = builder_here(experiment.store(), monkeypatch)
    step = experiment.metrics(experiment.first_stage(MAIN))
    values = per_query(builder.get(step))
    name = "my_package.measures:Decay(base=3)@10"
    assert set(values) == {"nDCG@10", name} and len(values[name]) == 12
    lists = builder.get(experiment.first_stage(MAIN)).table().to_pylist()
    for row in lists:
        relevant = f"d{row['query_id'].removeprefix('q').zfill(3)}"
        place = row["doc_ids"][:10].index(relevant) if relevant in row["doc_ids"][:10] else None
        assert values[name][row["query_id"]] == (0.0 if place is None else 3.0**-place)
    artifact = builder.get(step)
    assert artifact.counts["means"][name] == means(artifact.table())[name]
    assert artifact.manifest["spec"]["own_measures"][name]["base"] == 3


def test_loss_objective_and_optimizer_train(experiment, tmp_path, beir_folder, tiny_backbone):
    data = write_data(folder(tmp_path), beir_folder, tiny_backbone)
    stage = experiment.stages["contrastive"].replace(steps=6)
    outcome, *_ = fit(data, tiny_backbone, stage)
    for row in outcome.history:
        if "loss" in row:
            whole = row["terms/ranking"] + 0.2 * row["terms/cosine"]
            assert row["loss"] == pytest.approx(whole, rel=1e-6) and abs(row["terms/cosine"]) <= 1
    assert column(outcome, "terms/ranking")[0] > 0
    fitted, *_ = fit(data, tiny_backbone, stage.replace(objective=None, lr=0.5, steps=30))
    assert column(fitted, "loss")[-1] < column(fitted, "loss")[0]


def test_the_loss_by_hand(experiment):
    loss = experiment.stages["contrastive"].loss
    scores = torch.tensor([[1.0, 0.8, -2.0]], requires_grad=True)
    value = loss(scores, torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[True, True, True]]))
    assert value.item() == pytest.approx(0.5 - 1.0 + 0.8)
    value.backward()
    assert scores.grad.tolist() == [[-1.0, 1.0, 0.0]]


def test_an_objective_without_a_penalty_is_the_loss(
    experiment, tmp_path, beir_folder, tiny_backbone
):
    """To the bit: the same passes, blocks and steps."""
    data = write_data(folder(tmp_path), beir_folder, tiny_backbone)
    spread = experiment.stages["contrastive"].objective.replace(weight=0.0)
    stage = experiment.stages["contrastive"].replace(loss=InfoNCE(), steps=4)
    (own, first, _), (plain, second, _) = (
        fit(data, tiny_backbone, stage.replace(objective=objective)) for objective in (spread, None)
    )
    assert column(own, "loss") == pytest.approx(column(plain, "loss"), rel=1e-6)
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)
