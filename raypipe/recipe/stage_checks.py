"""What a stage asks of its groups and its teacher, checked when the recipe is read."""

from __future__ import annotations

from raypipe.groups.training_set import TrainingData
from raypipe.losses import AnyLoss
from raypipe.resources import Resources
from raypipe.stages.stage import StageConfig
from raypipe.train.settings import INSTEAD


def check_stage(
    name: str, stage: StageConfig, data: TrainingData, resources: Resources, longest: int
) -> None:
    """Refuse a stage that could not be trained on its groups.

    Args:
        data: what the stage trains on.
        longest: tokens of the longest pair that the model reads.

    Raises:
        ValueError: the loss finds no values or no positives to fit, or one of the stage's, its
            groups' or the resources' fields does not go with another.
    """
    stage.check(f"stages.{name}", resources, longest)
    _check_used(f"stages.{name}", stage)
    where, loss = f"stages.{name}.loss", stage.loss
    if loss.uses == "teacher":
        _check_teacher(where, loss, data)
    if loss.needs_positive and not data.training_set.every_group_has_a_positive:
        raise ValueError(
            f"{where}: {loss.type} needs a positive in every group, but groups.positives is "
            f"{data.training_set.positives}; use inject or drop"
        )
    data.problems("groups" if stage.groups is None else f"stages.{name}.groups")


def _check_used(where: str, stage: StageConfig) -> None:
    for used, unused in INSTEAD.items():
        value, default = getattr(stage, unused), type(stage).model_fields[unused].default
        if getattr(stage, used) is not None and value != default:
            raise ValueError(
                f"{where}.{unused}: {value:g} would not be used, because "
                f"{used}={getattr(stage, used)} is set; leave one of them out"
            )


def _check_teacher(where: str, loss: AnyLoss, data: TrainingData) -> None:
    teacher = data.teacher
    if teacher is None:
        raise ValueError(f"{where}: {loss.type} needs a teacher; set `teacher`")
    if teacher.values not in loss.teacher_kinds:
        raise ValueError(
            f"{where}: {loss.type} cannot use the {teacher.type} teacher, which gives a "
            f"{teacher.values}; it needs {' or '.join(sorted(loss.teacher_kinds))}"
        )
    if getattr(teacher, "negative", False) and loss.refuses("teacher", -1.0, 0.0):
        raise ValueError(
            f"{where}: {loss.type} takes a teacher's values for gains, and the {teacher.type} "
            "teacher's are in part below 0; use a teacher of grades or probabilities, or a loss of "
            "the order alone: listmle, ranknet, adr_mse"
        )
