"""Rows of the backbone as it comes, where it is a sentence encoder: what training must beat."""

from __future__ import annotations

from raypipe.config import ConfigError
from raypipe.models.any_model import AnyModel
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.evaluation_sets import Untrained
from raypipe.teachers import Teacher
from raypipe.teachers.bi_encoder import BiEncoderTeacher, Fusion


def untrained_scorer(how: Untrained, model: AnyModel, teacher: Teacher | None) -> BiEncoderTeacher:
    """What scores candidates by the vectors of the model's backbone.

    It reads texts as a bi-encoder that is trained does, and else as the recipe's teacher if that
    has the same backbone, so that a collection is encoded once.
    """
    encoder = BiEncoder(backbone=model.backbone)
    if isinstance(model, TrainedBiEncoder):
        encoder = model.part(BiEncoder)
    elif isinstance(teacher, BiEncoderTeacher) and teacher.backbone == model.backbone:
        encoder = teacher.part(BiEncoder)
    scorer = Fusion if how == "fusion" else BiEncoderTeacher
    return scorer(**dict(encoder))


def check_untrained(model: AnyModel) -> None:
    """Refuse a backbone that is no sentence encoder.

    Raises:
        ConfigError: it is none, or see `BiEncoder.check`.
    """
    if Backbone(model.backbone).published("modules.json") is None:
        raise ConfigError(
            f"evaluation.untrained: expected a sentence encoder, found {model.backbone} without "
            "a modules.json: its vectors were trained for no comparison of texts; leave the field "
            "out, or start from a sentence encoder"
        )
    if not isinstance(model, TrainedBiEncoder):  # which is checked as it is
        BiEncoder(backbone=model.backbone).check("model")
