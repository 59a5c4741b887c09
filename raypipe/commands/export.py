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
from raypipe.storage.builder import Builder
from raypipe.storage.manifest import versions
from raypipe.sweep.plan import Plan

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


_TRAINER_STATE = {"trainer.json", "history.jsonl"}


def export(trial: Trial, builder: Builder, folder: Path) -> None:
    """Copy the checkpoint, without trainer state, and write its card."""
    plan = Plan.of([trial])
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = builder.get(plan.last(trial))
    for name in checkpoint.files:
        if "/" not in name and name not in _TRAINER_STATE:
            shutil.copy(checkpoint.local() / name, folder / name)
    card_of(trial, plan, builder).save(folder / "README.md")


def card_of(trial: Trial, plan: Plan, builder: Builder) -> ModelCard:
    """The card of a finished trial."""
    experiment = trial.experiment
    backbone = Backbone(experiment.model.backbone)
    public = experiment.replace(storage=None, tracking=None)  # nobody else's business
    first_stage = experiment.metrics(experiment.first_stage("test"))
    metrics = {
        "validation": builder.get(plan.last(trial)).counts["best"],
        "test": builder.get(plan.metrics(trial)).counts["means"],
        "test, first stage": builder.get(first_stage).counts["means"],
    }
    roles = ("train", "validation", "test")
    return card(
        CardFacts(
            name=f"{experiment.name}: {trial.name}",
            backbone=backbone.name,
            base_model=None if backbone.folder else backbone.source,
            recipe=to_yaml(public),
            stages=experiment.stage_names,
            queries=[_query_facts(experiment, role, builder) for role in roles],
            groups=_group_facts(experiment, builder),
            metrics=metrics,
            truncation=experiment.truncation.model_dump(mode="json"),
            reads=experiment.truncation.reads,
            versions=versions(),
            head=experiment.model.resolved_head,
        )
    )


def _query_facts(experiment: Experiment, role: Role, builder: Builder) -> QueryFacts:
    query_set = getattr(experiment.data, role)
    docs = builder.get(experiment.collection(role)).counts["docs"]
    queries = builder.get(experiment.queries(role)).counts["queries"]
    return QueryFacts(role, query_set.dataset, query_set.split, queries, docs)


def _group_facts(experiment: Experiment, builder: Builder) -> list[GroupFacts]:
    facts = []
    for stages, data in experiment.training_sets().items():
        groups = builder.get(data.groups())
        counts = groups.counts
        facts.append(GroupFacts(stages, counts["groups"], counts["pairs"], groups.digest))
    return facts
