"""What the models of stages that follow each other must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from raypipe.config import ConfigError
from raypipe.models.any_model import AnyModel
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder


def check_models(models: Sequence[tuple[str, AnyModel]]) -> None:
    """Refuse models of which one cannot go on from the weights of another; no file is read.

    Args:
        models: the name of each stage that runs, in order, with its model.

    Raises:
        ValueError: two have different backbones, a later one has more layers, or cross-encoders
            without a bi-encoder between them name different heads.
    """
    layers: int | None = None
    for (before, earlier), (name, model) in pairwise(models):
        where = f"stages.{name}.model"
        if model.backbone != earlier.backbone:
            raise ValueError(
                f"{where}.backbone: expected {earlier.backbone} as of the stage {before}, from "
                f"whose weights this one goes on, found {model.backbone}; give both the same "
                "backbone, or leave one of them out of the order"
            )
        layers = min([n for n in (layers, earlier.keep_layers) if n is not None], default=None)
        if model.keep_layers is not None and layers is not None and model.keep_layers > layers:
            raise ValueError(
                f"{where}.keep_layers: {model.keep_layers} are more than the {layers} that the "
                "stages before have left; lower it, or leave it out"
            )
        heads = {getattr(one, "head", "auto") for one in (earlier, model)} - {"auto"}
        if len(heads) > 1:
            raise ValueError(_other_head(where, *_heads(earlier, model), before))


def check_models_files(models: Sequence[tuple[str, AnyModel]]) -> None:
    """As `check_models`, of what the files of the backbone say.

    Raises:
        ConfigError: the files make two heads of `auto`, or have modules or poolings that a
            bi-encoder after another model's stage cannot have.
    """
    changed = False
    for (before, earlier), (name, model) in pairwise(models):
        changed |= model != earlier
        where = f"stages.{name}.model"
        if isinstance(earlier, CrossEncoder) and isinstance(model, CrossEncoder):
            heads = earlier.resolved_head, model.resolved_head
            if heads[0] != heads[1]:
                raise ConfigError(_other_head(where, *heads, before))
        if not changed or not isinstance(model, TrainedBiEncoder):
            continue
        modules = model.modules(Backbone(model.backbone).published)
        if len(modules.pooling) > 1:
            raise ConfigError(
                f"{where}.pooling: the backbone joins {' and '.join(modules.pooling)}, which a "
                "bi-encoder after a stage of another model cannot; name one of them"
            )
        if modules.weighted and isinstance(earlier, CrossEncoder):
            paths = ", ".join(layer.path for layer in modules.weighted)
            raise ConfigError(
                f"{where}: the vectors of {model.backbone} go through {paths}, whose weights the "
                f"cross-encoder before, {before}, does not keep; let the bi-encoder come first, or "
                "give a backbone without such modules"
            )


def _heads(earlier: AnyModel, model: AnyModel) -> tuple[str, str]:
    return str(getattr(earlier, "head", "")), str(getattr(model, "head", ""))


def _other_head(where: str, before: str, now: str, stage: str) -> str:
    return (
        f"{where}.head: expected {before} as of the stage {stage}, whose head this one trains on, "
        f"found {now}; give both the same head"
    )
