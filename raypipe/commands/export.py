"""A trained model for others: the Hugging Face directory of its checkpoint with a model card."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from raypipe.config import to_yaml
from raypipe.models.backbone import Backbone
from raypipe.models.card import CardFacts, GroupFacts, QueryFacts, card
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import Trial
from raypipe.storage.artifacts import versions
from raypipe.storage.builder import Builder

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


_STATE = {"trainer.json", "history.jsonl"}


def card_of(trial: Trial, builder: Builder) -> ModelCard:
    """The card of a finished trial."""
    one = trial.experiment
    backbone, last = Backbone(one.model.backbone), one.trained()
    public = one.replace(storage=None, tracking=None)  # addresses may hold passwords
    metrics = {
        "validation": builder.get(last).counts["best"],
        "test": builder.get(one.metrics(one.run_of(last))).counts["means"],
        "test, first stage": builder.get(one.metrics(one.first_stage("test"))).counts["means"],
    }
    return card(
        CardFacts(
            name=f"{one.name}: {trial.name}",
            backbone=backbone.name,
            base_model=None if backbone.folder else backbone.source,
            recipe=to_yaml(public),
            stages=one.stage_names,
            queries=[_queries(one, role, builder) for role in ("train", "validation", "test")],
            groups=_groups(one, builder),
            metrics=metrics,
            truncation=one.truncation.model_dump(mode="json"),
            reads=one.truncation.reads,
            versions=versions(),
        )
    )


def export(trial: Trial, builder: Builder, folder: Path) -> None:
    """Copy the checkpoint, without trainer state, and write its card."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in builder.get(trial.experiment.trained()).local().iterdir():
        if path.is_file() and path.name not in _STATE:
            shutil.copy(path, folder / path.name)
    card_of(trial, builder).save(folder / "README.md")


def _queries(one: Experiment, role: Role, builder: Builder) -> QueryFacts:
    chosen = getattr(one.data, role)
    docs = builder.get(one.collection(role)).counts["docs"]
    queries = builder.get(one.queries(role)).counts["queries"]
    return QueryFacts(role, chosen.dataset, chosen.split, queries, docs)


def _groups(one: Experiment, builder: Builder) -> list[GroupFacts]:
    found = []
    for stages, data in one.training_sets().items():
        made = builder.get(data.groups())
        counts = made.counts
        found.append(
            GroupFacts(tuple(stages.split(", ")), counts["groups"], counts["pairs"], made.digest)
        )
    return found
