"""A model that exists, anybody's, as what scores candidates: its own files say how it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raypipe.config import ConfigError
from raypipe.datasets.own_files import is_own, with_text
from raypipe.datasets.steps import QuerySet
from raypipe.inference.truncation import LongestFirst, Truncation
from raypipe.models.backbone import Backbone
from raypipe.models.checks import has_scorer
from raypipe.models.sentence_modules import read_score_modules
from raypipe.teachers.bi_encoder import BiEncoderTeacher
from raypipe.teachers.cross_encoder import CrossEncoderTeacher

USUAL_LENGTH = 512


def scorer_of(
    model: str, max_length: int | None, label: int | None
) -> CrossEncoderTeacher | BiEncoderTeacher:
    """A cross-encoder if the model's files have a trained head, else a bi-encoder.

    Args:
        max_length: tokens per pair, or per text of a bi-encoder; None is what a checkpoint of
            raypipe's was trained with, or what the model reads, at most 512.
        label: of a head with several labels, the one that means relevant.

    Raises:
        ConfigError: the model is not there, or its files name no truncation that can be read.
    """
    backbone = Backbone(model)
    backbone.check()
    config = backbone.published_config()
    modular = read_score_modules(backbone.published, f"model {model}") is not None
    if not modular and not has_scorer(config):
        if label is not None:
            raise ConfigError(f"label {label}: {model} is a bi-encoder and has no labels")
        return BiEncoderTeacher(backbone=model, max_length=max_length)
    return CrossEncoderTeacher(
        backbone=model, truncation=_truncation(model, config, max_length), label=label
    )


def _truncation(model: str, config: Mapping[str, Any], max_length: int | None) -> Truncation:
    own = (config.get("raypipe") or {}).get("truncation")
    if max_length is not None or own is None:
        positions = int(config.get("max_position_embeddings") or USUAL_LENGTH)
        return LongestFirst(max_length=max_length or min(positions, USUAL_LENGTH))
    try:
        read: Truncation = TypeAdapter(Truncation).validate_python(own)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise ConfigError(
            f"model {model}: config.json names a truncation that is none ({why}); give a max_length"
        ) from None
    return read


def template_of(model: str) -> str | None:
    """The template of documents' texts that the model was trained on; None if it names none."""
    template = (Backbone(model).published_config().get("raypipe") or {}).get("text")
    return None if template is None else str(template)


def read_as_trained(data: QuerySet, template: str | None) -> QuerySet:
    """The data with documents' texts made of a template, where it is of files with its columns.

    Args:
        template: None leaves the data as it is.

    Raises:
        ConfigError: the files lack a column of the template.
    """
    if template is None or not is_own(data.dataset) or data.text_template == template:
        return data
    alike = data.replace(dataset=with_text(data.dataset, template))
    next(alike.open().docs(), None)
    return alike
