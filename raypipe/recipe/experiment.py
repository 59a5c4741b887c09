"""The experiment: the typed root of a recipe, and the steps it stands for.

The methods name steps; they compute nothing. Read them as a paper's method section: candidates,
groups, teacher, stages, runs, metrics.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raypipe.candidates import Source
from raypipe.candidates.bm25.source import Bm25
from raypipe.config import NOT_SEMANTIC, Config, ConfigError, nearest, twice_in
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.evaluation.measures import bounded
from raypipe.evaluation.report.published import Published
from raypipe.evaluation.results import MAIN
from raypipe.groups.training_set import TrainingData, TrainingSet
from raypipe.inference.lists import Lists
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import LongestFirst, Truncation
from raypipe.models.backbone import Backbone
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.names import Name
from raypipe.recipe.evaluation_sets import Evaluation, EvaluationSet, Untrained
from raypipe.recipe.space import Sweep
from raypipe.recipe.stage_checks import check_stage
from raypipe.recipe.untrained import check_untrained, untrained_scorer
from raypipe.resources import Resources, default_precision
from raypipe.runs.baselines import OracleRun, TeacherRun
from raypipe.runs.metrics import Metrics
from raypipe.runs.rerank import CrossEncoderRun, Reranking
from raypipe.stages.stage import Stage, StageConfig
from raypipe.storage.address import Address
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.files import home
from raypipe.teachers import Teacher
from raypipe.tracking.client import check_scheme

Role = str
"""train, validation, test, or the name of a further test set."""
ARROW = "->"


@contextlib.contextmanager
def _blamed_on(path: str) -> Iterator[None]:
    """Errors of the body begin with the dotted path of the field that named what is wrong."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


class Data(Config):
    """Three disjoint query sets; test queries are read by the final evaluation only."""

    train: QuerySet
    """Its queries, and the documents that they judge, are trained on."""
    validation: QuerySet
    """Chooses the checkpoint of a stage, the trial of a search, the weight of an interpolation."""
    test: QuerySet
    """Judges the finished rows, and nothing before."""


