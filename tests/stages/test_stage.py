"""A stage through Ray Train: a worker that dies changes no bit, a full disk loses no checkpoint,
and FSDP2 saves what it trained.

Five starts of Ray Train.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from tiny_training import column, fit, same, weights, write_data

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.losses.listwise import InfoNCE
from raypipe.models.tokenizer import load_tokenizer
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.records import GROUPS, PAIRWISE_GROUPS
from raypipe.resources import Context, Resources
from raypipe.stages.slots import open_slots
from raypipe.stages.stage import Stage, _news, history
from raypipe.stages.validation import validation_of
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.group_reader import GroupReader

OVERRIDES = ("order=contrastive", "model.hidden_dropout=0.1", "stages.contrastive.steps=10")


CUT_OTHERWISE = "stages.contrastive.dropout_tokens=128"


class DiesOnce(InfoNCE):
    """InfoNCE that ends its process at its n-th call, unless the marker file is there."""

    marker: str
    calls: int

    def per_query(self, *arguments):
        import os
        import signal

        count = int(os.environ.get("RAYPIPE_TEST_CALLS", "0")) + 1
        os.environ["RAYPIPE_TEST_CALLS"] = str(count)  # of this process
        if count == self.calls and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().per_query(*arguments)


@pytest.fixture(scope="module")
def path(tmp_path_factory, write_recipe) -> Path:
    return write_recipe(tmp_path_factory.mktemp("stage"))


def stage_of(path: Path, *overrides: str) -> tuple[Stage, Experiment]:
    experiment = load(Experiment, path, [*OVERRIDES, *overrides])
    return experiment.trained(), experiment


@pytest.fixture(scope="module")
def slots(cluster, tmp_path_factory):
    """One slot of two processes for all stages of this file; a process that dies has a new one."""
    with open_slots(Store(str(tmp_path_factory.mktemp("slots"))), shared=False) as opened:
        yield opened


@pytest.fixture
def build(slots):
    def made(experiment: Experiment, stage: Stage, **resources):
        settings = Resources(workers=2, cpus_per_worker=1, **resources)
        context = Context(settings, "fp32", progress_bars=False, slots=slots)
        return Builder(experiment.store(), context).get(stage)

    return made


@pytest.mark.ray
def test_a_worker_that_dies_changes_no_bit(mined, path, tmp_path, build):
    """The whole stage is the second of its processes, which end the first one after a death."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers know no tests
    marker = tmp_path / "died"
    trained = {}
    for name in ("broken", "whole"):  # the second finds the marker
        folder = tmp_path / name
        before = mined if name == "broken" else tmp_path / "broken"
        shutil.copytree(before, folder, ignore=shutil.ignore_patterns("checkpoint", ".*"))
        stage, experiment = stage_of(
            path, f"storage={folder}", "stages.contrastive.checkpoint_every=2"
        )
        loss = DiesOnce(marker=str(marker), calls=8)
        stage = dataclasses.replace(stage, config=stage.config.model_copy(update={"loss": loss}))
        artifact = build(experiment, stage, worker_failures=1)
        weights = (artifact.local() / "model.safetensors").read_bytes()
        trained[name] = (artifact, hashlib.sha256(weights).hexdigest())
        directories = [p for p in artifact.local().parent.iterdir() if p.is_dir()]
        assert directories == [artifact.local()]  # no checkpoint of an unfinished stage remains
    broken, whole = trained["broken"], trained["whole"]
    assert len(broken[0].counts["resumed_from"]) == 1 and whole[0].counts["resumed_from"] == []
    assert 2 <= broken[0].counts["resumed_from"][0] <= 7  # not from the beginning
    assert broken[1] == whole[1]
    assert history(broken[0]) == history(whole[0])


class FullDisk(Checkpoints):
    """Takes the first checkpoint and then no more."""

    def _put(self, path, data):
        if "/step-00000002-" not in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super()._put(path, data)


