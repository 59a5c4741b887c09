"""The experiment: the typed root of a recipe, and the steps it stands for.

The methods name steps; they compute nothing. Read them as a paper's method section: candidates,
groups, teacher, stages, runs, metrics.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raypipe.candidates import Source
from raypipe.candidates.bm25.source import Bm25
from raypipe.candidates.dense.source import Dense
from raypipe.candidates.trained import candidates_by, retrieved_by
from raypipe.config import NOT_SEMANTIC, Config, ConfigError, nearest, twice_in
from raypipe.datasets.steps import Collection, Listed, Queries, QuerySet
from raypipe.evaluation.measures import bounded
from raypipe.evaluation.own_measures import fit_to_travel
from raypipe.evaluation.report.first_documents import ReportOptions
from raypipe.evaluation.report.published import Published
from raypipe.evaluation.results import MAIN
from raypipe.groups.training_set import MinedSet, TrainingData, TrainingSet
from raypipe.inference.lists import Lists
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import LongestFirst, Reading, TextLengths, Truncation
from raypipe.models.any_model import AnyModel, cross_encoder_unless_named, settled
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.names import Name
from raypipe.recipe.bi_encoder_checks import (
    check_averages,
    check_bi_encoders,
    check_cross_encoders,
)
from raypipe.recipe.evaluation_sets import Evaluation, EvaluationSet, Untrained
from raypipe.recipe.list_stages import Encoders
from raypipe.recipe.space import Sweep
from raypipe.recipe.stage_checks import check_loss_groups, check_stage
from raypipe.recipe.stage_models import check_models, check_models_files
from raypipe.recipe.untrained import check_untrained, untrained_scorer
from raypipe.resources import Resources, default_precision
from raypipe.runs.baselines import OracleRun, TeacherRun
from raypipe.runs.existing import ExistingRun, RunRow
from raypipe.runs.existing_model import ModelRow
from raypipe.runs.metrics import Metrics
from raypipe.runs.rerank import BiEncoderRun, CrossEncoderRun, Reranking
from raypipe.stages.loss_groups import LossGroups
from raypipe.stages.stage import Stage, StageConfig
from raypipe.storage.address import Address
from raypipe.storage.artifacts import Step, Store
from raypipe.storage.files import home
from raypipe.synthesis.synthetic import AnyQueries, Synthetic
from raypipe.teachers import Teacher
from raypipe.tracking.client import check_scheme
from raypipe.tracking.section import Tracking, not_mlflows_own
from raypipe.train.settings import LOSS

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

    train: AnyQueries
    """Its queries, and the documents that they judge, are trained on."""
    validation: AnyQueries
    """Chooses the checkpoint of a stage, the trial of a search, the weight of an interpolation."""
    test: AnyQueries
    """Judges the finished rows, and nothing before."""

    @model_validator(mode="after")
    def _judged_apart(self) -> Data:
        for role in ("validation", "test"):
            queries = getattr(self, role)
            if isinstance(queries, Synthetic) and queries.split == "train":
                raise ValueError(
                    f"{role}: expected other passages than those of training, found split=train; "
                    f"set data.{role}.split={role}"
                )
        return self


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
    model: AnyModel
    """What the stages of a trial train that name no model of their own: a backbone with a head over
    pairs (`type: cross_encoder`, which is meant where no type is given), or one that gives vectors
    of texts (`bi_encoder`)."""
    truncation: Truncation = LongestFirst()
    """What the cross-encoder reads of a pair; a bi-encoder's own fields say its lengths."""
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
    """Values of papers, shown beside the rows on the same data over the same first stage: a list,
    or the name of a JSON or YAML file that holds it, relative to the recipe."""
    seed: int = Field(1, ge=0)
    """Of head initialisation, query order and dropout."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field("auto", validate_default=True)
    """Of matrix products in training and scoring; weights stay float32. auto is settled when the
    recipe is read: bf16 on GPUs, on a cluster and on CPUs that have bf16 products, else fp32."""
    sweep: Sweep = Sweep()
    """What varies between trials, such as losses, backbones, stage orders and seeds."""
    resources: Annotated[Resources, NOT_SEMANTIC] = Resources()
    """How much of the cluster the job uses."""
    report: Annotated[ReportOptions, NOT_SEMANTIC] = ReportOptions()
    """What the report shows of the data."""
    storage: Annotated[Address | None, NOT_SEMANTIC] = None
    """Directory or URI of the artifacts; None is $RAYPIPE_HOME/storage."""
    storage_shared: Annotated[bool, NOT_SEMANTIC] = False
    """A storage directory is the same on every node (NFS)."""
    tracking: Annotated[Tracking, NOT_SEMANTIC] = Tracking()
    """Where and under which names the job is tracked; an address alone is `tracking.uri`."""

    @field_validator("model", mode="before")
    @classmethod
    def _typed(cls, value: Any) -> Any:
        return cross_encoder_unless_named(value)

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
        not_mlflows_own(name)
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
            check_scheme(self.tracking.uri or "")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        for name in self.order or ():
            if name not in self.stages:
                raise ValueError(f"order: there is no stage {name!r}{nearest(name, self.stages)}")
        Encoders(self).check()
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
        check_models(self._models_in_order)
        trained = dict.fromkeys([*self.stage_names, *Encoders(self).trained])
        for name in trained:
            longest = self._read_by(self.model_of(name)).longest
            stage, data = self.stages[name], self.training(name)
            check_stage(name, stage, data, self.resources, longest)
            if self.evaluation.selection == LOSS:
                check_loss_groups(name, stage, self.validation_groups(name), data)
        running = {name: (self.stages[name], self.model_of(name)) for name in trained}
        every = [self.model_of(name) for name in self.stages]
        check_bi_encoders(running, every, self.truncation, self.resources)
        check_averages(self.last_model, self.evaluation)
        check_cross_encoders(running, every, self.evaluation)
        return self

    # --- what is named -------------------------------------------------------------------------

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of this experiment, in order."""
        return self.order or tuple(self.stages)

    def up_to(self, stage: str) -> tuple[str, ...]:
        """The order up to a stage; a stage that is not in it is trained alone."""
        names = self.stage_names
        return names[: names.index(stage) + 1] if stage in names else (stage,)

    @property
    def encoders(self) -> dict[str, int]:
        """The stages whose models retrieve lists: see `Encoders.waits`."""
        return Encoders(self).waits

    def for_encoder(self, stage: str) -> Experiment:
        """The experiment that trains a stage for its vectors, and compares nothing."""
        sweep = self.sweep.replace(space={}, select={})
        return self.replace(order=self.up_to(stage), reference=None, published=(), sweep=sweep)

    def encoder(self, stage: str) -> tuple[BiEncoder, Stage]:
        """How a stage's model reads texts, and the step that trains it."""
        model = self.model_of(stage)
        assert isinstance(model, TrainedBiEncoder), "checked when the recipe was read"
        return model.part(BiEncoder), self._trained(self.up_to(stage))

    def model_of(self, stage: str) -> AnyModel:
        """The stage's own model, or the recipe's."""
        return self.stages[stage].model or self.model

    @property
    def models(self) -> dict[str, AnyModel]:
        """The models of the stages of this experiment by the stages' names, in order."""
        return {name: self.model_of(name) for name in self.stage_names}

    @property
    def _models_in_order(self) -> list[tuple[str, AnyModel]]:
        """As `models`, a stage as often as it is in the order."""
        return [(name, self.model_of(name)) for name in self.stage_names]

    @property
    def last_model(self) -> AnyModel:
        """The model of the last stage, which ranks in the trial's rows."""
        return self.model_of(self.stage_names[-1])

    @property
    def retriever(self) -> TrainedBiEncoder | None:
        """The bi-encoder that retrieves: the last stage's model, or else the first of any stage."""
        models = (self.last_model, *map(self.model_of, self.stages))
        return next((model for model in models if isinstance(model, TrainedBiEncoder)), None)

    @property
    def backbone(self) -> str:
        """What the first stage starts from, and with it all later ones."""
        return self.model_of(self.stage_names[0]).backbone

    @property
    def reading(self) -> Reading:
        """What the last stage's model reads of a query and a document."""
        return self._read_by(self.last_model)

    def _read_by(self, model: AnyModel) -> Reading:
        if isinstance(model, TrainedBiEncoder):
            return TextLengths(query=model.query_length, doc=model.max_length)
        return self.truncation

    def groups_of(self, stage: str) -> TrainingSet:
        """The stage's own training set, or the recipe's."""
        return self.stages[stage].groups or self.groups

    def training(self, stage: str | None = None) -> TrainingData:
        """The training set of a stage, or the recipe's own, with every default filled in."""
        chosen = self.groups if stage is None else self.groups_of(stage)
        source, teacher = chosen.candidates or self.candidates, chosen.teacher or self.teacher
        further = {n: self._mined(s, source, teacher) for n, s in chosen.further.items()}
        return replace(self._mined(chosen, source, teacher), further=further)

    def _mined(self, chosen: MinedSet, source: Source, teacher: Teacher | None) -> TrainingData:
        return TrainingData(
            chosen,
            self._with_test(chosen.queries or self.data.train),
            chosen.candidates or source,
            chosen.teacher or teacher,
            self.precision,
            self.evaluation.depth,
            self.encoder,
        )

    def validation_groups(self, stage: str) -> TrainingData:
        """The groups of validation queries, mined as those that the stage trains on."""
        queries = self._with_test(self.data.validation).as_trained_on()
        return replace(self.training(stage), query_set=queries, further={})

    def mined_sets(self) -> dict[tuple[str, ...], TrainingData]:
        """The distinct training sets, each followed by its further ones: `STAGE (NAME)`."""
        sets: dict[tuple[str, ...], TrainingData] = {}
        for stages, data in self.training_sets().items():
            sets[stages] = data
            for name, other in data.further.items():
                sets[tuple(f"{stage} ({name})" for stage in stages)] = other
        return sets

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
            return EvaluationSet(queries=self._with_test(getattr(self.data, role)))
        return self.evaluation.named(role)

    def _with_test(self, queries: QuerySet) -> QuerySet:
        """Synthetic queries know what is judged in the test where they hold it out."""
        return queries.judged_by(self.data.test) if isinstance(queries, Synthetic) else queries

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
        depth = self.source(role).depth
        return fit_to_travel(dict.fromkeys(bounded(name, depth) for name in names))

    @property
    def selection(self) -> str:
        """The measure that chooses checkpoints, by the depth of the validation lists; or `LOSS`."""
        chosen = self.evaluation.selection
        return LOSS if chosen == LOSS else self.compared_by

    @property
    def compared_by(self) -> str:
        """The measure that chooses between trials on validation queries: that of `selection`, and
        where the loss selects the first one, since losses of two objectives do not compare."""
        chosen = self.evaluation.selection
        name = self.evaluation.measures[0] if chosen == LOSS else chosen
        return fit_to_travel([bounded(name, self.source("validation").depth)])[0]

    def store(self) -> Store:
        return Store(self.storage or str(home() / "storage"))

    def tracking_uri(self) -> Address | None:
        named = self.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
        return Address(named) if named else None

    @property
    def tracked_experiment(self) -> str:
        """The name of MLflow's experiment."""
        return self.tracking.experiment or self.name

    @property
    def registered_model(self) -> str:
        """The name in MLflow's registry of the best model."""
        return self.tracking.registered_model or self.name

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
                self.query_set(role).check()
        self.candidates.check()
        for name, test_set in self.evaluation.sets.items():
            with _blamed_on(f"evaluation.sets.{name}"):
                test_set.queries.check()
                if test_set.candidates is not None:
                    test_set.candidates.check()
        if self.evaluation.suites:
            with _blamed_on("evaluation.suite_candidates"):
                self.evaluation.suite_candidates.check()
        for name, row in self.evaluation.rows.items():
            with _blamed_on(f"evaluation.rows.{name}"):
                row.check() if isinstance(row, RunRow) else row.check(self.tracking_uri())
        for name, slices in self.evaluation.slices.items():
            with _blamed_on(f"evaluation.slices.{name}"):
                slices.check()
        if self.teacher is not None:
            self.teacher.check()
        for stages, data in self.mined_sets().items():
            with _blamed_on(f"groups of {', '.join(stages)}"):
                data.check()
        if model:
            self._check_models()
        with _blamed_on("MLFLOW_TRACKING_URI"):
            check_scheme(self.tracking_uri() or "")
        self.store().check_writable()

    def _check_models(self) -> None:
        """Look at the files of the models of this experiment; raises as `check`."""
        for name, model in {m: (n, m) for n, m in self.models.items()}.values():
            reading = self._read_by(model)
            lengths = {f"truncation.{reading.length_fields}": reading.longest}
            frozen = {
                f"stages.{stage}.freeze.layers": self.stages[stage].freeze.layers
                for stage, other in self.models.items()
                if other == model
            }
            own = self.stages[name].model is not None
            with _blamed_on(f"stages.{name}") if own else contextlib.nullcontext():
                model.check(lengths, frozen)
        check_models_files(self._models_in_order)
        if self.evaluation.untrained:
            check_untrained(self.last_model)

    # --- the method section --------------------------------------------------------------------

    def collection(self, role: Role) -> Collection:
        return Collection(self.query_set(role))

    def queries(self, role: Role) -> Queries:
        return self.query_set(role).chosen(
            require_positive=role == "train", precision=self.precision
        )

    def query_sets(self) -> Mapping[str, Queries]:
        """Every set of queries that must be there, by its use: training, validation, test sets."""
        training = {
            f"training of {', '.join(stages)}": data.queries()
            for stages, data in self.mined_sets().items()
        }
        roles = ["validation", MAIN, *self.evaluation.sets]
        return {**training, **{role: self.queries(role) for role in roles}}

    def first_stage(self, role: Role) -> Step:
        """Candidate lists of the role's queries."""
        return self._retrieved(self.source(role), role)

    def _retrieved(self, source: Source, role: Role) -> Step:
        collection, queries = self.collection(role), self.queries(role)
        return candidates_by(source, collection, queries, self.precision, self.encoder)

    def teacher_scores(self, role: Role, depth: int) -> Step:
        """The recipe's teacher on the candidates of an evaluation."""
        assert self.teacher is not None, "checked when the recipe was read"
        return self.teacher.scores(self._lists(role, depth), self.precision)

    def _lists(self, role: Role, depth: int) -> Lists:
        candidates, collection = self.first_stage(role), self.collection(role)
        return Lists(candidates, None, collection, self.queries(role), depth)

    def untrained_scores(self, how: Untrained, role: Role, depth: int) -> Step:
        """The backbone's own vectors on the candidates of an evaluation."""
        scorer = untrained_scorer(how, self.last_model, self.teacher)
        return scorer.scores(self._lists(role, depth), self.precision)

    def reranking(self, role: Role) -> Reranking:
        """The role's candidate lists with the tokens of the last stage's model."""
        return self._reranking(role, self.last_model, self.source(role))

    def _reranking(self, role: Role, model: AnyModel, source: Source) -> Reranking:
        collection, queries = self.collection(role), self.queries(role)
        lists, tokens = self._retrieved(source, role), _tokens(model, queries, collection)
        return Reranking(lists, queries, collection, *tokens)

    def trained(self) -> Stage:
        """The last stage; `chain()` gives those before it."""
        return self._trained(self.stage_names)

    def _trained(self, names: tuple[str, ...]) -> Stage:
        """The last of these stages, each of which starts from the one before."""
        step: Step = Backbone(self.model_of(names[0]).backbone)
        before: list[AnyModel] = []
        for name in names:
            model = self.model_of(name)
            changed = any(other != model for other in before)
            step = self._stage(name, settled(model) if changed else model, step)
            before.append(model)
        assert isinstance(step, Stage)
        return step

    def _stage(self, name: str, model: AnyModel, start: Step) -> Stage:
        data = self.training(name)
        query_tokens, doc_tokens = _tokens(model, data.queries(), data.collection())
        source = Encoders(self).validation_source(name)
        return Stage(
            stage_name=name,
            config=self.stages[name],
            model=model,
            truncation=self._read_by(model),
            start=start,
            groups=data.joined_groups(),
            query_tokens=query_tokens,
            doc_tokens=doc_tokens,
            further_tokens=tuple(
                (name, *_tokens(model, other.queries(), other.collection()))
                for name, other in data.further.items()
            ),
            validation=self._reranking("validation", model, source),
            teacher_kind="score" if data.teacher is None else data.teacher.values,
            measures=self.measures("validation"),
            selection=self.selection,
            depth=self.evaluation.validation_depth,
            seed=self.seed,
            precision=self.precision,
            pool=self.evaluation.selection_pool,
            leaves_itself_out=bool(getattr(source, "exclude_query_id", False)),
            loss_groups=self._loss_groups(name, model) if self.selection == LOSS else None,
        )

    def _loss_groups(self, stage: str, model: AnyModel) -> LossGroups:
        data = self.validation_groups(stage)
        return LossGroups(data.groups(), *_tokens(model, data.queries(), data.collection()))

    def run_of(self, weights: Step, role: Role = MAIN) -> CrossEncoderRun:
        """The role's candidates re-ranked by a trained stage or a backbone that ships a scorer."""
        made = BiEncoderRun if isinstance(self.last_model, TrainedBiEncoder) else CrossEncoderRun
        return made(
            weights,
            self.last_model,  # type: ignore[arg-type]
            self.reading,
            self.reranking(role),
            self.depth(role),
            self.precision,
        )

    def retrieved(self, weights: Step | None, role: Role = MAIN) -> Step:
        """The role's candidates by a bi-encoder over the whole corpus.

        Args:
            weights: a trained stage; None is the backbone as it comes.
        """
        model = self.retriever
        assert model is not None, "checked when the recipe was read"
        assert self.evaluation.retrieval is not None, "no rows are asked for"
        own = bool(getattr(self.source(role), "exclude_query_id", False))
        source = Dense(
            **dict(model.part(BiEncoder)),
            depth=self.evaluation.retrieval,
            exclude_query_id=own,
        )
        collection, queries = self.collection(role), self.queries(role)
        return retrieved_by(source, collection, queries, self.precision, weights)

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

    def existing_run(self, row: str, role: Role = MAIN) -> ExistingRun | TeacherRun | None:
        """The file's lists of the role's queries, None where the row names no file of these; or the
        role's candidates re-ranked by the row's model."""
        named, queries = self.evaluation.rows[row], self.queries(role)
        if isinstance(named, ModelRow):
            first, tracking = self.first_stage(role), self.tracking_uri()
            return named.run_of(first, queries, self.depth(role), self.precision, tracking)
        path = named.paths().get(role)
        return None if path is None else ExistingRun(row, path, self.collection(role), queries)

    def _run_by(self, scores: Step, values: str, role: Role) -> TeacherRun:
        candidates, queries = self.first_stage(role), self.queries(role)
        return TeacherRun(scores, values, candidates, queries, self.depth(role))


def _tokens(
    model: AnyModel, queries: Queries, collection: Collection | Listed
) -> tuple[Tokens, Tokens]:
    """The token stores of queries and documents, with the prefixes that the model puts before
    them."""
    backbone, prefixes = Backbone(model.backbone), ("", "")
    if isinstance(model, TrainedBiEncoder):
        prefixes = model.prefixes(backbone.published)
    query, doc = prefixes
    return Tokens(queries, backbone, query), Tokens(collection, backbone, doc)
