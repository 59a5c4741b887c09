"""Which model is handed out: alone, or mixed with its first stage."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.runs.combined import GRID, BestInterpolation
from raypipe.stages.stage import Stage
from raypipe.sweep.best import best_of, best_of_trial
from raypipe.sweep.derived import derived_rows
from raypipe.sweep.plan import Plan

MIXED = ["evaluation.ensembles=[interpolation]", "evaluation.untrained=[fusion]"]


class Validated:
    """A builder whose stages have these validation values, and their mixes these by weight."""

    def __init__(self, folder: Path, alone: dict[str, float], mixed: dict) -> None:
        self.folder, self.alone, self.mixed = folder, alone, mixed

    def find(self, step):
        if isinstance(step, Stage):
            value = self.alone.get(step.stage_name)
            return None if value is None else SimpleNamespace(counts={"best": {"nDCG@10": value}})
        assert isinstance(step, BestInterpolation), step
        key = (step.run_step.weights.stage_name, step.fusion is not None)
        if key not in self.mixed:
            return None
        values = [self.mixed[key].get(weight, 0.0) for weight in GRID]
        value, weight = max(zip(values, GRID, strict=True))  # as the step does
        folder = self.folder / "-".join(map(str, key))
        folder.mkdir(exist_ok=True)
        table = pa.table({"weight": list(GRID), "value": values})
        pq.write_table(table, folder / "weights.parquet")
        counts = {"weight": weight, "value": value}
        return SimpleNamespace(counts=counts, local=lambda: folder)

    get = find


@pytest.fixture
def plan(recipe) -> Plan:
    """contrastive, and contrastive -> distil."""
    return Plan.of(expand(load(Experiment, recipe, MIXED)))


ALONE = {"contrastive": 0.6, "distil": 0.5}
FIRST, FUSED = False, True


@pytest.mark.parametrize(
    ("mixed", "name", "weight"),
    [
        ({}, "contrastive", None),  # no mix stands: as without mixes
        # at the depth of the mixes distil is the better one, alone and mixed
        (
            {("contrastive", FIRST): {1.0: 0.3}, ("distil", FIRST): {1.0: 0.4, 0.6: 0.5}},
            "contrastive -> distil + first stage",
            0.6,
        ),
        (
            {("contrastive", FIRST): {1.0: 0.6, 0.2: 0.5}, ("distil", FIRST): {0.6: 0.5}},
            "contrastive",
            None,
        ),
        (
            {("distil", FIRST): {1.0: 0.4, 0.6: 0.5}, ("distil", FUSED): {1.0: 0.4, 0.3: 0.7}},
            "contrastive -> distil + first stage + cosine",
            0.3,
        ),
        # the first stage without any model is no model
        ({("contrastive", FIRST): {0.0: 0.9, 1.0: 0.2}}, "contrastive", None),
        # of equally good ones the simpler
        ({("distil", FUSED): {0.3: 0.7}, ("contrastive", FIRST): {1.0: 0.7}}, "contrastive", None),
    ],
)
def test_the_best_on_validation_queries_is_alone_or_mixed(plan, tmp_path, mixed, name, weight):
    builder = Validated(tmp_path, ALONE, mixed)
    best = best_of(plan, derived_rows(plan, ("interpolation",)), builder)
    assert best.name == name
    said = best.interpolation(builder)
    assert (said and said["weight"]) == weight
    last = plan.last(best.trial)
    assert (best.digest() == last.digest) == (weight is None)
    alone = plan.metrics(best.trial).digest
    assert (best.metrics.digest == alone) == (weight is None)


def test_what_a_mixed_model_needs_is_said_without_folders(plan, tmp_path, tiny_backbone):
    mixed = {("distil", FIRST): {0.6: 0.5}, ("distil", FUSED): {0.3: 0.7}}
    rows = derived_rows(plan, ("interpolation",))
    best = best_of(plan, rows, builder := Validated(tmp_path, ALONE, mixed))
    assert best.interpolation(builder) == {
        "weight": 0.3,
        "scaling": "z",
        "columns": {"first_stage_score": 0.5, "cosine": 0.5},
        "first_stage": "BM25",
        "depth": 10,
        "encoder": tiny_backbone.name,
    }
    del mixed["distil", FUSED]
    said = best_of(plan, rows, builder).interpolation(builder)
    assert said["columns"] == {"first_stage_score": 1.0} and "encoder" not in said


def test_a_mix_without_its_checkpoint_cannot_be_handed_out(plan, tmp_path):
    mixed = {("distil", FIRST): {0.6: 0.9}}
    rows = derived_rows(plan, ("interpolation",))
    best = best_of(plan, rows, Validated(tmp_path, {"contrastive": 0.6}, mixed))
    assert best.name == "contrastive"


def test_one_trial_is_handed_out_as_its_recipe_mixes_it(recipe, tmp_path):
    mixed = {("contrastive", FIRST): {1.0: 0.4, 0.6: 0.5}}
    builder = Validated(tmp_path, ALONE, mixed)
    for ensembles, is_mixed in (("[seeds, interpolation]", True), ("[]", False)):
        given = [f"evaluation.ensembles={ensembles}", "order=contrastive", "sweep.space={}"]
        (trial,) = expand(load(Experiment, recipe, given))
        assert (best_of_trial(trial, builder).mix is not None) == is_mixed
