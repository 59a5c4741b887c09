"""Synthetic queries as a recipe names them, and the steps that this stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.steps import Collection, Queries, QuerySet, opened
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.synthesis.consistency import Consistency, RetrievedQueries
from raypipe.synthesis.extractive import Extractive
from raypipe.synthesis.held_out import HeldOut, Trainable
from raypipe.synthesis.known_items import SyntheticQueries
from raypipe.synthesis.passages import Passages, Split
from raypipe.synthesis.taught import ListsOfQueries, Reordered, TaughtQueries
from raypipe.synthesis.written import Written

QueryGenerator = Annotated[Extractive | Written, Field(discriminator="type")]
"""To add a generator: one class with `queries`, `check` and `generated`, and its name here."""


class Synthetic(QuerySet):
    """Queries written for passages of a corpus, of which nothing but the documents is read."""

    type: Literal["synthetic"] = "synthetic"  # type: ignore[assignment]
    generator: QueryGenerator = Extractive()
    """Who writes: a language model, or nobody (`extractive`: words of the passage itself)."""
    passages: int | None = Field(1000, ge=2)
    """Passages that queries are written for, drawn by `seed` after copies have left; null takes
    all. `limit` and `skip` count queries."""
    split: Split = "train"
    """Which of the passages this set asks for: splits share none. `test` are those of `hold_out`.
    The documents need no split."""
    validation_share: float = Field(0.1, ge=0, lt=1)
    """Share of the passages that are the split `validation`, at least one."""
    hold_out: HeldOut | Literal["none", "test_judged"] = "none"
    """Documents that no query is trained on, and that leave the lists of training queries:
    `{passages: n}`, drawn by seed, whose queries are the split `test`; or `test_judged`, what the
    test queries judge. With `none` training may have read what is relevant in the test."""
    test: QuerySet | None = None
    """Of `hold_out: test_judged`, the queries that judge; null takes `data.test`."""
    filter: Consistency | None = None
    """Which queries are kept: those whose passage retrievers and a teacher find again; null keeps
    all."""
    seed: int = Field(0, ge=0)
    """Of the draw of passages and of what a language model writes."""

    @model_validator(mode="after")
    def _sensible(self) -> Synthetic:
        if self.positive_relevance != 1:
            raise ValueError(
                "positive_relevance: a query's own passage has relevance 1, found "
                f"{self.positive_relevance}; leave it out"
            )
        if self.split == "test" and not isinstance(self.hold_out, HeldOut):
            raise ValueError(
                "split: test asks for the passages that are held out, and there are none; set "
                "hold_out={passages: 100}, equal in every split"
            )
        if self.split == "validation" and not self.validation_share:
            raise ValueError("validation_share: 0 leaves no passage for the split validation")
        return self

    def open(self) -> Dataset:
        """The documents behind the id; queries and split need not be there."""
        return self._read(opened(self.dataset, None, documents_only=True))

    def check(self) -> None:
        """The documents are there, and what the generator needs."""
        self.open().check(queries=False)
        self.generator.check()
        if self.filter is not None:
            self.filter.check()
        if self.hold_out == "test_judged":
            self.resolved_test().check()

    @property
    def title(self) -> str:
        """What the queries are, for people."""
        types = ", ".join(self.generator.queries)
        return (
            f"synthetic {self.split} queries over {self.dataset} ({self.generator.type}: {types}); "
            "a query's own passage is the one relevant document"
        )

    def judged_by(self, test: QuerySet) -> Synthetic:
        """The set with its test queries, where it holds out what they judge."""
        missing = self.hold_out == "test_judged" and self.test is None
        return self.replace(test=test) if missing else self

    def resolved_test(self) -> QuerySet:
        """The queries whose judged documents are held out.

        Raises:
            ConfigError: they are synthetic themselves, or have other documents.
        """
        test = self.test
        if test is None or isinstance(test, Synthetic):
            raise ConfigError(
                "hold_out: test_judged needs test queries that people judged; name them as `test`, "
                "or set hold_out={passages: 100}"
            )
        if Collection(test).digest != Collection(self).digest:
            raise ConfigError(
                f"hold_out: test_judged, but {test.title} has other documents than {self.dataset}; "
                "leave hold_out out"
            )
        return test

    def drawn(self) -> Passages:
        """The step that draws the passages of all splits."""
        judged = None
        if self.hold_out == "test_judged":
            judged = Queries(self.resolved_test(), require_positive=False)
        held_out = self.hold_out.passages if isinstance(self.hold_out, HeldOut) else 0
        share = self.validation_share
        return Passages(Collection(self), self.passages, share, held_out, judged, self.seed)

    def chosen(
        self, *, require_positive: bool, keep_unjudged: bool = False, precision: str
    ) -> SyntheticQueries:
        """The step that chooses; every query has its passage, so none is without a positive."""
        if self.filter is None:
            return self._written(precision)
        if not self._asks_teacher:
            return self._retrieved(self.filter, precision)
        assert self.filter.teacher is not None
        retrieved = self._whole._retrieved(self.filter, precision)
        lists = ListsOfQueries(retrieved.fused, retrieved)
        depth = max(source.depth for source in self.filter.retrievers.values())
        scored = Lists(lists, None, Collection(self), retrieved, depth)
        return TaughtQueries(
            self,
            True,
            generated=retrieved.generated,
            split=self.split,
            retrieved=retrieved,
            lists=lists,
            scores=self.filter.teacher.scores(scored, precision),
            rules=self.filter,
        )

    @property
    def _asks_teacher(self) -> bool:
        return self.split == "train" and self.filter is not None and self.filter.teacher is not None

    @property
    def _whole(self) -> Synthetic:
        return self.replace(limit=None, skip=0)

    def _written(self, precision: str) -> SyntheticQueries:
        generated = self.generator.generated(self.drawn(), self.seed, precision)
        return SyntheticQueries(self, True, generated=generated, split=self.split)

    def _retrieved(self, rules: Consistency, precision: str) -> RetrievedQueries:
        written = self._whole._written(precision)
        lists = {
            name: source.candidates(Collection(self), written, precision)
            for name, source in rules.retrievers.items()
        }
        if self.split != "test":  # whose own passages are those that are held out
            lists = {name: self.trained_on(step) for name, step in lists.items()}
        return RetrievedQueries(
            self,
            True,
            generated=written.generated,
            split=self.split,
            written=written,
            lists=lists,
            fused=rules.fused(lists, written),
            rules=rules,
        )

    @property
    def has_own_lists(self) -> bool:
        return self.filter is not None and self.filter.lists is not None and self._asks_teacher

    def own_lists(self, precision: str) -> Step | None:
        """The filter's lists in its teacher's order, where training shall draw from these."""
        if not self.has_own_lists:
            return None
        assert self.filter is not None and self.filter.lists is not None
        taught = self.chosen(require_positive=True, precision=precision)
        assert isinstance(taught, TaughtQueries)
        return Reordered(taught.lists, taught.scores, taught, self.filter.lists)

    def trained_on(self, candidates: Step) -> Step:
        """Candidate lists of training queries without passages held out and copies of others."""
        return Trainable(candidates, self.drawn())

    def as_trained_on(self) -> Synthetic:
        """The queries that the filter's teacher keeps too, with its lists."""
        return _AsTrainedOn(**dict(self))


class _AsTrainedOn(Synthetic):
    """Validation queries whose filter asks its teacher, as that of training queries does."""

    @property
    def _asks_teacher(self) -> bool:
        return self.filter is not None and self.filter.teacher is not None


def _kind(value: Any) -> str:
    if isinstance(value, QuerySet):
        return value.type
    return str(value["type"]) if isinstance(value, Mapping) and "type" in value else "judged"


AnyQueries = Annotated[
    Annotated[QuerySet, Tag("judged")] | Annotated[Synthetic, Tag("synthetic")],
    Discriminator(_kind),
]
"""A set of queries: those of a data set, which need no `type`, or synthetic ones."""
