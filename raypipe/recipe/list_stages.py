"""Stages whose models retrieve lists: what is one, and which must be trained before which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from raypipe.candidates import Source
from raypipe.candidates.trained import stages_of
from raypipe.config import nearest
from raypipe.evaluation.results import MAIN
from raypipe.groups.training_set import TrainingSet
from raypipe.models.any_model import AnyModel
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.recipe.evaluation_sets import Evaluation
from raypipe.stages.stage import StageConfig

Before = Callable[[str], Iterable[tuple[str, str]]]
"""Gives, of a stage, the stages that must be trained before it, each behind the field that says
so."""
ORDER = "order"
"""The field behind which the stage stands whose weights another one goes on from."""


class WithStages(Protocol):
    """What is asked of an experiment."""

    @property
    def candidates(self) -> Source: ...
    @property
    def evaluation(self) -> Evaluation: ...
    @property
    def stages(self) -> Mapping[str, StageConfig]: ...
    @property
    def stage_names(self) -> tuple[str, ...]: ...

    def model_of(self, stage: str) -> AnyModel: ...
    def groups_of(self, stage: str) -> TrainingSet: ...
    def up_to(self, stage: str) -> tuple[str, ...]: ...
    def source(self, role: str) -> Source: ...


def trained_before(stages: Iterable[str], before: Before) -> list[str]:
    """These stages and all that must be trained before them, each once and behind those it needs.

    Raises:
        ValueError: a stage needs itself.
    """
    done: dict[str, None] = {}

    def visit(stage: str, waiting: tuple[str, ...]) -> None:
        for field, other in before(stage):
            if other in (*waiting, stage):
                raise ValueError(_in_a_circle(field, stage, other))
            if other not in done:
                visit(other, (*waiting, stage))
        done[stage] = None

    for stage in stages:
        if stage not in done:
            visit(stage, ())
    return list(done)


def _in_a_circle(field: str, stage: str, other: str) -> str:
    if field == ORDER:
        return (
            f"{ORDER}: the stage {stage} goes on from {other}, which needs lists of the model of "
            f"{stage}; give stages.{other}.groups.candidates another source, or let {stage} come "
            "first"
        )
    return (
        f"{field}: the lists of the stage {stage} would be those of {other}, which is not trained "
        f"before it; give stages.{stage}.groups.candidates another source, whose lists it is then "
        "validated on too"
    )


@dataclass(frozen=True)
class Encoders:
    """The stages of an experiment by which of them make lists of others."""

    experiment: WithStages

    def check(self) -> None:
        """Refuse lists of stages that have no vectors, or that are trained on these lists.

        Raises:
            ValueError: with the field of the source.
        """
        experiment = self.experiment
        sources = {"candidates": experiment.candidates}
        for name, test_set in experiment.evaluation.sets.items():
            if test_set.candidates is not None:
                sources[f"evaluation.sets.{name}.candidates"] = test_set.candidates
        sources["evaluation.suite_candidates"] = experiment.evaluation.suite_candidates
        for path, source in sources.items():
            self._check_vectors(path, source)
        trained_before([*experiment.stage_names, *self._of_judged_lists()], self._before)
        self._check_alone()
        self._check_validated()

    def _check_vectors(self, field: str, source: Source) -> None:
        stages = self.experiment.stages
        for name in stages_of(source):
            if name not in stages:
                near = nearest(name, stages)
                raise ValueError(f"{field}: of={name}: there is no such stage{near}")
            if not isinstance(model := self.experiment.model_of(name), TrainedBiEncoder):
                raise ValueError(
                    f"{field}: of={name}: expected a stage of a bi-encoder, found a {model.type}, "
                    f"which gives no vectors; set stages.{name}.model.type=bi_encoder, or name "
                    "another stage"
                )

    def _check_alone(self) -> None:
        """A stage that is trained alone needs stages that are trained alike with and without it."""
        order = self.experiment.stage_names
        for name in self.trained:
            for path, other in self._before(name) if name not in order else ():
                if other in order[1:]:
                    raise ValueError(
                        f"{path}: the stage {name}, which is not in the order, is trained alone on "
                        f"lists of {other}, which is not the first there; put {other} first, or "
                        f"{name} behind it"
                    )

    def _check_validated(self) -> None:
        """Stages that are validated on lists of their own source have deep enough ones."""
        depth = self.experiment.evaluation.validation_depth
        for name in self._of_first_stage():
            source = self.validation_source(name)
            if depth > source.depth:
                raise ValueError(
                    f"evaluation.validation_depth: {depth} is more than stages.{name}.groups."
                    f"candidates.depth={source.depth}, on whose lists that stage is validated; "
                    "raise that one"
                )

    @property
    def trained(self) -> list[str]:
        """The stages that are trained before the lists of the experiment are there, with those that
        these need, in an order in which they can be trained."""
        order = self.experiment.stage_names
        named = [name for stage in order for name in self._of_lists(stage)]
        return trained_before([*named, *self._of_judged_lists()], self._before)

    @property
    def waits(self) -> dict[str, int]:
        """The stages whose models retrieve lists, in an order in which they can be trained, each
        with how many of the others it must wait for in a row."""
        needed = self.trained
        named = set(self._of_judged_lists())
        named |= {n for s in (*needed, *self.experiment.stage_names) for n in self._of_lists(s)}
        waits: dict[str, int] = {}
        for name in needed:
            if name in named:
                below = [waits[n] for n in trained_before([name], self._before) if n in waits]
                waits[name] = 1 + max(below, default=-1)
        return waits

    def validation_source(self, stage: str) -> Source:
        """The first stage of a stage's validation: the recipe's `candidates`, or, if they need the
        stage, those of its groups."""
        source = self.experiment.candidates
        if stages_of(source) and stage in self._of_first_stage():
            return self.experiment.groups_of(stage).candidates or source
        return source

    def _of_judged_lists(self) -> list[str]:
        """The stages whose models retrieve lists of validation and test queries."""
        evaluation = self.experiment.evaluation
        sources = [self.experiment.source(role) for role in ("validation", MAIN, *evaluation.sets)]
        if evaluation.suites:
            sources.append(evaluation.suite_candidates)
        return [name for source in sources for name in stages_of(source)]

    def _of_first_stage(self) -> list[str]:
        """The stages that are trained before the recipe's `candidates` are there."""
        first = stages_of(self.experiment.candidates)
        return trained_before(first, lambda stage: self._before(stage, validated=False))

    def _of_lists(self, stage: str) -> list[str]:
        """The stages whose models retrieve what a stage trains on, or is validated on."""
        return [name for field, name in self._before(stage) if field != ORDER]

    def _before(self, stage: str, validated: bool = True) -> list[tuple[str, str]]:
        """As `Before`.

        Args:
            validated: whether its validation lists count.
        """
        lists = self._lists_of(stage)
        if validated:
            lists = {"candidates": self.validation_source(stage), **lists}
        before = [(ORDER, name) for name in self.experiment.up_to(stage)[-2:-1]]
        for path, source in lists.items():
            self._check_vectors(path, source)
            before += [(path, name) for name in stages_of(source)]
        return before

    def _lists_of(self, stage: str) -> dict[str, Source]:
        """The sources of what a stage trains on, by the fields that name them."""
        own = self.experiment.groups_of(stage)
        is_own = self.experiment.stages[stage].groups is not None
        where = f"stages.{stage}.groups" if is_own else "groups"
        found: dict[str, Source] = {}
        further = {f"{where}.further.{name}": other for name, other in own.further.items()}
        for path, chosen in {where: own, **further}.items():
            named = chosen.candidates or own.candidates
            field = "candidates" if named is None else f"{path}.candidates"
            found[field] = named or self.experiment.candidates
            found |= {f"{path}.sources.{name}": one for name, one in chosen.sources.items()}
        return found
