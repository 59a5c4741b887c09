"""What a plan would cost, by hand; the probe itself runs on the tiny model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from families import folder_of

from raypipe.commands import cost as estimate
from raypipe.commands.cost import cost_of
from raypipe.commands.probe import Cost, group_size, measure, probe, stage_folder
from raypipe.models.backbone import Backbone
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.builder import Builder
from raypipe.sweep.plan import Plan


def plan(recipe, *more: str) -> tuple[Plan, Builder]:
    one = load(Experiment, recipe, more)
    return Plan.of(expand(one)), Builder(one.store())


def test_pairs_by_hand(recipe):
    found, builder = plan(recipe)
    costs = {s.stage_name: cost_of(s, builder) for s in found.stages.values()}
    # 12 and 4 steps of 6 queries with 1 + 3 documents; 12 validation queries to depth 10, distil's
    # start among its validations
    assert (costs["contrastive"].pairs, costs["contrastive"].validation_pairs) == (288, 240)
    assert (costs["distil"].pairs, costs["distil"].validation_pairs) == (96, 240)
    assert {group_size(s) for s in found.stages.values()} == {4}


def test_epochs_count_the_queries_that_have_a_positive(recipe):
    found, builder = plan(
        recipe, "order=contrastive", "stages.contrastive.steps=null", "sweep.space={}"
    )
    (stage,) = found.stages.values()
    assert cost_of(stage, builder).pairs == 36 // 6 * 6 * 4


def test_minutes_by_hand(recipe, monkeypatch):
    monkeypatch.setattr(estimate, "probe", lambda *_: Cost(1.0, 0.5, 3 << 30))
    monkeypatch.setattr(estimate, "_threads", lambda *_: (1, 2))
    lines = estimate.estimate(*plan(recipe))
    assert lines[0] == ("to do: 384 pairs to train on, 480 to validate on, 240 to test on, at most")
    # (384 * 1 s + (480 + 240) * .5 s + 2 starts of 20 s) / 2 at a time
    assert (
        "at most 7 minutes" in lines[1] and pytest.approx(6.53, 0.01) == (384 + 360 + 40) / 2 / 60
    )
    assert "3.0 GB per training worker, 2 at a time" in lines[1]


def test_a_stage_with_dropout_is_probed_as_it_is_cut(recipe, monkeypatch):
    budgets = []

    def measured(stage, threads, budget, batch_tokens):
        budgets.append(budget)
        return Cost(1.0, 0.5, 3 << 30)

    monkeypatch.setattr(estimate, "probe", measured)
    monkeypatch.setattr(estimate, "_threads", lambda *_: (1, 2))
    given = ("resources.micro_batch_tokens=256", "sweep.space={}", "order=contrastive")
    for dropout in ("0.0", "0.1"):
        estimate.estimate(*plan(recipe, f"model.hidden_dropout={dropout}", *given))
    assert budgets == [256, 4096]


def test_a_probe_that_fails_leaves_the_pairs(recipe, monkeypatch):
    monkeypatch.setattr(estimate, "probe", lambda *_: None)
    lines = estimate.estimate(*plan(recipe))
    assert len(lines) == 2 and lines[1] == "time not measured: the probe failed here"


def test_a_model_of_the_hub_is_measured_where_it_is_cached(recipe, tmp_path, monkeypatch):
    backbone = Backbone("some/model")
    backbone._memo["revision"] = "abc"
    stage = SimpleNamespace(chain=lambda: [SimpleNamespace(start=backbone)])
    asked = []

    def cached(source: str, **given: object) -> str:
        asked.append((source, given["revision"], given["local_files_only"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", cached)
    assert stage_folder(stage) is None  # its configuration alone
    (tmp_path / "model.safetensors").touch()
    assert stage_folder(stage) == str(tmp_path)
    assert set(asked) == {("some/model", "abc", True)}


def test_a_plan_says_why_no_time_was_measured(recipe, monkeypatch):
    monkeypatch.setattr(estimate, "stage_folder", lambda stage: None)
    monkeypatch.setattr(estimate, "probe", lambda *_: None)
    lines = estimate.estimate(*plan(recipe))
    assert lines[1] == "time not measured: tiny-bert is not on this machine yet"
    lines = estimate.estimate(*plan(recipe, "resources.gpu=true"))
    assert lines[1] == "time not measured: no GPU can be, before the cluster gives one"


def test_the_probe_measures_this_machine(recipe):
    found, _ = plan(recipe)
    cost = probe(next(iter(found.stages.values())), 1, 4096, 2048)
    assert cost is not None
    assert 0 < cost.score_s < 1 and 0 < cost.train_s < 1
    assert 100e6 < cost.memory < 20e9


def test_what_was_measured_is_not_measured_again_that_day(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    measured = Cost(0.25, 0.125, 1 << 30)
    asked: list[str] = []

    def process(command, *, input, **_):
        asked.append(input)
        return SimpleNamespace(stdout=f"a warning\n{json.dumps(vars(measured))}\n")

    monkeypatch.setattr(subprocess, "run", process)
    (stage, *_) = plan(recipe)[0].stages.values()
    assert [probe(stage, 1, 4096, 2048) for _ in range(2)] == [measured] * 2 and len(asked) == 1
    assert probe(stage, 2, 4096, 2048) == measured and len(asked) == 2  # another question
    memos = sorted((tmp_path / "home" / "probes").iterdir())
    assert [oct(memo.stat().st_mode & 0o777) for memo in memos] == ["0o600"] * 2
    yesterday = time.time() - 86_401
    os.utime(memos[0], (yesterday, yesterday))
    memos[1].write_text('{"train_s": 1')
    assert probe(stage, 1, 4096, 2048) == probe(stage, 2, 4096, 2048) == measured
    assert len(asked) == 4
    (Path(stage_folder(stage)) / "config.json").touch()
    assert probe(stage, 1, 4096, 2048) == measured and len(asked) == 5  # another model, maybe


def test_triples_are_counted_when_they_are_mined(recipe, tmp_path):
    file = tmp_path / "t.tsv"
    file.write_text("q00\td000\td001\n")
    given = f"groups={{triples: {{type: triples, path: {file}}}}}"
    found, builder = plan(recipe, given, "order=contrastive", "sweep.space={}")
    lines = estimate.estimate(found, builder)
    assert re.match("no estimate: how many groups contrastive has is known", lines[0])


@pytest.mark.parametrize("head", ["similarity", "classifier"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_every_head_is_measured(family, head):
    """A similarity head of some families tells query and document apart by token types."""
    folder = str(folder_of(family))
    question = {
        "folder": folder,
        "model": {"type": "cross_encoder", "backbone": folder, "head": head},
        "length": 24,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "threads": 1,
        "budget": 192,
        "batch_tokens": 48,
    }
    cost = measure(question, train_s=0.01, score_s=0.01)
    assert cost.train_s > 0 and cost.score_s > 0 and cost.memory > 1 << 20


def test_queries_that_are_not_written_have_no_number(recipe, beir_folder):
    """A filter's rules hold a mapping, and what is not written is not read."""
    rules = "filter: {retrievers: {bm25: {type: bm25}}, within: 20}"
    train = f"data.train={{type: synthetic, dataset: 'beir:{beir_folder}', {rules}}}"
    (line,) = estimate.estimate(*plan(recipe, train))
    assert line.startswith("no estimate: how many groups contrastive, distil has is known")
