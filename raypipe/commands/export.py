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
from raypipe.sweep.best import Best, best_of_trial
from raypipe.tracking.models import write_interpolation

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


_TRAINER_STATE = {"trainer.json", "history.jsonl"}


def export(trial: Trial, builder: Builder, folder: Path) -> None:
    """Copy the checkpoint, without trainer state, and write its card.

    If validation queries found the model better where the recipe mixes it with its first stage,
    its config.json says with what and how.
    """
    best = best_of_trial(trial, builder)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = builder.get(best.plan.last(trial))
    for name in checkpoint.files:
        if "/" not in name and name not in _TRAINER_STATE:
            shutil.copy(checkpoint.local() / name, folder / name)
    if (interpolation := best.interpolation(builder)) is not None:
        write_interpolation(folder / "config.json", interpolation)
    card_of(best, builder).save(folder / "README.md")


def card_of(best: Best, builder: Builder) -> ModelCard:
    """The card of a finished trial's model, alone or mixed."""
    trial, plan = best.trial, best.plan
    experiment = trial.experiment
    backbone = Backbone(experiment.model.backbone)
    public = experiment.replace(storage=None, tracking=None)  # nobody else's business
    first_stage = experiment.metrics(experiment.first_stage("test"))
    is_mixed = best.mix is not None
    alone = {"test, model alone": plan.metrics(trial)} if is_mixed else {}
    tested = {"test": best.metrics, **alone, "test, first stage": first_stage}
    validation = "validation, model alone" if is_mixed else "validation"
    metrics = {validation: builder.get(plan.last(trial)).counts["best"]}
    metrics |= {name: builder.get(step).counts["means"] for name, step in tested.items()}
    roles = ("train", "validation", "test")
    return card(
        CardFacts(
            name=f"{experiment.name}: {best.name}",
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
            interpolation=best.interpolation(builder),
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
