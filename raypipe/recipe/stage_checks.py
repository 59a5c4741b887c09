"""What a stage asks of its groups and its teacher, checked when the recipe is read."""

from __future__ import annotations

from raypipe.groups.training_set import TrainingData
from raypipe.losses import AnyLoss
from raypipe.losses.base import Loss
from raypipe.losses.combination import WeightedSum
from raypipe.losses.listwise import KL, InfoNCE
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
    groups = "groups" if stage.groups is None else f"stages.{name}.groups"
    data.further_problems(groups)
    further = {f"{groups}.further.{other}": found for other, found in data.further.items()}
    for path, member in {groups: data, **further}.items():
        _check_step_terms(where, stage, member)
        if loss.uses == "teacher":
            _check_teacher(where, loss, member)
        if loss.needs_positive and not member.training_set.every_group_has_a_positive:
            found = path if member is not data else "groups"
            raise ValueError(
                f"{where}: {loss.type} needs a positive in every group, but {found}.positives is "
                f"{member.training_set.positives}; use inject or drop"
            )
        member.problems(path)


def check_loss_groups(
    name: str, stage: StageConfig, data: TrainingData, trained_on: TrainingData
) -> None:
    """Refuse selection by a loss of groups that validation queries cannot have.

    Args:
        data: as what the stage trains on, of validation queries.

    Raises:
        ValueError: the stage trains on ready-made groups, or on lists of a filter that the
            validation queries lack.
    """
    where = "evaluation.selection: loss"
    if data.training_set.triples is not None:
        raise ValueError(
            f"{where}: is computed on groups of validation queries that are mined as those of the "
            f"stage {name}, whose triples are ready-made; select by a measure"
        )
    if trained_on.query_set.has_own_lists and not data.query_set.has_own_lists:
        raise ValueError(
            f"{where}: the stage {name} trains on lists of its queries' filter, and "
            "data.validation has no such lists; give it the filter of the training queries, with "
            "teacher and lists, or select by a measure"
        )
    _check_step_terms(f"{where}: of the stage {name} on data.validation", stage, data)


def _check_step_terms(where: str, stage: StageConfig, data: TrainingData) -> None:
    """Refuse losses over a step of one query, with a share of raw teacher values, and plug-ins that
    say they are over the step: they are given the documents of groups."""
    losses: list[Loss] = [stage.loss]
    if isinstance(stage.loss, WeightedSum):
        losses = [term.loss for term in stage.loss.terms.values()]
    for loss in losses:
        if getattr(loss, "over", "group") != "step":
            continue
        if not isinstance(loss, InfoNCE | KL):
            raise ValueError(
                f"{where}: over=step is for infonce and kl, found {loss.type}; rename its field "
                "`over`, or use one of these"
            )
        if stage.queries_per_step < 2:
            raise ValueError(
                f"{where}: over=step compares a query with the documents of others, found "
                "queries_per_step=1; raise that, or leave `over` out"
            )
        share = loss.own_share if isinstance(loss, InfoNCE) else None
        if share is not None and data.teacher is not None and not data.values_on_a_scale:
            raise ValueError(
                f"{where}: own_share={share:g} needs a teacher's values on [0, 1], and those of "
                f"the {data.teacher.type} teacher are raw; use `teacher: {{type: list_scores}}` "
                "over queries with filter.lists, an ensemble with normalise=min_max, or leave "
                "own_share out"
            )


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