@pytest.mark.ray
def test_an_upload_that_fails_is_loud_and_costs_the_steps_since_the_last(
    mined_recipe, monkeypatch, build
):
    """It is written in a thread behind the training; the same command goes on afterwards."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    stage, experiment = stage_of(mined_recipe, "stages.contrastive.checkpoint_every=2")
    real = Stage.checkpoints

    def full(self, attempt):
        return FullDisk(**vars(real(self, attempt)))

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "checkpoints", full)
        with pytest.raises(
            Exception, match=r"storage: the checkpoint of step 4.*No space"
        ) as raised:
            build(experiment, stage, worker_failures=0)
    assert "the same command goes on from step 2" in str(raised.value)
    artifact = build(experiment, stage)
    assert artifact.counts["resumed_from"] == [2] and artifact.counts["steps"] == 10


@pytest.mark.ray
def test_fsdp_saves_a_whole_model(mined_recipe, build):
    """What is saved has every weight, and ranks as well as its validation said."""
    stage, experiment = stage_of(mined_recipe, "stages.contrastive.checkpoint_every=4")
    artifact = build(experiment, stage, strategy="fsdp")
    losses = [row["loss"] for row in history(artifact) if "loss" in row]
    assert len(losses) == len(set(losses)) == 10
    assert artifact.counts["drift"] > 0 and artifact.counts["workers"] == 2
    builder = Builder(experiment.store())
    inputs = {name: builder.get(step) for name, step in stage.inputs().items()}
    folder = artifact.local()
    model = stage.model.load(folder, 99, training=False, device="cpu")
    template = Template.of(load_tokenizer(folder))
    values = validation_of(stage, inputs).run(
        model, lambda m: PairScorer(m, template, stage.truncation, 2048, "fp32", "cpu")
    )
    assert values == pytest.approx(artifact.counts["best"], abs=1e-6)


# --- before Ray starts ---------------------------------------------------------------------------


def groups(
    folder: Path,
    teacher: list[float] | None,
    count: int = 36,
    best: int = 3,
    pairs: list[tuple[int, int, float]] | None = None,
) -> GroupReader:
    """As many equal groups of a positive of that relevance and two negatives.

    Args:
        pairs: (first, second, probability) of a pairwise teacher; None is another one.
    """
    names = ("first", "second", "probabilities")
    comparisons = {name: [pair[i] for pair in pairs or ()] for i, name in enumerate(names)}
    row = {"query_index": 0, "doc_indices": [0, 1, 2], "relevance": [best, 0, -1], "ranks": [1] * 3}
    rows = [{**row, **comparisons, "teacher_values": teacher}] * count
    table = pa.Table.from_pylist(rows, schema=GROUPS if pairs is None else PAIRWISE_GROUPS)
    folder.mkdir()
    with pa.ipc.new_file(str(folder / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    return GroupReader(folder)


def test_groups_without_teacher_values(path, tmp_path):
    experiment = load(Experiment, path, ["order=distil", f"storage={tmp_path}"])
    stage = experiment.trained()
    stage.check(groups(tmp_path / "with", [1.0, -1.0, 0.0]), 4096, use_gpu=False)
    with pytest.raises(ConfigError, match=r"stages\.distil\.loss: margin_mse.*set `teacher`"):
        stage.check(groups(tmp_path / "without", None), 4096, use_gpu=False)


def test_groups_that_fill_no_step(path, tmp_path):
    """They would be repeated within a step, and an epoch would be several."""
    stage, _ = stage_of(path, "stages.contrastive.limit=9")
    stage.check(groups(tmp_path / "enough", None, 6), 4096, use_gpu=False)
    few = groups(tmp_path / "few", None, 5)
    with pytest.raises(ConfigError) as error:
        stage.check(few, 4096, use_gpu=False)
    assert str(error.value) == (
        "stages.contrastive.queries_per_step: 5 groups are fewer than one step of "
        "queries_per_step=6 takes, so that it would repeat them; lower queries_per_step, or use "
        "more groups"
    )


SUM = "{type: weighted_sum, terms: {a: {loss: {type: kl}}, b: {loss: %s}}}"
GAINS = "{type: approx_ndcg, targets: teacher}"


@pytest.mark.parametrize("loss", [GAINS, GAINS.replace("approx_ndcg", "lambda"), SUM % GAINS])
def test_teacher_values_that_are_no_gains(path, tmp_path, tiny_backbone, loss):
    teacher = f"teacher={{type: bi_encoder, backbone: '{tiny_backbone}'}}"
    overrides = ["order=distil", f"storage={tmp_path}", f"stages.distil.loss={loss}", teacher]
    stage = load(Experiment, path, overrides).trained()
    stage.check(groups(tmp_path / "gains", [4.0, float("nan"), 0.0]), 4096, use_gpu=False)
    logits = groups(tmp_path / "logits", [4.0, float("nan"), -0.5])
    with pytest.raises(ConfigError, match=r"stages\.distil\.loss: .*at least 0, found -0\.5; use"):
        stage.check(logits, 4096, use_gpu=False)


def test_grades_that_are_no_exponential_gains(path, tmp_path):
    loss = "{type: lambda, gain: exponential}"
    stage, _ = stage_of(path, f"stages.contrastive.loss={loss}")
    stage.check(groups(tmp_path / "graded", None), 4096, use_gpu=False)
    hundred = groups(tmp_path / "hundred", None, best=100)
    with pytest.raises(ConfigError, match=r"stages\.contrastive\.loss: gain=exponential .*100"):
        stage.check(hundred, 4096, use_gpu=False)


def test_a_pairwise_teacher_that_compared_nothing_here(path, tmp_path):
    overrides = ["order=distil", f"storage={tmp_path}", "stages.distil.loss={type: pair_kl}"]
    stage = load(Experiment, path, overrides).trained()
    values = [1.0, 0.5, 0.0]
    stage.check(groups(tmp_path / "scores", values), 4096, use_gpu=False)
    stage.check(groups(tmp_path / "pairs", values, pairs=[(0, 2, 0.9)]), 4096, use_gpu=False)
    with pytest.raises(ConfigError, match=r"distil\.loss: pair_kl .*no two documents of one group"):
        stage.check(groups(tmp_path / "none", values, pairs=[]), 4096, use_gpu=False)


def test_a_budget_below_one_pair(path, tmp_path):
    stage, _ = stage_of(path, "truncation.max_length=300", "model.hidden_dropout=0")
    some = groups(tmp_path / "groups", None)
    stage.check(some, 300, use_gpu=False)
    with pytest.raises(ConfigError, match=r"resources\.micro_batch_tokens: 299 are fewer.*300"):
        stage.check(some, 299, use_gpu=False)


def test_fp16_needs_a_gpu(path, tmp_path):
    stage, _ = stage_of(path, "precision=fp16")
    some = groups(tmp_path / "groups", None)
    stage.check(some, 4096, use_gpu=True)
    with pytest.raises(ConfigError, match=r"precision: fp16 needs a GPU"):
        stage.check(some, 4096, use_gpu=False)


def test_what_changes_no_result_is_not_in_the_digest(path):
    plain, _ = stage_of(path)
    for key in ("checkpoint_every=5", "checkpoints_kept=4", "compile=true", "deterministic=true"):
        assert stage_of(path, f"stages.contrastive.{key}")[0].digest == plain.digest
    assert stage_of(path, "resources.strategy=fsdp")[0].digest == plain.digest
    for key in ("eps=1e-6", "warmup_steps=2", "freeze.layers=1", "schedule.type=cosine"):
        assert stage_of(path, f"stages.contrastive.{key}")[0].digest != plain.digest


def test_a_start_that_ranks_is_offered_to_selection(path):
    """It is in the digest of the stages to which it applies, and in no other."""
    fresh, _ = stage_of(path)
    second, _ = stage_of(path, "order=contrastive -> distil")
    similar, _ = stage_of(path, "model.head=similarity")
    assert [stage.offers_start for stage in (fresh, second, similar)] == [False, True, True]
    assert "offers_start" not in fresh.spec() and second.chain()[0].digest == fresh.digest
    assert second.spec()["offers_start"] is similar.spec()["offers_start"] is True


# --- dropout draws per padded batch ---------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)


def budget_of(stage: Stage, tokens: int, tmp_path: Path, monkeypatch) -> int:
    """What the stage's workers are given where the resources allow so many tokens."""
    given = []

    def run(work, *_):
        given.append(work.budget)
        raise InterruptedError

    monkeypatch.setattr(Resources, "use_gpu", lambda self: False)
    monkeypatch.setattr(Stage, "check", lambda self, groups, budget, *, use_gpu: None)
    mined: Any = SimpleNamespace(local=lambda: tmp_path / "groups", checksum="", step_path="")
    slots: Any = SimpleNamespace(run=run)
    context = Context(Resources(cpus_per_worker=1, micro_batch_tokens=tokens), "fp32", slots=slots)
    with (
        pytest.raises(InterruptedError),
        Store(str(tmp_path)).attempt(stage, {"groups": mined}) as attempt,
    ):
        stage.run(attempt, context)
    return given[0]