class Experiment(Config):
    """One recipe."""

    name: Name
    """Of the tracked experiment."""
    data: Data
    """Which queries are trained on, which choose, which judge."""
    candidates: Source = Bm25()
    """The first stage: its lists are trained on, validated on and re-ranked."""
    groups: TrainingSet = TrainingSet()
    """What the stages train on that name no groups of their own."""
    teacher: Teacher | None = None
    """Gives the values that distillation losses fit."""
    model: CrossEncoder
    """The backbone that all stages of a trial begin from, and its head."""
    truncation: Truncation = LongestFirst()
    """What the cross-encoder reads of a pair."""
    stages: dict[Name, StageConfig] = Field(min_length=1)
    """By name, in order."""
    order: tuple[str, ...] | None = None
    """Which stages run, such as `contrastive -> distil`; None is all of them in order."""
    evaluation: Evaluation = Evaluation()
    """How rows are judged: depth, measures, further rows and test sets, statistics."""
    reference: tuple[str, ...] = ()
    """The rows that the others are tested against, one name or a list, fixed before the results are
    known."""
    published: tuple[Published, ...] = ()
    """Values of papers, shown beside the rows on the same data over the same first stage."""
    seed: int = Field(1, ge=0)
    """Of head initialisation, query order and dropout."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", validate_default=True)
    """Of matrix products in training and scoring; weights stay float32. auto is settled when the
    recipe is read: bf16 on GPUs, on a cluster and on CPUs that have bf16 products, else fp32."""
    sweep: Sweep = Sweep()
    """What varies between trials, such as losses, backbones, stage orders and seeds."""
    resources: Annotated[Resources, NOT_SEMANTIC] = Resources()
    """How much of the cluster the job uses."""
    storage: Annotated[Address | None, NOT_SEMANTIC] = None
    """Directory or URI of the artifacts; None is $RAYPIPE_HOME/storage."""
    storage_shared: Annotated[bool, NOT_SEMANTIC] = False
    """A storage directory is the same on every node (NFS)."""
    tracking: Annotated[Address | None, NOT_SEMANTIC] = None
    """MLflow URI; None is $MLFLOW_TRACKING_URI, or a file under $RAYPIPE_HOME."""

    @field_validator("reference", mode="before")
    @classmethod
    def _one_or_none(cls, value: Any) -> Any:
        return () if value is None else (value,) if isinstance(value, str) else value

    @field_validator("reference")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if twice := twice_in(names):
            raise ValueError(f"expected every row once, found {twice!r} twice; name it once")
        return names

    @field_validator("name")
    @classmethod
    def _own(cls, name: str) -> str:
        if name == "Default":
            raise ValueError(
                "expected another name than that of MLflow's own experiment, whose files go below "
                "the working directory; rename the recipe"
            )
        return name

    @field_validator("precision")
    @classmethod
    def _settled(cls, value: str) -> str:
        return default_precision() if value == "auto" else value

    @field_validator("order", mode="before")
    @classmethod
    def _split_order(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(ARROW)]
        return value

    @model_validator(mode="after")
    def _tracked_somewhere(self) -> Experiment:
        with _blamed_on("tracking"):  # as a check of all fields, which shows no password
            check_scheme(self.tracking or "")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name in self.order or ():
            if name not in self.stages:
                raise ValueError(f"order: there is no stage {name!r}{nearest(name, self.stages)}")
        for key in ("depth", "validation_depth"):
            if (depth := getattr(self.evaluation, key)) > self.candidates.depth:
                raise ValueError(
                    f"evaluation.{key}: {depth} is more than candidates.depth="
                    f"{self.candidates.depth}; raise that one"
                )
        for name in self.evaluation.sets:
            depth, source = self.depth(name), self.source(name)
            if depth > source.depth:
                raise ValueError(
                    f"evaluation.sets.{name}.depth: {depth} is more than its candidates' depth="
                    f"{source.depth}; raise that one"
                )
        for name in self.stage_names:
            stage, data = self.stages[name], self.training(name)
            check_stage(name, stage, data, self.resources, self.truncation.longest)
        return self

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
        chosen = self.groups if stage is None else self.groups_of(stage)
        return TrainingData(
            chosen,
            chosen.queries or self.data.train,
            chosen.candidates or self.candidates,
            chosen.teacher or self.teacher,
            self.precision,
            self.evaluation.depth,
        )

    def training_sets(self) -> dict[tuple[str, ...], TrainingData]:
        """The distinct training sets of this experiment's stages, by the stages that use them."""
        users: dict[str, list[str]] = {}
        sets: dict[str, TrainingData] = {}
        for name in self.stage_names:
            data = self.training(name)
            key = data.training_set.model_dump_json()
            users.setdefault(key, []).append(name)
            sets[key] = data
        return {tuple(names): sets[key] for key, names in users.items()}

    def test_sets(self) -> dict[str, EvaluationSet]:
        """Everything that finished runs are judged on, the recipe's own test set first."""
        main = self._judged(MAIN)
        return {MAIN: main, **self.evaluation.sets, **self.evaluation.suite_sets()}

    def _judged(self, role: Role) -> EvaluationSet:
        if role in ("train", "validation", MAIN):
            return EvaluationSet(queries=getattr(self.data, role))
        return self.evaluation.named(role)

    def query_set(self, role: Role) -> QuerySet:
        """The queries of a role."""
        return self._judged(role).queries

    def source(self, role: Role) -> Source:
        """The first stage of a role."""
        return self._judged(role).candidates or self.candidates

    def depth(self, role: Role = MAIN) -> int:
        """Candidates re-ranked per query."""
        return self._judged(role).depth or self.evaluation.depth

    def measures(self, role: Role = MAIN) -> tuple[str, ...]:
        """What a role is judged by; AP by the depth of the role's lists."""
        names = self._judged(role).measures or self.evaluation.measures
        return tuple(dict.fromkeys(bounded(name, self.source(role).depth) for name in names))

    @property
    def selection(self) -> str:
        """The measure that chooses checkpoints, by the depth of the validation lists."""
        return bounded(self.evaluation.selection, self.source("validation").depth)

    def store(self) -> Store:
        return Store(self.storage or str(home() / "storage"))

    def tracking_uri(self) -> Address | None:
        named = self.tracking or os.environ.get("MLFLOW_TRACKING_URI")
        return Address(named) if named else None

    def check(self, *, model: bool = True) -> None:
        """Everything outside the recipe that must be there, before work starts.

        Args:
            model: whether the backbone is checked; mining needs none.

        Raises:
            ConfigError: data set, split, run file, model, measure or storage is not usable; the
                model has fewer positions than `truncation` reads or fewer layers than are frozen.
        """
        self.resources.check_precision(self.precision)
        for role in ("train", "validation", "test"):
            with _blamed_on(f"data.{role}"):
                getattr(self.data, role).open().check()
        self.candidates.check()
        for name, test_set in self.evaluation.sets.items():
            with _blamed_on(f"evaluation.sets.{name}"):
                test_set.queries.open().check()
                if test_set.candidates is not None:
                    test_set.candidates.check()
        if self.evaluation.suites:
            with _blamed_on("evaluation.suite_candidates"):
                self.evaluation.suite_candidates.check()
        if self.teacher is not None:
            self.teacher.check()
        for stages, data in self.training_sets().items():
            with _blamed_on(f"groups of {', '.join(stages)}"):
                data.check()
        if model:
            lengths = {f"truncation.{self.truncation.length_fields}": self.truncation.longest}
            frozen = {
                f"stages.{name}.freeze.layers": self.stages[name].freeze.layers
                for name in self.stage_names
            }
            self.model.check(lengths, frozen)
            if self.evaluation.untrained:
                check_untrained(self.model)
        with _blamed_on("MLFLOW_TRACKING_URI"):
            check_scheme(self.tracking_uri() or "")
        self.store().check_writable()

    # --- the method section --------------------------------------------------------------------

    def collection(self, role: Role) -> Collection:
        return Collection(self.query_set(role))

    def queries(self, role: Role) -> Queries:
        return Queries(self.query_set(role), require_positive=role == "train")

    def query_sets(self) -> Mapping[str, Queries]:
        """Every set of queries that must be there, by its use: training, validation, test sets."""
        training = {
            f"training of {', '.join(stages)}": data.queries()
            for stages, data in self.training_sets().items()
        }
        roles = ["validation", MAIN, *self.evaluation.sets]
        return {**training, **{role: self.queries(role) for role in roles}}

    def first_stage(self, role: Role) -> Step:
        """Candidate lists of the role's queries."""
        return self.source(role).candidates(
            self.collection(role), self.queries(role), self.precision
        )

    def teacher_scores(self, role: Role, depth: int) -> Step:
        """The recipe's teacher on the candidates of an evaluation."""
        assert self.teacher is not None, "checked when the recipe was read"
        return self.teacher.scores(self._lists(role, depth), self.precision)

    def _lists(self, role: Role, depth: int) -> Lists:
        candidates, collection = self.first_stage(role), self.collection(role)
        return Lists(candidates, None, collection, self.queries(role), depth)

    def untrained_scores(self, how: Untrained, role: Role, depth: int) -> Step:
        """The backbone's own vectors on the candidates of an evaluation."""
        scorer = untrained_scorer(how, self.model, self.teacher)
        return scorer.scores(self._lists(role, depth), self.precision)

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
            measures=self.measures("validation"),
            selection=self.selection,
            depth=self.evaluation.validation_depth,
            seed=self.seed,
            precision=self.precision,
        )

    def run_of(self, weights: Step, role: Role = MAIN) -> CrossEncoderRun:
        """The role's candidates re-ranked by a trained stage or a backbone that ships a scorer."""
        return CrossEncoderRun(
            weights,
            self.model,
            self.truncation,
            self.reranking(role),
            self.depth(role),
            self.precision,
        )

    def metrics(self, run: Step, role: Role = MAIN) -> Metrics:
        """Per-query metrics of a run on the role's queries."""
        return Metrics(run, self.queries(role), self.measures(role))

    def oracle(self, role: Role = MAIN) -> OracleRun:
        return OracleRun(self.first_stage(role), self.queries(role), self.depth(role))

    def teacher_run(self, role: Role = MAIN) -> TeacherRun:
        """Candidates in the teacher's order."""
        assert self.teacher is not None
        scores = self.teacher_scores(role, self.depth(role))
        return self._run_by(scores, self.teacher.values, role)

    def untrained_run(self, how: Untrained, role: Role = MAIN) -> TeacherRun:
        """Candidates in the order of the backbone's own vectors."""
        return self._run_by(self.untrained_scores(how, role, self.depth(role)), "score", role)

    def _run_by(self, scores: Step, values: str, role: Role) -> TeacherRun:
        candidates, queries = self.first_stage(role), self.queries(role)
        return TeacherRun(scores, values, candidates, queries, self.depth(role))
