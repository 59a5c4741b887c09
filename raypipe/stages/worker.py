"""What every worker of a slot does for a stage: load, train, and on rank 0 write the checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raypipe.groups.kept_out import read_step_texts
from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import joined_reader
from raypipe.inference.vector_pairs import template_of
from raypipe.losses.base import Loss
from raypipe.losses.combination import over_group_and_step
from raypipe.models.freeze import compiled, enable_gradient_checkpointing, freeze
from raypipe.models.pooler import untrained_pooler
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.stages.messages import Saver, Tell, reporter, speaker
from raypipe.stages.output import documents_cut, write_checkpoint
from raypipe.stages.validating import validate_of
from raypipe.stages.validation import validation_of
from raypipe.storage.artifacts import Artifact
from raypipe.train.alarms import Alarms, cut_sentence
from raypipe.train.batches import Batcher, Targets
from raypipe.train.drift import copy_of_trainable, drift, drift_sentence
from raypipe.train.group_reader import GroupReader
from raypipe.train.loop import train
from raypipe.train.parallel import agree, bare, load_whole, shard, sharded, whole_state
from raypipe.train.selection import TrainingOutcome
from raypipe.train.text_batches import TextBatcher
from raypipe.train.token_budget import GpuMemory, measured_budget, training_record


def train_worker(config: Mapping[str, Any], tell: Tell) -> None:
    """Train a stage in this process, one of those that Ray Train started.

    Args:
        config: the fields of `StageWork`.
    """
    import ray.train
    from ray.train.torch import get_device

    stage = config["stage"]
    inputs: dict[str, Artifact] = config["attempt"].inputs
    rank = ray.train.get_context().get_world_rank()
    make_deterministic(stage.config.deterministic)
    start = inputs["start"].local()
    device = str(get_device()) if config["use_gpu"] else "cpu"
    torch.manual_seed(stage.seed * 1000 + rank)  # dropout masks differ between workers
    model = stage.model.load(start, stage.seed, training=True, device=device)
    facts: dict[str, Any] = {"frozen": freeze(model, **stage.config.freeze.model_dump())}
    pooler = untrained_pooler(model)
    if stage.config.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    budget = _token_budget(model, config)
    wrapped = _prepared(model, stage.config, config["strategy"], device)
    before = copy_of_trainable(model)
    template = template_of(stage.model, start)
    validation = validation_of(stage, inputs)
    say = speaker(config["label"], rank)
    # over a pool the model ranks fewer documents than the first stage did
    first = validation.first_stage() if stage.pool is None else None
    alarms = Alarms(say, stage.selection, first)
    groups = GroupReader(inputs["groups"].local())
    used = min(len(groups), stage.config.limit or len(groups))
    scores_only = stage.config.objective is None
    plateau = _plateau(stage.config.loss, groups) if scores_only else None
    steps = stage.config.total_steps(used)
    facts["spacing_share"] = alarms.on_start(model, stage.config.lr, plateau, steps, pooler)
    batcher = _batcher(stage, inputs, groups, template, budget)
    cut, documents = documents_cut(batcher, used)
    facts["documents_cut"] = cut / max(documents, 1)
    say(cut_sentence(cut, documents, stage.truncation.reads))
    batch_tokens = config["batch_tokens"]
    validate = validate_of(
        stage,
        inputs,
        validation,
        template,
        start,
        device,
        batch_tokens,
        lambda held_out: _batcher(
            stage, held_out, GroupReader(held_out["groups"].local()), template, batch_tokens
        ),
    )
    outcome = _trained(wrapped, batcher, config, used, rank, validate, alarms, say, tell)
    facts["micro_batch_tokens"] = budget
    moved = drift(before, model)
    alarms.on_end(moved)
    if outcome.best_step:  # else the start was kept, which an alarm says
        say(drift_sentence(moved))
    _write(model, start, config, outcome, {**facts, **moved}, rank)


def _token_budget(model: nn.Module, config: Mapping[str, Any]) -> int:
    """Tokens alive at a time: what the resources or the stage say, or what the GPU has room for."""
    share, usual, stage = config.get("gpu_share"), int(config["budget"]), config["stage"]
    if share is None:
        return usual
    meter = GpuMemory(next(model.parameters()).device, share)
    longest = stage.truncation.longest
    return measured_budget(model, longest, stage.precision, meter, share)


def _plateau(loss: Loss, groups: GroupReader) -> float | None:
    """The mean loss of a model that ranks nothing; None where the loss has no such value."""
    sizes, often = np.unique(groups.sizes, return_counts=True)
    values = [loss.of_equal_scores(int(size)) for size in sizes]
    known = [value for value in values if value is not None]
    return float(np.average(known, weights=often)) if len(known) == len(sizes) else None


def _trained(
    wrapped: nn.Module,
    batcher: Batcher,
    config: Mapping[str, Any],
    used: int,
    rank: int,
    validate: Callable[[nn.Module], dict[str, float]],
    alarms: Alarms,
    say: Callable[[str], None],
    tell: Tell,
) -> TrainingOutcome:
    """Train on the first `used` groups, from the stage's newest checkpoint if there is one."""
    stage, files = config["stage"], config["checkpoints"]
    name = agree(files.newest() if rank == 0 else None)
    longest, share = stage.truncation.longest, config.get("gpu_share") or 1.0
    record = training_record(bare(wrapped), longest, stage.precision, share)
    with Saver(files, rank) as save:
        return train(
            wrapped,
            batcher,
            stage.config,
            used,
            seed=stage.seed,
            precision=stage.precision,
            selection=stage.selection,
            validate=validate,
            report=reporter(config["label"], rank, tell),
            save=save,
            resume=files.read(name) if name is not None else None,
            offers_start=stage.offers_start,
            alarms=alarms,
            say=say,
            remember=record.write,
        )


