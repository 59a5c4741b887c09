"""Training sets: which queries, whose candidates, which negatives, which teacher.

A `TrainingSet` stands in a recipe and may leave fields to the recipe's own; `TrainingData` has all
of them, and names the steps that mine the set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from raypipe.candidates import Source
from raypipe.candidates.trained import EncoderOf, candidates_by, no_stage
from raypipe.config import UNLESS_DEFAULT, nearest
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups.form import Groups
from raypipe.groups.joined import OWN, FurtherGroups, JoinedGroups
from raypipe.groups.judge import LlmJudge, Relabelled
from raypipe.groups.negatives import Negatives
from raypipe.groups.pool import CANDIDATES, CORPUS
from raypipe.groups.positives import Positives
from raypipe.groups.training_groups import TrainingGroups
from raypipe.groups.triples import Triples
from raypipe.inference.lists import Lists
from raypipe.names import Name
from raypipe.storage.artifacts import Step
from raypipe.synthesis.synthetic import AnyQueries
from raypipe.teachers import Teacher
from raypipe.teachers.ensemble import Ensemble
from raypipe.teachers.list_scores import ListScores


class MinedSet(Groups):
    """Groups of one collection and where they come from; for fields that are null the recipe's own
    count."""

    queries: AnyQueries | None = None
    """Training queries; null takes `data.train`. A training query that is also a validation or test
    query is an error before work."""
    candidates: Source | None = None
    """Where candidates for negatives come from; null takes the recipe's `candidates`."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Further sources by name, for the parts of a `mixed` sampler."""
    triples: Triples | None = None
    """Ready-made groups instead of sampled negatives: (query, positive, negative) triples, or a
    training file of another library. Beside them, every field that decides the choice of documents
    must keep its default."""
    teacher: Teacher | None = None
    """Gives the values that distillation fits; null takes the recipe's `teacher`."""
    filter_teacher: Teacher | None = None
    """Gives the scores that `filters` compare; null takes the teacher."""
    judge: Annotated[LlmJudge | None, UNLESS_DEFAULT] = None
    """A language model that looks for false negatives among those that were sampled, or that
    triples have; null asks none."""

    @model_validator(mode="after")
    def _triples_stand_alone(self) -> TrainingSet:
        """Fields are compared with their defaults, because a trial of a sweep has set them all."""
        fields = type(self).model_fields
        decided = ("sources", "filter_teacher", *Groups.model_fields)
        for name in decided if self.triples is not None else ():
            if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                raise ValueError(
                    f"{name}: triples are ready-made groups, nothing is sampled or filtered; "
                    f"leave {name} out, or the triples"
                )
        return self

    @model_validator(mode="after")
    def _sources_exist(self) -> TrainingSet:
        for name, depth in self.negatives.reach.items():
            if name == CANDIDATES:
                continue
            if name not in self.sources:
                near = nearest(name, [CANDIDATES, CORPUS, *self.sources])
                raise ValueError(f"negatives.parts: there is no source {name!r}{near}")
            if depth is not None and depth > self.sources[name].depth:
                raise ValueError(
                    f"negatives.parts.{name}: the window reaches rank {depth}, "
                    f"sources.{name}.depth is {self.sources[name].depth}; raise that depth"
                )
        return self

    def plain(self) -> Groups:
        """The fields that decide the choice of documents from given candidates."""
        return Groups(**{name: getattr(self, name) for name in Groups.model_fields})


class FurtherSet(MinedSet):
    """Groups of another collection that are trained on beside the set's own, such as a large public
    one against forgetting. Its fields have defaults of their own; `candidates` and `teacher` that
    are null are the set's it joins."""

    queries: AnyQueries
    """Its queries, whose documents are its collection."""
    weight: float | None = Field(None, gt=0)
    """Groups of this set for each group of the first: 0.25 makes a fifth of the training. A part of
    its groups is drawn by `seed`, or all are repeated. Null takes each group once."""


class TrainingSet(MinedSet):
    """Groups and where they come from; for fields that are null the recipe's own count.

    All stages whose training sets are equal train on the same artifact.
    """

    further: Annotated[dict[Name, FurtherSet], UNLESS_DEFAULT] = Field(default={})
    """Further collections to train on by name, mixed into the set's own groups by `weight`. The
    report has the counts of each."""

    @field_validator("further")
    @classmethod
    def _named_apart(cls, further: dict[Name, FurtherSet]) -> dict[Name, FurtherSet]:
        if OWN in further:
            raise ValueError(f"expected another name than {OWN}, the set's own; rename that one")
        return further


