"""How runs are judged: test sets and suites of them, measures, statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raypipe.candidates import Source
from raypipe.candidates.bm25.source import Bm25
from raypipe.config import UNLESS_DEFAULT, Config, nearest
from raypipe.datasets.steps import QuerySet
from raypipe.evaluation.measures import parse_measures
from raypipe.evaluation.results import MAIN, Statistics
from raypipe.evaluation.slices import Slices
from raypipe.evaluation.suites import SUITES, SuiteName
from raypipe.names import Name
from raypipe.runs.existing import RunRow
from raypipe.runs.existing_model import ModelRow
from raypipe.stages.selection_pool import SelectionPool
from raypipe.synthesis.synthetic import AnyQueries
from raypipe.tracking.names import metric_name
from raypipe.train.settings import LOSS

RESERVED = ("train", "validation", MAIN)
Derivation = Literal["seeds", "average", "interpolation"]
Untrained = Literal["cosine", "fusion"]
AnyRow = Annotated[RunRow | ModelRow, Field(discriminator="type")]


class EvaluationSet(Config):
    """Test queries over a first stage."""

    queries: AnyQueries
    """Test queries, of which no stage trains on one."""
    candidates: Source | None = None
    """Null is the recipe's."""
    depth: int | None = Field(None, ge=1)
    """Candidates re-ranked per query; null is `evaluation.depth`."""
    measures: tuple[str, ...] | None = Field(None, min_length=1)
    """Null is `evaluation.measures`."""

    @field_validator("measures")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        parse_measures(names or ())
        return names


