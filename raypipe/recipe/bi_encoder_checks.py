"""What recipes of bi-encoders, or of cross-encoders, cannot have, refused when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raypipe.inference.truncation import LongestFirst, Truncation
from raypipe.losses.combination import over_group_and_step
from raypipe.models.any_model import AnyModel
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.evaluation_sets import Evaluation
from raypipe.resources import Resources
from raypipe.stages.stage import StageConfig

Running = Mapping[str, tuple[StageConfig, AnyModel]]
"""The stages that run and their models, by name, in order."""


def check_cross_encoders(
    running: Running, models: Sequence[AnyModel], evaluation: Evaluation
) -> None:
    """Refuse what is made for bi-encoders.

    Args:
        models: those of all stages of the recipe.

    Raises:
        ValueError: rows of retrieval are asked for and no stage has a bi-encoder, the loss of a
            cross-encoder's stage is over the step, or it is to be validated by retrieval.
    """
    for name, (stage, model) in running.items():
        if not isinstance(model, TrainedBiEncoder) and evaluation.selection_pool is not None:
            raise ValueError(
                f"evaluation.selection_pool: bi-encoders retrieve, and the stage {name} has a "
                "model that reads query and document together; leave it out, or set "
                "model.type=bi_encoder"
            )
        if not isinstance(model, TrainedBiEncoder) and over_group_and_step(stage.loss)[1]:
            raise ValueError(
                f"stages.{name}.loss: over=step compares a query with the documents of all others, "
                "which a model that reads pairs would have to read again; leave `over` out, or set "
                "model.type=bi_encoder"
            )
    if evaluation.retrieval is not None and not any(map(_gives_vectors, models)):
        raise ValueError(
            "evaluation.retrieval: bi-encoders retrieve, and this recipe's model reads query and "
            "document together; leave it out, or set model.type=bi_encoder"
        )


def _gives_vectors(model: AnyModel) -> bool:
    return isinstance(model, TrainedBiEncoder)


def check_bi_encoders(
    running: Running,
    models: Sequence[AnyModel],
    truncation: Truncation,
    resources: Resources,
) -> None:
    """Refuse what is made for models that read query and document together.

    Args:
        models: those of all stages of the recipe.

    Raises:
        ValueError: `truncation` is set and no stage reads pairs, a bi-encoder's stage filters or
            has an objective, or its weights are spread over workers.
    """
    stages = {name: stage for name, (stage, model) in running.items() if _gives_vectors(model)}
    if truncation != LongestFirst() and all(map(_gives_vectors, models)):
        default = "{type: longest_first, max_length: 256}"
        raise ValueError(
            f"truncation: {truncation.type} cuts pairs, and model.type=bi_encoder reads each text "
            f"alone; leave it out (over a base that sets it, write {default}), and set "
            "model.query_length and model.max_length"
        )
    for name, stage in stages.items():
        if stage.filtering is not None:
            raise ValueError(
                f"stages.{name}.filtering: is made for model.type=cross_encoder, found bi_encoder; "
                "leave it out"
            )
        if stage.objective is not None:
            raise ValueError(
                f"stages.{name}.objective: reads a model of pairs, and model.type=bi_encoder gives "
                "vectors of texts; leave it out, a loss over scores is `loss`"
            )
    if stages and resources.strategy == "fsdp" and resources.workers > 1:
        raise ValueError(
            "resources.strategy: fsdp spreads the weights of model.type=cross_encoder only, found "
            "bi_encoder; use ddp"
        )


def check_averages(last: AnyModel, evaluation: Evaluation) -> None:
    """Refuse the mean of weights of bi-encoders.

    Args:
        last: the model of the last stage.

    Raises:
        ValueError: it is a bi-encoder, and weights of seeds are to be averaged.
    """
    if "average" in evaluation.ensembles and _gives_vectors(last):
        raise ValueError(
            "evaluation.ensembles: average joins the weights of model.type=cross_encoder only, "
            "found bi_encoder; use seeds, the mean of the scores"
        )
