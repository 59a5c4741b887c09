"""A trained model for others: the Hugging Face directory of its checkpoint with a model card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raypipe.commands.group_forms import GROUP_FORMS
from raypipe.commands.plain_form import check_similarity, write_classifier
from raypipe.config import ConfigError, nearest, to_yaml
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.models.backbone import Backbone
from raypipe.models.card import CardFacts, GroupFacts, QueryFacts, card
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.onnx_form import MODEL_FILE, check_packages, write_onnx
from raypipe.models.retriever_card import VectorFacts
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.progress import Say
from raypipe.recipe.experiment import Experiment, Role
from raypipe.recipe.trials import Trial
from raypipe.runs.metrics import Metrics
from raypipe.stages.stage import Stage
from raypipe.storage.artifacts import Artifact
from raypipe.storage.builder import Builder
from raypipe.storage.manifest import versions
from raypipe.sweep.best import Best, best_of_trial
from raypipe.sweep.derived import retrieved_rows
from raypipe.sweep.plan import Plan
from raypipe.tables.text_table import TextTable
from raypipe.tracking.models import write_interpolation

if TYPE_CHECKING:
    from huggingface_hub import ModelCard


FORMS = ("transformers", "classifier", "onnx")
_FIRST = "test, first stage"
_TRAINER_STATE = {"trainer.json", "history.jsonl"}
_TRIED = 32
"""Pairs of validation queries on which an ONNX file is tried."""


def check_form(experiment: Experiment, form: str) -> None:
    """Refuse a form that this recipe's model cannot have, before work.

    Raises:
        ConfigError: no such form, what it needs is not installed, or the model has that form.
    """
    if form not in FORMS:
        every = (*FORMS, *GROUP_FORMS)
        raise ConfigError(f"--form {form}: expected {', '.join(every)}{nearest(form, every)}")
    if isinstance(experiment.last_model, TrainedBiEncoder) and form != "transformers":
        raise ConfigError(
            f"--form {form}: is made for re-rankers of pairs, and this recipe trains a bi-encoder; "
            "leave --form out: the folder then opens in sentence-transformers"
        )
    if form == "onnx":
        check_packages()
    if form == "classifier":
        check_similarity(experiment)


def export(
    trial: Trial, builder: Builder, folder: Path, form: str = "transformers", say: Say = print
) -> None:
    """Write the trial's model with its card.

    If validation queries found the model better where the recipe mixes it with its first stage,
    its config.json, and the card, say with what and how.

    Args:
        folder: is made if it is not there.
        form: transformers: the checkpoint as it is, a Hugging Face directory without trainer state.
            classifier: one that opens without code of its own, distilled from a similarity head.
            onnx: model.onnx, which gives the score of tokenised pairs, and tokenizer.json.
        say: receives figures.
    """
    best = best_of_trial(trial, builder)
    folder.mkdir(parents=True, exist_ok=True)
    stage = best.plan.last(trial)
    facts = card_facts(best, builder)
    if form == "classifier":
        distilled = write_classifier(trial.experiment, stage, builder, folder, say)
        facts = replace(
            facts,
            head="classifier",
            distillation=distilled,
            metrics=distilled.metrics | {_FIRST: facts.metrics[_FIRST]},
        )
    elif form == "onnx":
        _write_onnx(stage, builder, folder, say)
        facts = replace(facts, form="onnx")
    else:
        _copy(builder.get(stage), folder)
    for name in _TRAINER_STATE:
        (folder / name).unlink(missing_ok=True)
    if facts.interpolation is not None and form != "onnx":  # which has no config.json
        write_interpolation(folder / "config.json", facts.interpolation)
    card(facts).save(folder / "README.md")


def _copy(checkpoint: Artifact, folder: Path) -> None:
    """All files, those of a bi-encoder's modules in their folders."""
    for name in checkpoint.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkpoint.local() / name, folder / name)


def _write_onnx(stage: Stage, builder: Builder, folder: Path, say: Say) -> None:
    checkpoint, lists = builder.get(stage), stage.validation
    queries = TextTable(builder.get(lists.queries).local() / QUERIES_FILE)
    docs = TextTable(builder.get(lists.collection).local() / DOCS_FILE)
    pairs = [
        (queries.text(row % len(queries)), docs.text(row * len(docs) // _TRIED))
        for row in range(_TRIED)
    ]
    model = stage.model.load(checkpoint.local(), stage.seed, training=False, device="cpu")
    longest = stage.truncation.longest
    difference = write_onnx(model, checkpoint.local(), folder, longest, pairs)
    say(
        f"{folder / MODEL_FILE}: on {_TRIED} pairs onnxruntime gives the model's own scores, the "
        f"largest difference is {difference:.1e}"
    )


def card_of(best: Best, builder: Builder) -> ModelCard:
    """The card of a finished trial's model, alone or mixed."""
    return card(card_facts(best, builder))


def card_facts(best: Best, builder: Builder) -> CardFacts:
    """What the card of a finished trial's model states."""
    trial, plan = best.trial, best.plan
    experiment = trial.experiment
    backbone, model = Backbone(experiment.backbone), experiment.last_model
    folder = builder.get(plan.last(trial)).local()
    public = experiment.replace(storage=None, tracking={})  # nobody else's business
    first_stage = experiment.metrics(experiment.first_stage("test"))
    is_mixed = best.mix is not None
    alone = {"test, model alone": plan.metrics(trial)} if is_mixed else {}
    tested = {
        "test": best.metrics,
        **alone,
        **_retrieved(trial, plan, builder),
        _FIRST: first_stage,
    }
    validation = "validation, model alone" if is_mixed else "validation"
    metrics = {validation: builder.get(plan.last(trial)).counts["best"]}
    metrics |= {name: builder.get(step).counts["means"] for name, step in tested.items()}
    roles = ("train", "validation", "test")
    return CardFacts(
        name=f"{experiment.name}: {best.name}",
        backbone=backbone.name,
        base_model=None if backbone.folder else backbone.source,
        recipe=to_yaml(public),
        stages=experiment.stage_names,
        queries=[_query_facts(experiment, role, builder) for role in roles],
        groups=_group_facts(experiment, builder),
        metrics=metrics,
        truncation=experiment.reading.model_dump(mode="json"),
        reads=experiment.reading.reads,
        versions=versions(),
        head=model.resolved_head if isinstance(model, CrossEncoder) else "",
        text=plan.last(trial).text_template,
        interpolation=best.interpolation(builder),
        vectors=VectorFacts.of(folder) if isinstance(model, TrainedBiEncoder) else None,
    )


def _retrieved(trial: Trial, plan: Plan, builder: Builder) -> dict[str, Metrics]:
    """The metrics of a bi-encoder over the whole corpus, where they stand."""
    found: dict[str, Metrics] = {}
    for row in retrieved_rows(plan.only([trial])):  # one, or none
        if builder.find(step := row.metrics("test")) is not None:
            found["test, retrieving"] = step
    return found


def _query_facts(experiment: Experiment, role: Role, builder: Builder) -> QueryFacts:
    query_set = getattr(experiment.data, role)
    docs = builder.get(experiment.collection(role)).counts["docs"]
    queries = builder.get(experiment.queries(role)).counts["queries"]
    return QueryFacts(role, query_set.dataset, query_set.split, queries, docs)


def _group_facts(experiment: Experiment, builder: Builder) -> list[GroupFacts]:
    facts = []
    for stages, data in experiment.training_sets().items():
        groups = builder.get(data.joined_groups())
        counts = groups.counts
        facts.append(GroupFacts(stages, counts["groups"], counts["pairs"], groups.digest))
    return facts
