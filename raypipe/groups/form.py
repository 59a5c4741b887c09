"""Groups: one query, its positives and its negatives, as a loss sees them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.config import Config
from raypipe.groups.filters import Evidence, Filter, Screen
from raypipe.groups.pool import CANDIDATES, QRELS, Chosen, Pool, RankedList
from raypipe.groups.samplers import RandomWindow, Sampler, query_rng


class Groups(Config):
    """How groups are formed. All stages that name the same groups train on the same artifact."""

    negatives: Sampler = RandomWindow()
    """Which candidates become negatives; a judged relevant document never does."""
    filters: tuple[Filter, ...] = ()
    """What keeps false negatives out; the first one that removes a document counts it."""
    positives: Literal["inject", "drop", "keep_if_retrieved", "any"] = "inject"
    """inject: positives join whether retrieved or not. drop: a query none of whose positives was
    retrieved is dropped. keep_if_retrieved: such a query stays, with negatives only. any: the
    sampler takes candidates whatever the judgements say, and none needs to be there, not even a
    judgement of the query. The last two are for losses on teacher values; any is distillation of
    published lists as they are."""
    max_positives: int = Field(1, ge=1)
    """Positives per group, drawn at random if there are more."""
    groups_per_query: Literal["one", "each_positive"] = "one"
    """one: a single group with up to `max_positives` positives. each_positive: a group with
    negatives of its own for every positive; the query's other positives are not in it."""
    seed: int = 0
    """Of the sampling. Separate from the training seed, so that seeds share their groups."""

    @model_validator(mode="after")
    def _one_positive_each(self) -> Groups:
        if self.groups_per_query == "each_positive" and self.max_positives > 1:
            raise ValueError(
                "groups_per_query: each_positive makes groups of one positive, found max_positives="
                f"{self.max_positives}; leave that at 1, or use one"
            )
        return self

    @property
    def every_group_has_a_positive(self) -> bool:
        return self.positives in ("inject", "drop")

    @property
    def filters_need_scores(self) -> bool:
        """A teacher must score candidates and positives first; ranks alone do not serve."""
        return any(one.needs_scores for one in self.filters)


@dataclass(frozen=True)
class Formed:
    """A group before ids become indices, positives first."""

    doc_ids: list[str]
    relevance: list[int]
    ranks: list[int]
    """In the list of the document's source; 0 if it was not retrieved."""
    sources: list[str]
    """`candidates`, the name of further candidates, `corpus`, or `qrels` (injected positive)."""


def _no_text(doc_id: str) -> str:
    raise ValueError("groups.filters: near_duplicate compares texts; give form_group `text`")


@dataclass(frozen=True)
class Material:
    """What groups are made from beside the training candidates."""

    others: Mapping[str, RankedList] = field(default_factory=dict)
    """Further candidates of the query by source name."""
    corpus: Sequence[str] = ()
    """Every document id of the collection, by row."""
    scores: Mapping[str, float] | None = None
    """The query's documents with the filtering teacher's scores, higher is better."""
    text: Callable[[str], str] = _no_text
    """The text of a document."""


NOTHING = Material()


def form_group(
    groups: Groups,
    query_id: str,
    doc_ids: Sequence[str],
    ranks: Sequence[int],
    relevance: Mapping[str, int],
    positive_relevance: int,
    *,
    material: Material = NOTHING,
    counts: Counter[str] | None = None,
) -> Formed | str:
    """Choose positives and negatives of one query, in one group.

    Args:
        doc_ids: the candidates, best first.
        ranks: their ranks, ascending from 1.
        relevance: the query's judgements; 0 < relevance < positive_relevance is neither positive
            nor negative.
        counts: what filters removed is added to it, and places filled by another source.

    Returns:
        The group, positives first, or the name of the counter of queries that cannot form one.

    Raises:
        ValueError: `material` lacks what the sampler or the filters ask for.
    """
    query = _Query(groups, RankedList(doc_ids, ranks), relevance, positive_relevance, material)
    pool = query.positives()
    if isinstance(pool, str):
        return pool
    rng = query_rng(groups.seed, query_id)
    chosen = sorted(rng.permutation(len(pool))[: groups.max_positives])
    return query.group([pool[i] for i in chosen], rng, Counter() if counts is None else counts)


