"""A similarity head as a plain classifier: distilled on the training groups, and what that loses.

Every library opens a plain classifier without code of its own. Its head must learn what the cosine
of two means computes, so it is an approximation, and what it loses is measured and written down.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import kendalltau
from torch import nn

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.token_reader import joined_reader
from raypipe.losses.pointwise import MSE
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.distillation import Distillation, HeadComparison
from raypipe.models.plain_head import plain_classifier
from raypipe.models.tokenizer import load_tokenizer
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment
from raypipe.records import GROUPS
from raypipe.runs.rerank import Reranking
from raypipe.stages.stage import Stage
from raypipe.stages.validation import Validation
from raypipe.storage.artifacts import Artifact
from raypipe.storage.builder import Builder
from raypipe.storage.parts import part_name
from raypipe.train.batches import Batcher, Targets
from raypipe.train.group_reader import GroupReader
from raypipe.train.loop import train
from raypipe.train.settings import TrainingSettings

MOST_MINUTES = 15.0
"""Of the training, on any machine: the pairs are as many as fit."""
MOST_EPOCHS = 4.0
MEASURED = 10_000
"""Pairs of each query set, at most, that both heads score to tell what was lost."""
_LR = 1e-4
_QUERIES_PER_STEP = 16
_COST = 4.0
"""A pair's time in training by its time in scoring, assumed: a backward pass costs two forward."""
_CHUNK = 32
"""Groups that are scored between two looks at the clock."""


def check_similarity(experiment: Experiment) -> None:
    """Refuse a model that is a plain classifier as it is.

    Raises:
        ConfigError: the model's head is the classifier.
    """
    model = experiment.last_model
    assert isinstance(model, CrossEncoder), "checked before: a bi-encoder has no head"
    if model.resolved_head != "similarity":
        raise ConfigError(
            "--form classifier: distils a similarity head into a plain classifier, and this "
            "recipe's model has a classifier already; export the form transformers, the default"
        )


