"""Training sets: which queries, whose candidates, which negatives, which teacher.

A `TrainingSet` stands in a recipe and may leave fields to the recipe's own; `TrainingData` has all
of them, and names the steps that mine the set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, model_validator

from raypipe.candidates import Source
from raypipe.config import nearest
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.groups.form import Groups
from raypipe.groups.negatives import Negatives
from raypipe.groups.pool import CANDIDATES, CORPUS
from raypipe.groups.positives import Positives
from raypipe.groups.training_groups import TrainingGroups
from raypipe.groups.triples import Triples
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.teachers import Teacher


class TrainingSet(Groups):
    """Groups and where they come from; for fields that are null the recipe's own count.

    All stages whose training sets are equal train on the same artifact.
    """

    queries: QuerySet | None = None
    """Training queries; null takes `data.train`. A training query that is also a validation or test
    query is an error before work."""
    candidates: Source | None = None
    """Where candidates for negatives come from; null takes the recipe's `candidates`."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Further sources by name, for the parts of a `mixed` sampler."""
    triples: Triples | None = None
    """Ready-made (query, positive, negative) triples instead of sampled negatives. Beside triples,
    every field that decides the choice of documents must keep its default."""
    teacher: Teacher | None = None
    """Gives the values that distillation fits; null takes the recipe's `teacher`."""
    filter_teacher: Teacher | None = None
    """Gives the scores that `filters` compare; null takes the teacher."""

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


@dataclass(frozen=True)
class TrainingData:
    """A training set with the recipe's defaults filled in, and the steps that mine it."""

    training_set: TrainingSet
    query_set: QuerySet
    source: Source
    teacher: Teacher | None
    precision: str
    list_depth: int
    """The least number of candidates per query that a teacher of whole lists sees."""

    @property
    def filter_teacher(self) -> Teacher | None:
        """The teacher behind the score filters, None if no filter needs one."""
        if not self.training_set.filters_need_scores:
            return None
        return self.training_set.filter_teacher or self.teacher

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

    def check(self) -> None:
        """Look whether everything outside the recipe is there that this set reads.

        Raises:
            ConfigError: a data set, a file or a model is not there.
        """
        self.query_set.open().check()
        for source in (self.source, *self.training_set.sources.values()):
            source.check()
        for part in (self.training_set.triples, self.teacher, self.filter_teacher):
            if part is not None:
                part.check()

    # --- the steps -----------------------------------------------------------------------------

    def collection(self) -> Collection:
        return Collection(self.query_set)

    def queries(self) -> Queries:
        """Training queries, unjudged ones too with `positives: any`, which reads no judgements."""
        every = self.training_set.positives == "any"
        return Queries(self.query_set, require_positive=not every, keep_unjudged=every)

    def candidates(self, source: Source | None = None) -> Step:
        """Candidate lists of the training queries."""
        source = source or self.source
        return source.candidates(self.collection(), self.queries(), self.precision)

    def negatives(self) -> Step:
        """Positives and negatives of every group."""
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
        """What stages train on. It always holds a teacher's values, so that stages with and without
        distillation share one artifact."""
        return TrainingGroups(self.negatives(), self.teacher_scores())

    def steps(self) -> Mapping[str, Step]:
        """Every step that mines, in order, by its name in a summary."""
        steps: dict[str, Step | None] = {
            "collection": self.collection(),
            "queries": self.queries(),
            "candidates": self.candidates(),
            "filter scores": self.filter_scores(),
            "negatives": self.negatives(),
            "teacher scores": self.teacher_scores(),
            "groups": self.groups(),
        }
        if self.training_set.triples is not None and not self._lists_matter:
            del steps["candidates"]
        return {name: step for name, step in steps.items() if step is not None}

    @property
    def _lists_matter(self) -> bool:
        return self.teacher is not None and self.teacher.needs_lists

    def _lists(self, depth: int, extra: Step) -> Lists:
        return Lists(self.candidates(), extra, self.collection(), self.queries(), depth)