@dataclass(frozen=True)
class TrainingData:
    """A training set with the recipe's defaults filled in, and the steps that mine it."""

    training_set: MinedSet
    query_set: QuerySet
    source: Source
    teacher: Teacher | None
    precision: str
    list_depth: int
    """The least number of candidates per query that a teacher of whole lists sees."""
    encoder: EncoderOf = field(default=no_stage, compare=False)
    """Gives the models that sources of stages retrieve with."""
    further: Mapping[str, TrainingData] = field(default_factory=dict)
    """What is trained on beside this set, by name."""

    @property
    def filter_teacher(self) -> Teacher | None:
        """The teacher behind the score filters, None if no filter needs one."""
        if not self.training_set.filters_need_scores:
            return None
        return self.training_set.filter_teacher or self.teacher

    @property
    def values_on_a_scale(self) -> bool:
        """Whether the teacher's values are surely on [0, 1], the best near 1 and the worst near 0.

        They are where lists in a filter's order bring them, or an ensemble's of min-max values.
        """
        if isinstance(self.teacher, ListScores):
            return self.training_set.triples is None and self.query_set.has_own_lists
        return isinstance(self.teacher, Ensemble) and self.teacher.normalise == "min_max"

    def problems(self, where: str) -> None:
        """Look for fields that contradict each other.

        Args:
            where: the path of this set in the recipe.

        Raises:
            ValueError: the first contradiction, with the path of its field.
        """
        chosen = self.training_set
        if chosen.triples is not None:
            return
        if (depth := chosen.negatives.depth) and depth > self.source.depth:
            field = "candidates.depth" if chosen.candidates is None else f"{where}.candidates.depth"
            raise ValueError(
                f"{where}.negatives: the window reaches rank {depth}, {field} is "
                f"{self.source.depth}; raise that depth"
            )
        self._check_held_out(f"{where}.negatives")
        if chosen.filters_need_scores:
            judge = self.filter_teacher
            names = ", ".join(rule.type for rule in chosen.filters if rule.needs_scores)
            if judge is None:
                raise ValueError(
                    f"{where}.filters: {names} compare teacher scores; set `teacher` or "
                    f"{where}.filter_teacher"
                )
            if judge.values != "score":
                raise ValueError(
                    f"{where}.filters: {names} compare scores, the {judge.type} teacher gives a "
                    "rank; use another filter_teacher"
                )

    def further_problems(self, where: str) -> None:
        """Look for fields of further sets that do not go with this set's; arguments and errors as
        `problems`."""
        for name, other in self.further.items():
            least, own = other.query_set.positive_relevance, self.query_set.positive_relevance
            if least != own:
                raise ValueError(
                    f"{where}.further.{name}.queries.positive_relevance: expected {own} as in the "
                    f"set's own queries, found {least}; relevance means one thing in a stage, give "
                    "both the same"
                )
            kinds = {data.teacher.values for data in (self, other) if data.teacher is not None}
            if len(kinds) > 1:
                raise ValueError(
                    f"{where}.further.{name}.teacher: expected a teacher of one kind of values in "
                    f"all sets, found {' and '.join(sorted(kinds))}; name another teacher"
                )

    def _check_held_out(self, where: str) -> None:
        """Negatives of the whole collection would be passages that are held out, too."""
        held_out = getattr(self.query_set, "hold_out", "none")
        if held_out != "none" and CORPUS in self.training_set.negatives.drawn_from:
            raise ValueError(
                f"{where}: found negatives of the whole collection beside hold_out, whose passages "
                "they would train on; sample candidates, or set hold_out=none"
            )

    def check(self) -> None:
        """Look whether everything outside the recipe is there that this set reads.

        Raises:
            ConfigError: a data set, a file or a model is not there.
        """
        self.query_set.check()
        for source in (self.source, *self.training_set.sources.values()):
            source.check()
        chosen = self.training_set
        for part in (chosen.triples, self.teacher, self.filter_teacher, chosen.judge):
            if part is not None:
                part.check()

    # --- the steps -----------------------------------------------------------------------------

    def collection(self) -> Collection:
        return Collection(self.query_set)

    def queries(self) -> Queries:
        """Training queries, unjudged ones too with `positives: any`, which reads no judgements."""
        every = self.training_set.positives == "any"
        return self.query_set.chosen(
            require_positive=not every, keep_unjudged=every, precision=self.precision
        )

    def candidates(self, source: Source | None = None) -> Step:
        """Candidate lists of the training queries.

        Args:
            source: None takes the set's own, or the lists that the queries bring.
        """
        if source is None and (own := self.query_set.own_lists(self.precision)) is not None:
            return own
        retrieved = self.retrieved(source or self.source, self.collection(), self.queries())
        return self.query_set.trained_on(retrieved)

    def retrieved(self, source: Source, collection: Collection, queries: Queries) -> Step:
        """Candidate lists of any queries by one of the sources."""
        return candidates_by(source, collection, queries, self.precision, self.encoder)

    def negatives(self) -> Step:
        """Positives and negatives of every group, as the judge leaves them."""
        judge = self.training_set.judge
        return self.sampled() if judge is None else judge.negatives(self.sampled(), self.precision)

    def sampled(self) -> Step:
        """Positives and negatives of every group, before a judge looks at them."""
        if self.training_set.triples is not None:
            return self.training_set.triples.negatives(self.collection(), self.queries())
        return Negatives(
            self.candidates(),
            self.queries(),
            self.collection(),
            self.training_set.plain(),
            others=self._others(),
            scores=self.filter_scores(),
        )

    def _others(self) -> tuple[tuple[str, Step], ...]:
        sources = self.training_set.sources
        return tuple((name, self.candidates(source)) for name, source in sources.items())

    def filter_scores(self) -> Step | None:
        """Scores of the candidates and all positives, for the filters."""
        judge = self.filter_teacher
        if judge is None:
            return None
        depth = self.training_set.negatives.depth or self.source.depth
        reach = tuple(self.training_set.negatives.reach.items())
        positives = Positives(self.queries(), self.collection(), self._others(), reach)
        return judge.scores(self._lists(depth, positives), self.precision)

    def teacher_scores(self) -> Step | None:
        """The teacher's values of the groups' documents, and of whole lists if it reads lists."""
        if self.teacher is None:
            return None
        depth = 0
        if self.teacher.needs_lists:
            depth = max(self.training_set.negatives.depth or 0, self.list_depth)
            depth = min(depth, self.source.depth)
        return self.teacher.scores(self._lists(depth, self.negatives()), self.precision)

    def groups(self) -> TrainingGroups:
        """The groups of this set alone. They always hold a teacher's values, so that stages with
        and without distillation share one artifact."""
        return TrainingGroups(self.negatives(), self.teacher_scores())

    def joined_groups(self) -> TrainingGroups | JoinedGroups:
        """What stages train on: the set's groups, and beside them those of further sets."""
        if not self.further:
            return self.groups()
        assert isinstance(self.training_set, TrainingSet)
        sets = self.training_set.further
        further = tuple(
            FurtherGroups(name, data.groups(), sets[name].weight)
            for name, data in self.further.items()
        )
        return JoinedGroups(self.groups(), further, self.training_set.seed)

    def steps(self) -> Mapping[str, Step]:
        """Every step that mines, in order, by its name in a summary."""
        steps: dict[str, Step | None] = {
            "collection": self.collection(),
            "queries": self.queries(),
            "candidates": self.candidates(),
            "filter scores": self.filter_scores(),
            "negatives": self.sampled(),
            **self._judged(),
            "teacher scores": self.teacher_scores(),
            "groups": self.groups(),
            "joined groups": self.joined_groups() if self.further else None,
        }
        if self.training_set.triples is not None and not self._lists_matter:
            del steps["candidates"]
        return {name: step for name, step in steps.items() if step is not None}

    def _judged(self) -> dict[str, Step]:
        """The steps of the judge by name; none without a judge."""
        relabelled = self.negatives()
        if not isinstance(relabelled, Relabelled):
            return {}
        first = {} if relabelled.first is None else {"first verdicts": relabelled.first}
        return {**first, "verdicts": relabelled.verdicts, "judged negatives": relabelled}

    @property
    def _lists_matter(self) -> bool:
        return self.teacher is not None and self.teacher.needs_lists

    def _lists(self, depth: int, extra: Step) -> Lists:
        return Lists(self.candidates(), extra, self.collection(), self.queries(), depth)
