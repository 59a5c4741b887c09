"""The experiment: the typed root of a recipe, and the steps it stands for.

The methods name steps; they compute nothing. Read them as a paper's method section: candidates,
groups, teacher, stages, runs, metrics.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raypipe.artifacts import Step, Store
from raypipe.config import NOT_SEMANTIC, Config, ConfigError, nearest
from raypipe.data.sets import Collection, Queries, QuerySet
from raypipe.data.truncation import LongestFirst, Truncation
from raypipe.evaluation.measures import parse_measures
from raypipe.files import home
from raypipe.inference.lists import Lists
from raypipe.inference.metrics import Metrics, OracleRun, TeacherRun
from raypipe.inference.score import CrossEncoderRun, Reranking
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder, Precision
from raypipe.resources import Resources
from raypipe.sources import Bm25, Source
from raypipe.teachers import Teacher
from raypipe.train.settings import StageConfig
from raypipe.train.stage import Stage
from raypipe.training_set import TrainingData, TrainingSet

Role = Literal["train", "validation", "test"]
ARROW = "->"


class Data(Config):
    """Three disjoint query sets; test queries are read by the final evaluation only."""

    train: QuerySet
    validation: QuerySet
    test: QuerySet


class Evaluation(Config):
    """How runs are judged."""

    depth: int = Field(50, ge=1)
    """Candidates re-ranked per test query; deeper ones keep their first-stage order behind them."""
    validation_depth: int = Field(20, ge=1)
    """The same for validation during training."""
    measures: tuple[str, ...] = Field(("nDCG@10", "RR@10", "Judged@10"), min_length=1)
    """Names as in ir-measures."""
    selection: str = "nDCG@10"
    """The measure on validation queries by which the best checkpoint is kept."""
    ensembles: tuple[Literal["seeds", "average", "interpolation"], ...] = ()
    """Rows that cost no training: the mean of the z-scores of all seeds, the mean of their weights,
    and scores mixed with the first stage's by a weight chosen on validation queries."""


class Sweep(Config):
    """What varies between trials."""

    mode: Literal["compare"] = "compare"
    """compare: every combination, nothing stopped early, significance tests."""
    space: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    """Dotted key to values: a list, or a mapping from the name in tables to the value."""