@pytest.mark.parametrize("dropout", [0.1, 0.0])
def test_micro_batch_tokens_change_no_result(
    path, data, tiny_backbone, tmp_path, monkeypatch, dropout
):
    """Without dropout up to rounding, with dropout not one bit."""
    groups(tmp_path / "groups", None)
    stage, _ = stage_of(path, f"model.hidden_dropout={dropout}")
    trained = []
    for tokens in (64, 512, 100_000):
        budget = budget_of(stage, tokens, tmp_path, monkeypatch)
        outcome, model, _ = fit(data, tiny_backbone, budget=budget, dropout=dropout)
        trained.append((weights(model), column(outcome, "loss")))
    for other in trained[1:]:
        assert not dropout or same(trained[0][0], other[0])
        assert other[1] == pytest.approx(trained[0][1], rel=1e-4)


def test_what_cuts_a_stage_with_dropout_is_in_its_digest_and_in_no_other(path):
    for dropout, decides in (("0.1", True), ("null", True), ("0.0", False)):
        field = f"model.hidden_dropout={dropout}"
        plain, other = (stage_of(path, field, *more)[0] for more in ([], [CUT_OTHERWISE]))
        assert (plain.digest != other.digest) == decides
        assert ("dropout_tokens" in plain.spec()) == decides
    attention = ("model.hidden_dropout=0", "model.attention_dropout=0.1")
    assert stage_of(path, *attention)[0].spec()["dropout_tokens"] == 4096


