"""Stages that are trained before a study's lists are there: which, once, and in what order."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hard_recipe import FIRST_STAGE, read_hard

from raypipe.commands import job as jobs
from raypipe.commands.compare import plan_of
from raypipe.commands.job import StudyJob
from raypipe.commands.needs import needs_of
from raypipe.commands.preview import preview
from raypipe.commands.result import line_of
from raypipe.config import to_yaml
from raypipe.recipe.trials import expand
from raypipe.sweep.counters import behind
from raypipe.sweep.encoders import encoders_of, still_needed, trained_experiments
from raypipe.sweep.plan import Plan


@pytest.fixture
def read(tmp_path, beir_folder, tiny_backbone):
    return lambda *words: read_hard(tmp_path, beir_folder, tiny_backbone, words)


def test_stages_are_planned_in_the_order_of_all_their_inputs(read):
    words = [
        "stages.again.model={type: bi_encoder, backbone: x}",
        "stages.again.groups={candidates: {type: dense, of: vectors, depth: 20}, negatives: {type: "
        "top_k, count: 3}}",
        "stages.pairs.groups.candidates.of=again",
    ]
    backbone = read().backbone
    experiment = read(words[0].replace("x}", f"{backbone}}}"), *words[1:], *FIRST_STAGE[1:])
    assert experiment.encoders == {"vectors": 0, "again": 1}
    plans = encoders_of(expand(experiment.replace(reference=None)))
    names = [[trial.name for trial in plan.trials] for plan in plans]
    assert names == [["vectors of vectors"], ["vectors of again"]]
    assert [one.stage_names for one in trained_experiments(expand(experiment))] == [
        ("pairs",), ("vectors",), ("again",)
    ]  # fmt: skip


def test_each_distinct_encoder_is_trained_once(read):
    seeds = read("sweep.space={seed: [1, 2], stages.pairs.lr: [1.0e-5, 2.0e-5]}")
    (plan,) = encoders_of(expand(seeds))
    assert len(plan.trials) == len(plan.stages) == 2  # a seed has its own
    assert {stage.seed for stage in plan.stages.values()} == {1, 2}


class Standing:
    """A builder in whose store some steps stand."""

    def __init__(self, *steps) -> None:
        self.digests = {step.digest for step in steps}

    def find(self, step):
        return step if step.digest in self.digests else None


def test_a_deleted_encoder_is_trained_again_only_if_something_needs_it(read):
    trials = expand(read())
    (encoders,), plan = encoders_of(trials), Plan.of(trials)
    metrics = plan.metrics(trials[0])
    assert still_needed(encoders, [metrics], Standing()).trials == encoders.trials
    assert still_needed(encoders, [metrics], Standing(metrics)).trials == []
    stands = Standing(metrics, encoders.last(encoders.trials[0]))
    assert still_needed(encoders, [metrics], stands).trials == encoders.trials


def test_the_encoders_training_queries_are_held_out_too(read):
    """A stage that only retrieves must not have seen validation or test queries either."""
    experiments = trained_experiments(expand(read()))
    assert [one.stage_names for one in experiments] == [("pairs",), ("vectors",)]


def test_a_job_ends_where_an_encoder_failed(read, monkeypatch):
    plans = encoders_of(expand(read()))
    study = SimpleNamespace(encoders_needed=lambda builder, roles: plans)
    monkeypatch.setattr(jobs, "mine_encoders", lambda plan, builder, say: {"groups/vectors": 1})
    job, asked = StudyJob(study, None, None, "run", print), []

    def trained(trials, work, errors):
        asked.append((trials, work.roles, work.tags))
        return errors

    sound = SimpleNamespace(run=lambda trials, work: trained(trials, work, {}))
    assert job._train_encoders(sound, ["test"]) == {"groups/vectors": 1}
    assert asked == [(plans[0].trials, (), {"raypipe.phase": "encoder"})]
    failed = SimpleNamespace(run=lambda *_: {"vectors of vectors": "out of memory"})
    with pytest.raises(RuntimeError, match=r"^vectors of vectors failed, .* by: out of memory$"):
        job._train_encoders(failed, ["test"])


def test_a_dry_run_names_them_and_counts_their_pairs(read, unprobed):
    experiment = read("sweep.space={stages.pairs.lr: [1.0e-5, 2.0e-5]}")
    comparison, builder = plan_of(experiment)
    shown = list(preview(comparison.trials, builder, model=True))
    assert any(line.startswith("groups of pairs: at most 36") for line in shown)
    lines = comparison.plan_lines(builder)
    assert lines[0] == "2 trials, 2 distinct stages"
    assert "before, as lists are made of them: vectors of vectors" in lines
    # 6 steps of 6 groups of 4 documents, of the encoder and of both re-rankers
    (to_do,) = [line for line in lines if line.startswith("to do: ")]
    assert to_do.startswith("to do: 432 pairs to train on, ")


def test_the_line_of_a_trial_names_its_own_checkpoint_and_lists(read):
    """The encoder's checkpoint and its training lists stand behind the lists that are re-ranked."""
    (trial,) = expand(read(*FIRST_STAGE))
    plan = Plan.of([trial])
    standing = SimpleNamespace(find=lambda step: SimpleNamespace(uri=step.digest))
    line = line_of(plan.metrics(trial), standing)
    assert line["checkpoint"] == plan.last(trial).digest
    assert line["candidates"] == trial.experiment.first_stage("test").digest
    assert line["queries"] == trial.experiment.queries("test").digest
    assert line["groups"] == plan.last(trial).groups.digest


def test_what_was_mined_is_counted_without_the_stages_behind_it(read):
    experiment = read()
    steps = {"groups": experiment.training("pairs").groups()}
    standing = SimpleNamespace(find=lambda step: step.kind)
    found = behind(steps, standing)
    assert "checkpoint" not in found.values() and "negatives" in found.values()
    assert any("groups of backbone of doc vectors" in way for way in found)  # of the encoder


def test_pruning_keeps_them(read, tmp_path):
    experiment = read(*FIRST_STAGE)
    (tmp_path / "all.yaml").write_text(to_yaml(experiment))
    kept = needs_of(str(tmp_path / "all.yaml"), experiment.store())
    _, encoder = experiment.encoder("vectors")
    assert {encoder.path, encoder.groups.path, experiment.first_stage("test").path} <= kept