class Experiment(Config):
    """One recipe."""

    name: str = Field(min_length=1)
    """Of the tracked experiment."""
    data: Data
    candidates: Source = Bm25()
    """The first stage: its lists are trained on, validated on and re-ranked."""
    groups: TrainingSet = TrainingSet()
    """What every stage trains on that names no groups itself."""
    teacher: Teacher | None = None
    """Gives the values that distillation losses fit."""
    model: CrossEncoder
    truncation: Truncation = LongestFirst()
    """What the cross-encoder reads of a pair."""
    stages: dict[str, StageConfig] = Field(min_length=1)
    """By name, in order."""
    order: tuple[str, ...] | None = None
    """Which stages run, such as `contrastive -> distil`; None is all of them in order."""
    evaluation: Evaluation = Evaluation()
    reference: str | None = None
    """The row that every other one is tested against, fixed before the results are known."""
    seed: int = 1
    """Of head initialisation, query order and dropout."""
    precision: Precision = "bf16"
    """Of matrix products in training and scoring; weights stay float32."""
    sweep: Sweep = Sweep()
    resources: Annotated[Resources, NOT_SEMANTIC] = Resources()
    storage: Annotated[str | None, NOT_SEMANTIC] = None
    """Directory or URI of the artifacts; None is $RAYPIPE_HOME/storage."""
    storage_shared: Annotated[bool, NOT_SEMANTIC] = False
    """A storage directory is the same on every node (NFS)."""
    tracking: Annotated[str | None, NOT_SEMANTIC] = None
    """MLflow URI; None is $MLFLOW_TRACKING_URI, or a file under $RAYPIPE_HOME."""

    @field_validator("order", mode="before")
    @classmethod
    def _split_order(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(ARROW)]
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name in self.order or ():
            if name not in self.stages:
                raise ValueError(f"order: there is no stage {name!r}{nearest(name, self.stages)}")
        try:
            parse_measures(self.evaluation.measures)
        except ValueError as error:
            raise ValueError(f"evaluation.measures: {error}") from None
        if self.evaluation.selection not in self.evaluation.measures:
            raise ValueError(
                f"evaluation.selection: {self.evaluation.selection!r} is not measured"
                f"{nearest(self.evaluation.selection, self.evaluation.measures)}"
            )
        for key in ("depth", "validation_depth"):
            if (depth := getattr(self.evaluation, key)) > self.candidates.depth:
                raise ValueError(
                    f"evaluation.{key}: {depth} is more than candidates.depth="
                    f"{self.candidates.depth}; raise that one"
                )
        for name in self.stage_names:
            self._check_stage(name)
        return self

    def _check_stage(self, name: str) -> None:
        loss, data = self.stages[name].loss, self.training(name)
        self.stages[name].check(f"stages.{name}", self.resources, self.truncation.longest)
        if loss.uses == "teacher":
            if data.teacher is None:
                raise ValueError(f"stages.{name}.loss: {loss.type} needs a teacher; set `teacher`")
            if data.teacher.values not in loss.teacher_kinds:
                raise ValueError(
                    f"stages.{name}.loss: {loss.type} cannot use the {data.teacher.type} teacher, "
                    f"which gives a {data.teacher.values}; it needs "
                    f"{' or '.join(sorted(loss.teacher_kinds))}"
                )
        if loss.needs_positive and not data.training_set.every_group_has_a_positive:
            raise ValueError(
                f"stages.{name}.loss: {loss.type} needs a positive in every group, but "
                f"groups.positives is {data.training_set.positives}; use inject or drop"
            )
        data.problems("groups" if self.stages[name].groups is None else f"stages.{name}.groups")

    # --- what is named -------------------------------------------------------------------------

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of this experiment, in order."""
        return self.order or tuple(self.stages)

    def groups_of(self, stage: str) -> TrainingSet:
        """The stage's own training set, or the recipe's."""
        return self.stages[stage].groups or self.groups

    def training(self, stage: str | None = None) -> TrainingData:
        """The training set of a stage, or the recipe's own, with every default filled in."""
        one = self.groups if stage is None else self.groups_of(stage)
        return TrainingData(
            one,
            one.queries or self.data.train,
            one.candidates or self.candidates,
            one.teacher or self.teacher,
            self.precision,
            self.evaluation.depth,
        )

    def training_sets(self) -> dict[str, TrainingData]:
        """The distinct training sets of this experiment's stages, by the stages that use them."""
        users: dict[str, list[str]] = {}
        sets: dict[str, TrainingData] = {}
        for name in self.stage_names:
            data = self.training(name)
            key = data.training_set.model_dump_json()
            users.setdefault(key, []).append(name)
            sets[key] = data
        return {", ".join(names): sets[key] for key, names in users.items()}

    def store(self) -> Store:
        return Store(self.storage or str(home() / "storage"))

    def tracking_uri(self) -> str | None:
        return self.tracking or os.environ.get("MLFLOW_TRACKING_URI")

    def check(self, *, model: bool = True) -> None:
        """Everything outside the recipe that must be there, before work starts.

        Args:
            model: the backbone too; mining needs none.

        Raises:
            ConfigError: data set, split, run file, model, measure or storage is not usable; the
                model has fewer positions than `truncation` reads or fewer layers than are frozen.
        """
        for role in ("train", "validation", "test"):
            try:
                getattr(self.data, role).open().check()
            except ConfigError as error:
                raise ConfigError(f"data.{role}: {error}") from None
        self.candidates.check()
        if self.teacher is not None:
            self.teacher.check()
        for stages, data in self.training_sets().items():
            try:
                data.check()
            except ConfigError as error:
                raise ConfigError(f"groups of {stages}: {error}") from None
        if model:
            lengths = {f"truncation.{self.truncation.length_fields}": self.truncation.longest}
            stages = {name: self.stages[name].freeze.layers for name in self.stage_names}
            frozen = {f"stages.{name}.freeze.layers": n for name, n in stages.items()}
            self.model.check(lengths, frozen)
        self.store().check_writable()

    # --- the method section --------------------------------------------------------------------

    def collection(self, role: Role) -> Collection:
        return Collection(getattr(self.data, role))

    def queries(self, role: Role) -> Queries:
        return Queries(getattr(self.data, role), require_positive=role == "train")

    def query_sets(self) -> list[Queries]:
        """Every set of queries that is read: for training, validation and test."""
        roles: tuple[Role, ...] = ("validation", "test")
        training = [data.queries() for data in self.training_sets().values()]
        return [*training, *(self.queries(role) for role in roles)]

    def first_stage(self, role: Role) -> Step:
        """Candidate lists of the role's queries."""
        return self.candidates.candidates(self.collection(role), self.queries(role), self.precision)

    def teacher_scores(self, role: Role, depth: int) -> Step:
        """The recipe's teacher on the candidates of an evaluation."""
        assert self.teacher is not None, "checked when the recipe was read"
        lists = Lists(
            self.first_stage(role), None, self.collection(role), self.queries(role), depth
        )
        return self.teacher.scores(lists, self.precision)

    def reranking(self, role: Role) -> Reranking:
        """The role's candidate lists with the tokens of this backbone."""
        backbone = Backbone(self.model.backbone)
        collection, queries = self.collection(role), self.queries(role)
        tokens = (Tokens(queries, backbone), Tokens(collection, backbone))
        return Reranking(self.first_stage(role), queries, collection, *tokens)

    def trained(self) -> Stage:
        """The last stage; `chain()` gives those before it."""
        step: Step = Backbone(self.model.backbone)
        for name in self.stage_names:
            step = self._stage(name, step)
        assert isinstance(step, Stage)
        return step

    def _stage(self, name: str, start: Step) -> Stage:
        data, backbone = self.training(name), Backbone(self.model.backbone)
        return Stage(
            stage_name=name,
            config=self.stages[name],
            model=self.model,
            truncation=self.truncation,
            start=start,
            groups=data.groups(),
            query_tokens=Tokens(data.queries(), backbone),
            doc_tokens=Tokens(data.collection(), backbone),
            validation=self.reranking("validation"),
            teacher_kind="score" if data.teacher is None else data.teacher.values,
            measures=self.evaluation.measures,
            selection=self.evaluation.selection,
            depth=self.evaluation.validation_depth,
            seed=self.seed,
            precision=self.precision,
        )

    def run_of(self, weights: Step, role: Role = "test") -> CrossEncoderRun:
        """The role's candidates re-ranked by a trained stage or a backbone that ships a scorer."""
        return CrossEncoderRun(
            weights,
            self.model,
            self.truncation,
            self.reranking(role),
            self.evaluation.depth,
            self.precision,
        )

    def metrics(self, run: Step) -> Metrics:
        """Per-query metrics of a run on the test queries."""
        return Metrics(run, self.queries("test"), self.evaluation.measures)

    def oracle(self) -> OracleRun:
        return OracleRun(self.first_stage("test"), self.queries("test"), self.evaluation.depth)

    def teacher_run(self) -> TeacherRun:
        """Test candidates in the teacher's order."""
        assert self.teacher is not None
        return TeacherRun(
            self.teacher_scores("test", self.evaluation.depth),
            self.teacher.values,
            self.first_stage("test"),
            self.queries("test"),
            self.evaluation.depth,
        )