class Evaluation(Config):
    """How runs are judged."""

    depth: int = Field(50, ge=1)
    """Candidates re-ranked per test query; the deeper candidates follow in first-stage order."""
    validation_depth: int = Field(20, ge=1)
    """Candidates re-ranked per validation query during training."""
    measures: tuple[str, ...] = Field(("nDCG@10", "RR@10", "Judged@10"), min_length=1)
    """Names as in ir-measures, or `my_package.module:Class@10`; the most important first."""
    selection: str = "nDCG@10"
    """The measure on validation queries by which the best checkpoint is kept; or `loss`, what the
    stage minimises, on groups of validation queries that are mined as the training groups are:
    lower is better. Between trials the first of `measures` decides then."""
    selection_pool: Annotated[SelectionPool | None, UNLESS_DEFAULT] = None
    """Validate bi-encoders by retrieval instead of re-ranking the validation lists: `{documents:
    10000}` and the documents of these lists are encoded and ranked at each validation."""
    sets: dict[Name, EvaluationSet] = Field(default_factory=dict)
    """Further test sets by name, each a table of its own: the same queries over another first
    stage, or other collections (zero-shot transfer)."""
    suites: tuple[SuiteName, ...] = ()
    """Test sets that the field reports together; a set that cannot be had is listed, no error."""
    suite_candidates: Source = Bm25(depth=100)
    """The first stage of the suites' sets."""
    untrained: tuple[Untrained, ...] = ()
    """Rows of a sentence encoder before any training: the cosine of the backbone's vectors, and its
    fusion, the mean of this cosine's z-scores and the first stage's. The collection is encoded."""
    retrieval: int | None = Field(None, ge=1)
    """Rows of bi-encoders over the whole corpus, beside those that re-rank: every trained one, and
    the backbone as it comes, retrieves so many documents per query. Null makes no such rows."""
    ensembles: tuple[Derivation, ...] = ()
    """Rows that cost no training: the mean of the z-scores of all seeds, the mean of their weights,
    and scores mixed with the first stage's by a weight chosen on validation queries; where
    `untrained` has the fusion, mixed with that too."""
    rows: dict[Name, AnyRow] = Field(default_factory=dict)
    """Runs and models that exist, by the name of their row: `{type: run, path: other.run}`, where
    the type may be left out, or `{type: model, uri: "models:/NAME@best"}`. They are judged, tested
    and tracked beside the others, and may be a `reference`."""
    slices: dict[Name, Slices] = Field(default_factory=dict)
    """Groups of test queries by name, each name a table of the first measure per group, with every
    row's worst one. The queries of other test sets are parted too, where the table has their ids.
    """
    statistics: Statistics = Statistics()
    """How rows are told apart."""

    @field_validator("rows", mode="before")
    @classmethod
    def _run_unless_named(cls, rows: Any) -> Any:
        def typed(row: Any) -> Any:
            untyped = isinstance(row, Mapping) and "type" not in row
            return {"type": "run", **row} if untyped else row

        return {n: typed(row) for n, row in rows.items()} if isinstance(rows, Mapping) else rows

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        try:
            parse_measures(self.measures)
        except ValueError as error:
            raise ValueError(f"measures: {error}") from None
        self._check_selection()
        for name in self.sets:
            if name in RESERVED or self.suite_of(name):
                raise ValueError(f"sets.{name}: this name is taken; choose another")
            if "/" in name:
                raise ValueError(f"sets.{name}: expected a name without '/'; leave it out")
        self._check_tracked()
        for name, row in self.rows.items():
            for test_set in row.sets if isinstance(row, RunRow) else ():
                if test_set not in (known := [*self.sets, *self.suite_sets()]):
                    raise ValueError(
                        f"rows.{name}.sets.{test_set}: there is no such test set"
                        f"{nearest(test_set, known) or '; name it in evaluation.sets'}"
                    )
        return self

    def _check_selection(self) -> None:
        """Refuse what cannot choose a checkpoint."""
        if self.selection == LOSS:
            if self.selection_pool is not None:
                raise ValueError(
                    "selection_pool: measures rank a pool, and selection=loss ranks nothing; leave "
                    "one of them out"
                )
            return
        if LOSS in re.split(r"\W+", self.selection):
            raise ValueError(
                f"selection: expected one of {', '.join(self.measures)}, or loss alone, found "
                f"{self.selection!r}; one value chooses the checkpoint"
            )
        if self.selection not in self.measures:
            near = nearest(self.selection, [*self.measures, LOSS])
            raise ValueError(f"selection: {self.selection!r} is not measured{near}")

    def _check_tracked(self) -> None:
        """Refuse two test sets whose values MLflow would have under one name."""
        tracked: dict[str, str] = {}
        for name in (*self.suite_sets(), *self.sets):
            other = tracked.setdefault(metric_name(f"{name}/AP"), name)
            if other != name:
                raise ValueError(
                    f"sets.{name}: expected a name that stays another than {other!r} in MLflow, "
                    "which takes few characters; rename one"
                )

    def named(self, name: str) -> EvaluationSet:
        """A further test set of the recipe, or one of its suites'."""
        return self.sets[name] if name in self.sets else self.suite_sets()[name]

    def suite_sets(self) -> Mapping[str, EvaluationSet]:
        """The test sets of all suites, by name."""
        return {
            member.name: EvaluationSet(
                queries=QuerySet(
                    dataset=member.dataset, positive_relevance=member.positive_relevance
                ),
                candidates=self._source(suite),
                depth=min(member.depth, self.suite_candidates.depth),
                measures=member.measures,
            )
            for suite in self.suites
            for member in SUITES[suite]
        }

    def _source(self, suite: SuiteName) -> Source:
        """BEIR leaves a query's own text out of its list: ArguAna's queries are documents."""
        source = self.suite_candidates
        own = suite in ("beir", "nanobeir") and "exclude_query_id" in type(source).model_fields
        return source.replace(exclude_query_id=True) if own else source

    def suite_of(self, name: str) -> str:
        """The suite that a test set came with; empty if the recipe names the set itself."""
        holders = (s for s in self.suites if name in {member.name for member in SUITES[s]})
        return next(holders, "")