def test_a_pair_longer_than_the_cut_is_in_memory_all_the_same(path):
    stage, _ = stage_of(path, CUT_OTHERWISE, "truncation.max_length=300")
    assert (stage.tokens_at_a_time(64), stage.spec()["dropout_tokens"]) == (300, 128)


def test_as_many_checkpoints_are_kept_as_the_recipe_says(path, tmp_path):
    for kept in (1, 4):
        stage, _ = stage_of(path, f"stages.contrastive.checkpoints_kept={kept}")
        with Store(str(tmp_path)).attempt(stage, {}) as attempt:
            assert stage.checkpoints(attempt).keep == kept


def test_two_writers_of_a_stage_have_a_folder_each_and_read_the_others(path, tmp_path):
    stage, _ = stage_of(path)
    store = Store(str(tmp_path))
    with store.attempt(stage, {}) as first, store.attempt(stage, {}) as second:
        mine, other = stage.checkpoints(first), stage.checkpoints(second)
        assert mine.base != other.base and other.base in mine.earlier and mine.base in other.earlier
        old = f"{store.root}/{stage.path}/train-{stage.digest}"  # of raypipe 0.1
        assert old in mine.earlier


def test_reports_are_forwarded_once():
    forwarded = []
    forward = _news("abc", lambda digest, metrics: forwarded.append((digest, metrics["rows"])))
    rows = [{"step": 1, "loss": 2.0}, {"step": 1, "val/nDCG@10": 0.5}, {"step": 2, "loss": 1.0}]
    forward({"rows": rows[:2]})
    forward({"rows": rows})  # of workers that were started again
    assert forwarded == [("abc", rows[:2]), ("abc", rows[2:])]
    assert json.dumps(forwarded)
