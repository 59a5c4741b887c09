"""One stage of training: what a recipe says of it, and the step that trains it in a slot.

`StageConfig` is the recipe's part; `Stage` joins it with model, groups and validation, and makes
the checkpoint. What every worker does stands in `stages/worker.py`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import field_validator

from raypipe.config import UNLESS_DEFAULT, ConfigError
from raypipe.datasets.steps import Collection
from raypipe.evaluation.own_measures import own_code
from raypipe.groups.joined import JoinedGroups
from raypipe.groups.kept_out import step_text_inputs
from raypipe.groups.training_groups import TrainingGroups
from raypipe.groups.training_set import TrainingSet
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import Reading
from raypipe.losses.base import Loss
from raypipe.losses.combination import over_group_and_step
from raypipe.models.any_model import AnyModel, cross_encoder_unless_named
from raypipe.models.backbone import Backbone
from raypipe.resources import NO_FP16, Context, Resources
from raypipe.runs.rerank import Reranking
from raypipe.stages.loss_groups import LossGroups, of_loss
from raypipe.stages.selection_pool import SelectionPool
from raypipe.stages.slots import open_slots
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.train.checkpoint import Checkpoints
from raypipe.train.group_reader import GroupReader
from raypipe.train.settings import TrainingSettings, too_few

_TRAINING = ".training"
"""The folder of an attempt with the checkpoints of the training, which its commit removes."""


class StageConfig(TrainingSettings):
    """One stage of a recipe: the settings of its training, and what it trains on."""

    groups: TrainingSet | None = None
    """None: the recipe's `groups`, which all stages share that set none of their own."""
    model: Annotated[AnyModel | None, UNLESS_DEFAULT] = None
    """The stage's own model, with all its fields; null is the recipe's `model`. The stage goes on
    from the weights of the stage before, so all have one backbone: a model of another type takes
    over the transformer, and its head begins anew. Dropout that is null is that of the stage
    before."""

    @field_validator("model", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> Any:
        return cross_encoder_unless_named(value)

    @property
    def minimises(self) -> str:
        """What tables call the objective; a class of the user stands beside its loss."""
        if self.objective is None:
            return self.loss.type
        return f"{self.objective.type} with {self.loss.type}"

    def check(self, where: str, resources: Resources, longest: int) -> None:
        """Refuse what cannot be trained with these resources.

        Args:
            where: the dotted path of this stage.
            longest: tokens of the longest pair.

        Raises:
            ValueError: a step cannot be shared by the workers, filtering or an objective with fsdp,
                or a token budget below one pair.
        """
        workers, budget = resources.workers, resources.micro_batch_tokens
        if self.queries_per_step < workers:
            raise ValueError(
                f"{where}.queries_per_step: {self.queries_per_step} queries cannot be shared by "
                f"resources.workers={workers}; raise the one or lower the other"
            )
        if self.filtering is not None and resources.strategy == "fsdp" and workers > 1:
            raise ValueError(
                f"{where}.filtering: leaves workers with unequal work, which "
                "resources.strategy=fsdp cannot have; use ddp, or train on all groups"
            )
        if self.objective is not None and resources.strategy == "fsdp" and workers > 1:
            raise ValueError(
                f"{where}.objective: reads whole blocks, of which workers have unequal numbers, "
                "and resources.strategy=fsdp cannot have that; use ddp"
            )
        if budget is not None and (problem := _below_one_pair(budget, longest)):
            raise ValueError(problem)


@dataclass(frozen=True)
class Stage(Step):
    """Trains one stage; `start` is the backbone or the stage before."""

    stage_name: str
    config: StageConfig
    model: AnyModel
    truncation: Reading
    start: Step
    groups: TrainingGroups | JoinedGroups
    query_tokens: Tokens
    doc_tokens: Tokens
    validation: Reranking
    teacher_kind: Literal["score", "rank"]
    measures: Sequence[str]
    selection: str
    depth: int
    seed: int
    precision: str
    further_tokens: tuple[tuple[str, Tokens, Tokens], ...] = ()
    """Name, query tokens and document tokens of the further sets behind `groups`, in its order."""
    pool: SelectionPool | None = None
    """What validation retrieves from instead of re-ranking the lists."""
    leaves_itself_out: bool = False
    """Of the pool: whether a document with the query's id is no candidate of it."""
    loss_groups: LossGroups | None = None
    """What the validation loss is computed on, where that selects."""

    kind: ClassVar[str] = "checkpoint"
    tells: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    version: ClassVar[int] = 2

    @property
    def name(self) -> str:
        fresh = not isinstance(self.start, Stage) and self.model.keep_layers
        layers = f"-{self.model.keep_layers}layers" if fresh else ""
        return f"{self.start.name}{layers}-{self.stage_name}"

    @property
    def positive_relevance(self) -> int:
        return self.groups.negatives.queries.queries.positive_relevance

    @property
    def text_template(self) -> str | None:
        """How the texts of the documents are made of columns, so that they are served alike."""
        negatives = getattr(self.groups, "negatives", None)
        collection = getattr(negatives, "collection", None)
        return collection.queries.text_template if isinstance(collection, Collection) else None

    @cached_property
    def has_dropout(self) -> bool:
        """Whether training drops activations out, by the recipe and the backbone's config.json."""
        chain = self.chain()
        backbone = chain[0].start
        assert isinstance(backbone, Backbone), backbone
        set_to = [s.model.hidden_dropout for s in chain if s.model.hidden_dropout is not None]
        model = self.model.replace(hidden_dropout=set_to[-1]) if set_to else self.model
        return model.has_dropout(backbone.published_config())

    @property
    def has_new_head(self) -> bool:
        """Whether the start has no head of this stage's model: it is the backbone, or a stage of a
        model of another type."""
        start = self.start
        return not isinstance(start, Stage) or type(start.model) is not type(self.model)

    @cached_property
    def offers_start(self) -> bool:
        """Whether the start ranks already, as a trained stage, a similarity head or a bi-encoder
        does, so that it is a choice of selection: a stage that only harms changes nothing."""
        return not self.has_new_head or self.model.ranks_untrained

    def tokens_at_a_time(self, allowed: int) -> int:
        """Tokens whose activations are in memory at a time in training.

        Args:
            allowed: by the resources, which have no say where the number decides the weights.
        """
        if not self.has_dropout:
            return allowed
        return max(self.config.dropout_tokens, self.truncation.longest)

    def _is_measured(self, resources: Resources) -> bool:
        """Whether the memory of the GPU may decide how many tokens are alive."""
        return resources.micro_batch_tokens is None and not self.has_dropout

    def spec(self) -> Mapping[str, Any]:
        named_elsewhere = ("groups", "model")
        stage = {k: v for k, v in self.config.semantic().items() if k not in named_elsewhere}
        model = {k: v for k, v in self.model.semantic().items() if k != "backbone"}
        return {
            "stage": stage,
            "model": model,
            "truncation": self.truncation.semantic(),
            "teacher_kind": self.teacher_kind if self.config.loss.uses == "teacher" else None,
            "measures": list(map(str, self.measures)),
            **own_code(self.measures),
            "selection": str(self.selection),
            "depth": self.depth,
            "seed": self.seed,
            "precision": self.precision,
            **({"dropout_tokens": self.config.dropout_tokens} if self.has_dropout else {}),
            **({"offers_start": True} if self.offers_start else {}),
            **self._pooled(),
        }

    def _pooled(self) -> Mapping[str, Any]:
        if self.pool is None:
            return {}
        return {"pool": self.pool.semantic(), "leaves_itself_out": self.leaves_itself_out}

    def inputs(self) -> Mapping[str, Step]:
        held_out = {} if self.loss_groups is None else self.loss_groups.steps(self.config.loss)
        return {
            "start": self.start,
            "groups": self.groups,
            "query_tokens": self.query_tokens,
            "doc_tokens": self.doc_tokens,
            **{f"query_tokens of {name}": queries for name, queries, _ in self.further_tokens},
            **{f"doc_tokens of {name}": docs for name, _, docs in self.further_tokens},
            **self._step_texts(),
            **self.validation.steps("validation_"),
            **held_out,
        }

    def _step_texts(self) -> Mapping[str, Step]:
        """What a loss over the step knows of texts; nothing for losses over the group."""
        if not over_group_and_step(self.config.loss)[1]:
            return {}
        return step_text_inputs(self.groups, [name for name, *_ in self.further_tokens])

    def chain(self) -> list[Stage]:
        """This stage and all stages before it, in the order of training."""
        before = self.start.chain() if isinstance(self.start, Stage) else []
        return [*before, self]

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        resources = context.resources.for_trials(1)
        groups = GroupReader(attempt.inputs["groups"].local())
        use_gpu = resources.use_gpu()
        self.check(groups, context.micro_batch_tokens(), use_gpu=use_gpu)
        if self.loss_groups is not None:
            self._check_validated(attempt.inputs, resources.workers)
        attempt.resumable = True  # an error leaves the checkpoints
        work = StageWork(
            self,
            attempt,
            self.checkpoints(attempt),
            self.tokens_at_a_time(context.micro_batch_tokens()),
            context.batch_tokens(),
            use_gpu,
            resources.strategy,
            resources.gpus_per_worker if use_gpu and self._is_measured(resources) else None,
            label_of(context.trial, self.stage_name) if context.trial else self.name,
        )
        with contextlib.ExitStack() as own:
            slots = context.slots or own.enter_context(open_slots(attempt.store, shared=False))
            slots.run(work, resources, self.digest, _news(self.digest, context.on_report))
        with attempt.store.fs.open_input_stream(f"{attempt.base}/trainer.json") as stream:
            facts = json.loads(stream.read())
        return {**facts, "workers": resources.workers, "groups": len(groups)}

    def check(self, groups: GroupReader, budget: int, *, use_gpu: bool) -> None:
        """Refuse, before workers start, what would fail in them.

        Raises:
            ConfigError: too few groups, no teacher values that the loss can fit, a token budget
                below one pair, or fp16 without a GPU.
        """
        where, loss = f"stages.{self.stage_name}", self.config.loss
        used = min(len(groups), self.config.limit or len(groups))
        if used < (share := self.config.queries_per_step):
            raise ConfigError(f"{where}.queries_per_step: {too_few(used, share)}")
        if loss.uses == "teacher" and not groups.has_teacher:
            raise ConfigError(
                f"{where}.loss: {loss.type} fits a teacher's values, and {self.groups.name} has "
                "none for some of its groups; set `teacher`, or use a loss on labels"
            )
        if problem := _refused(loss, groups, used):
            raise ConfigError(f"{where}.loss: {problem}")
        if problem := _below_one_pair(self.tokens_at_a_time(budget), self.truncation.longest):
            raise ConfigError(problem)
        if self.precision == "fp16" and not use_gpu:
            raise ConfigError(NO_FP16)

    def _check_validated(self, inputs: Mapping[str, Artifact], workers: int) -> None:
        """Refuse, before workers start, groups of validation queries that have no loss.

        Raises:
            ConfigError: they are too few, or have no values that the loss can fit.
        """
        where, loss = "evaluation.selection: loss", self.config.loss
        groups = GroupReader(of_loss(inputs)["groups"].local())
        least = max(workers, 2 if over_group_and_step(loss)[1] else 1)
        if len(groups) < least:
            raise ConfigError(
                f"{where}: expected at least {least} groups of validation queries for the stage "
                f"{self.stage_name}, found {len(groups)}; take more queries in data.validation, or "
                "select by a measure"
            )
        if loss.uses == "teacher" and not groups.has_teacher:
            raise ConfigError(
                f"{where}: {loss.type} fits a teacher's values, and the teacher has none for some "
                "groups of the validation queries; name one that has, or select by a measure"
            )
        if problem := _refused(loss, groups, len(groups)):
            raise ConfigError(f"{where}: {problem}")

    def checkpoints(self, attempt: Attempt) -> Checkpoints:
        """The checkpoints of this stage's unfinished training, in a folder of the attempt's own.

        Those that other attempts left are read; raypipe 0.1 kept them in `train-<digest>`.
        """
        folders = [f"{folder}/{_TRAINING}" for folder in attempt.others()]
        earlier = f"{attempt.store.root}/{self.path}/train-{self.digest}"
        return Checkpoints(
            attempt.store.fs,
            f"{attempt.base}/{_TRAINING}",
            {name: artifact.checksum for name, artifact in sorted(attempt.inputs.items())},
            self.config.checkpoints_kept,
            (*folders, earlier),
        )


def label_of(trial: str, stage_name: str) -> str:
    """What lines on a stage of a trial begin with; stages of other trials may have its name."""
    return trial if trial == stage_name else f"{trial}, {stage_name}"


def history(checkpoint: Artifact) -> list[dict[str, float]]:
    """The rows of a stage's training history, in order."""
    lines = (checkpoint.local() / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _below_one_pair(budget: int, longest: int) -> str | None:
    """Words of the error for a token budget that the longest pair exceeds; None if it fits."""
    if budget >= longest:
        return None
    return (
        f"resources.micro_batch_tokens: {budget} are fewer than one pair of the truncation has, "
        f"{longest}; raise it, or shorten truncation"
    )


def _refused(loss: Loss, groups: GroupReader, used: int) -> str | None:
    """Why the loss cannot fit the targets of the first `used` groups; None if it can."""
    relevance, teacher = groups.values(used)
    known = teacher[np.isfinite(teacher)]
    if loss.compares and groups.compared == 0:
        return (
            f"{loss.type} fits a pairwise teacher's comparisons, and the teacher compared no two "
            "documents of one group; take negatives from the ranks that it compares "
            "(negatives.type=top_k)"
        )
    problem = loss.refuses("labels", 0.0, float(relevance.max()))
    if problem is None and len(known):
        problem = loss.refuses("teacher", float(known.min()), float(known.max()))
    return problem


@dataclass(frozen=True)
class StageWork:
    """A stage as the work of a training slot."""

    stage: Stage
    attempt: Attempt
    checkpoints: Checkpoints
    budget: int
    """Tokens whose activations are in memory at a time in training."""
    batch_tokens: int
    """Padded tokens per forward pass of validation."""
    use_gpu: bool
    strategy: str
    gpu_share: float | None = None
    """Of a card that a worker has, where its memory decides the budget; else None."""
    label: str = ""
    """What the worker's lines begin with."""

    def run(self, rank: int, world: int, tell: Callable[[dict[str, Any]], bool]) -> None:
        from raypipe.stages.worker import train_worker  # only workers wait for its libraries

        train_worker(vars(self), tell)


def _news(
    digest: str, on_report: Callable[[str, dict[str, Any]], None] | None
) -> Callable[[dict[str, Any]], None]:
    """Hands every row of a stage's history to `on_report` once.

    Workers that were started again report all rows from the first step on.
    """
    known: set[tuple[float, bool]] = set()

    def forward(report: dict[str, Any]) -> None:
        rows = [row for row in report["rows"] if _key(row) not in known]
        known.update(_key(row) for row in rows)
        if rows and on_report is not None:
            on_report(digest, {**report, "rows": rows})

    return forward


def _key(row: Mapping[str, float]) -> tuple[float, bool]:
    return row["step"], "loss" in row