def form_groups(
    groups: Groups,
    query_id: str,
    doc_ids: Sequence[str],
    ranks: Sequence[int],
    relevance: Mapping[str, int],
    positive_relevance: int,
    *,
    material: Material = NOTHING,
    counts: Counter[str],
) -> list[Formed]:
    """All groups of one query: arguments and errors as `form_group`.

    A query without a group is counted once, by its reason; where some positives of a query have a
    group, the others are counted `positives_without_group`.
    """
    given = (groups, query_id, doc_ids, ranks, relevance, positive_relevance)
    formed: list[Formed | str]
    if groups.groups_per_query == "one":
        formed = [form_group(*given, material=material, counts=counts)]
    else:
        query = _Query(groups, RankedList(doc_ids, ranks), relevance, positive_relevance, material)
        pool = query.positives()
        each = [pool] if isinstance(pool, str) else [[positive] for positive in pool] or [[]]
        formed = [
            one
            if isinstance(one, str)
            else query.group(one, query_rng(groups.seed, query_id, *one), counts)
            for one in each
        ]
    good = [one for one in formed if isinstance(one, Formed)]
    bad = [one for one in formed if isinstance(one, str)]
    if not good:
        counts[bad[0]] += 1
    elif bad:
        counts["positives_without_group"] += len(bad)
    return good


@dataclass(frozen=True)
class _Query:
    groups: Groups
    candidates: RankedList
    relevance: Mapping[str, int]
    positive_relevance: int
    material: Material

    def relevant(self) -> list[str]:
        return sorted(d for d, value in self.relevance.items() if value >= self.positive_relevance)

    def positives(self) -> list[str] | str:
        """Documents that may be a group's positives, or why the query has no group."""
        if self.groups.positives == "any":
            return []
        if not (relevant := self.relevant()):
            return "queries_without_positive"
        if self.groups.positives == "inject":
            return relevant
        candidates = set(self.candidates.doc_ids)
        retrieved = [d for d in relevant if d in candidates]
        if not retrieved and self.groups.positives == "drop":
            return "queries_with_no_positive_retrieved"
        return retrieved

    def group(
        self, positives: list[str], rng: np.random.Generator, counts: Counter[str]
    ) -> Formed | str:
        """The group of these positives, or why there is none."""
        evidence = self._evidence(positives)
        compares = any(one.needs_reference for one in self.groups.filters)
        if compares and np.isnan(evidence.reference):
            return "queries_without_positive_score"
        screen = Screen(self.groups.filters, evidence)
        pool = Pool(
            lists={CANDIDATES: self.candidates, **self.material.others},
            corpus=self.material.corpus,
            forbidden=self._forbidden(),
            accept=screen,
        )
        negatives = self.groups.negatives.choose(pool, rng)
        counts.update(screen.removed)
        if not negatives:
            return "queries_without_negatives"
        if len(positives) + len(negatives) < 2:
            return "queries_with_one_document"
        if moved := self.groups.negatives.moved(negatives):
            counts["negatives_moved_between_parts"] += moved
        return self._formed(positives, negatives)

    def _forbidden(self) -> frozenset[str]:
        """Whatever is relevant to some degree is no negative; with `any` nothing is sorted out."""
        if self.groups.positives == "any":
            return frozenset()
        return frozenset(d for d, value in self.relevance.items() if value > 0)

    def _evidence(self, positives: list[str]) -> Evidence:
        scores = self.material.scores
        if scores is None and self.groups.filters_need_scores:
            raise ValueError("groups.filters: they compare teacher scores, and there are none")
        relevant = self.relevant()
        return Evidence(
            positives=positives or relevant,
            relevant=relevant,
            score=lambda doc_id: (scores or {}).get(doc_id, np.nan),
            text=self.material.text,
        )

    def _formed(self, positives: list[str], negatives: list[Chosen]) -> Formed:
        rank_of = dict(zip(self.candidates.doc_ids, self.candidates.ranks, strict=True))
        found = [
            Chosen(d, rank_of.get(d, 0), CANDIDATES if d in rank_of else QRELS)
            for d in sorted(positives, key=lambda d: (rank_of.get(d, 1 << 30), d))
        ]
        members = found + negatives
        return Formed(
            doc_ids=[one.doc_id for one in members],
            relevance=[self.relevance.get(one.doc_id, 0) for one in members],
            ranks=[one.rank for one in members],
            sources=[one.source for one in members],
        )