def _write(
    model: nn.Module,
    start: Path,
    config: Mapping[str, Any],
    outcome: TrainingOutcome,
    facts: dict[str, Any],
    rank: int,
) -> None:
    """On rank 0, write the checkpoint artifact's files; other workers hand over their weights."""
    stage = config["stage"]
    weights = whole_state(model) if sharded(model) else None
    if rank != 0:
        return
    if weights is not None:  # transformers saves whole models only
        model = stage.model.load(start, stage.seed, training=False, device="cpu")
        load_whole(model, weights)
    write_checkpoint(model, start, stage, config["attempt"], outcome, facts, config["checkpoints"])


def make_deterministic(wanted: bool) -> None:
    """Refuse kernels whose result depends on timing, or allow them again after another stage.

    For cuBLAS, the size of its workspace is fixed.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = False


def _prepared(model: nn.Module, config: Any, strategy: str, device: str) -> nn.Module:
    """The model as the loop calls it: with its switches, and joined with the other workers."""
    import ray.train
    from ray.train.torch import prepare_model

    if config.compile:
        torch.compiler.reset()  # of the stage before
        compiled(model)
    if ray.train.get_context().get_world_size() == 1:
        return model
    if strategy == "fsdp":
        return shard(model, device)
    wrapped: nn.Module = prepare_model(model, parallel_strategy_kwargs={"broadcast_buffers": False})
    return wrapped


def _batcher(
    stage: Any, inputs: Mapping[str, Artifact], groups: GroupReader, template: Template, budget: int
) -> Batcher:
    made: Callable[..., Batcher] = Batcher
    if isinstance(stage.model, TrainedBiEncoder):
        texts = read_step_texts(inputs)
        made = partial(TextBatcher, temperature=stage.model.temperature, texts=texts)
    fitted = over_group_and_step(stage.config.loss)[0] or stage.config.loss
    return made(
        groups,
        joined_reader(inputs, "query_tokens"),
        joined_reader(inputs, "doc_tokens"),
        template,
        stage.truncation,
        Targets(fitted.uses, stage.teacher_kind, stage.positive_relevance, fitted.graded),
        budget,
        drawn=stage.has_dropout,
    )