def write_classifier(
    experiment: Experiment, stage: Stage, builder: Builder, folder: Path, say: Say
) -> Distillation:
    """Distil the stage's checkpoint, write the classifier as a Hugging Face directory, and measure.

    The whole model is trained, since the pretrained state of a sentence encoder's first token was
    not made to hold the score.

    Args:
        folder: exists.
        say: receives what is done, how long it takes, and what was lost.
    """
    checkpoint = builder.get(stage)
    inputs = {name: builder.get(step) for name, step in stage.inputs().items() if name != "start"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    head = stage.model.load(checkpoint.local(), stage.seed, training=False, device=device)
    scorer = partial(_scorer, stage, Template.of(load_tokenizer(checkpoint.local())), device)
    sets = {
        "validation": _lists(experiment.reranking("validation"), stage.depth, stage, builder),
        "test": _lists(experiment.reranking("test"), experiment.depth("test"), stage, builder),
    }
    with tempfile.TemporaryDirectory() as scratch:
        seconds = _score_groups(inputs, stage, scorer(head), Path(scratch))
        groups = GroupReader(Path(scratch))
        plain = plain_classifier(head, stage.seed, float(groups.values(len(groups))[1].mean()))
        settings = _settings(groups, seconds)
        say(_announcement(settings, groups, seconds))
        started = time.monotonic()
        _fit(plain, settings, groups, inputs, stage, scorer(head).template)
    minutes = (time.monotonic() - started) / 60
    plain.eval()
    save(plain.cpu(), folder, checkpoint.local(), stage.truncation.longest)
    plain.to(device)
    measures = {name: _compared(lists, scorer(head), scorer(plain)) for name, lists in sets.items()}
    pairs = round((settings.steps or 0) * settings.queries_per_step * groups.sizes.mean())
    result = Distillation(pairs, minutes, stage.selection, measures)
    say(result.sentence)
    return result


def _scorer(stage: Stage, template: Template, device: str, model: nn.Module) -> PairScorer:
    return PairScorer(model, template, stage.truncation, _tokens(stage), stage.precision, device)


def _tokens(stage: Stage) -> int:
    """Padded tokens of a batch."""
    return max(32_768 if torch.cuda.is_available() else 4_096, stage.truncation.longest)


def _lists(reranking: Reranking, depth: int, stage: Stage, builder: Builder) -> Validation:
    """The first candidate lists of a query set, at most `MEASURED` pairs of them."""
    artifacts = {name: builder.get(step) for name, step in reranking.steps().items()}
    positive = reranking.queries.queries.positive_relevance
    lists = Validation.of(artifacts, depth, stage.measures, positive)
    return lists.first(max(MEASURED // depth, 1))


def _score_groups(
    inputs: Mapping[str, Artifact], stage: Stage, score: PairScorer, folder: Path
) -> float:
    """Write the groups with the head's scores as teacher values, in an order of chance.

    They are as many as can be scored in a share of `MOST_MINUTES`, and one chunk at least.

    Returns:
        Seconds per group.
    """
    groups = GroupReader(inputs["groups"].local())
    queries, docs = (joined_reader(inputs, kind) for kind in ("query_tokens", "doc_tokens"))
    order = np.random.default_rng(stage.seed).permutation(len(groups))
    values: list[Any] = []
    started = time.monotonic()
    while len(values) < len(order):
        members = [groups[int(row)] for row in order[len(values) : len(values) + _CHUNK]]
        flat = score(
            [(queries[q], docs[int(doc)]) for q, of_query, *_ in members for doc in of_query]
        )
        ends = np.cumsum([len(of_query) for _, of_query, *_ in members])[:-1]
        values += [part.astype(np.float64) for part in np.split(flat, ends)]
        if time.monotonic() - started > 60 * MOST_MINUTES / _COST:
            break
    seconds = (time.monotonic() - started) / len(values)
    table = groups.table.select(GROUPS.names).take(order[: len(values)])
    column = GROUPS.get_field_index("teacher_values")
    table = table.set_column(column, GROUPS.field(column), pa.array(values, GROUPS.types[column]))
    with pa.ipc.new_file(str(folder / part_name(0, "arrow")), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return seconds


def _settings(groups: GroupReader, seconds: float) -> TrainingSettings:
    """As many steps as `MOST_EPOCHS` have, or as fit into `MOST_MINUTES`.

    Args:
        seconds: of scoring a group.
    """
    queries = min(_QUERIES_PER_STEP, len(groups))
    fitting = 60 * MOST_MINUTES / (_COST * seconds)
    steps = max(int(min(MOST_EPOCHS * len(groups), fitting) / queries), 1)
    return TrainingSettings(
        loss=MSE(), lr=_LR, queries_per_step=queries, steps=steps, validations=1
    )


def _announcement(settings: TrainingSettings, groups: GroupReader, seconds: float) -> str:
    steps = settings.steps or 0
    passes = steps * settings.queries_per_step / len(groups)
    minutes = steps * settings.queries_per_step * seconds * _COST / 60
    return (
        f"distilling the similarity head into a plain classifier: {groups.documents:,} pairs of "
        f"{len(groups):,} training groups, {passes:.1f} passes, about {minutes:.1f} minutes (at "
        f"most {MOST_MINUTES:g})"
    )


def _fit(
    plain: nn.Module,
    settings: TrainingSettings,
    groups: GroupReader,
    inputs: Mapping[str, Artifact],
    stage: Stage,
    template: Template,
) -> None:
    """Train the classifier on the head's scores; the weights after the last step stay."""
    batcher = Batcher(
        groups,
        joined_reader(inputs, "query_tokens"),
        joined_reader(inputs, "doc_tokens"),
        template,
        stage.truncation,
        Targets("teacher", "score", stage.positive_relevance),
        _tokens(stage),
    )
    train(
        plain.train(),
        batcher,
        settings,
        len(groups),
        seed=stage.seed,
        precision=stage.precision,
        selection="last",
        validate=lambda model: {"last": 0.0},
        report=lambda report: None,
    )


def _compared(lists: Validation, head: PairScorer, plain: PairScorer) -> HeadComparison:
    """Both heads on the same lists."""
    rows = range(len(lists.query_rows))
    before, after = lists.scores(head, rows), lists.scores(plain, rows)
    taus = [kendalltau(before[query], after[query]).statistic for query in before]
    return HeadComparison(
        len(rows),
        lists.measured(before),
        lists.measured(after),
        float(np.nanmean(taus)) if not np.all(np.isnan(taus)) else 0.0,
    )
