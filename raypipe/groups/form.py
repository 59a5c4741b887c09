"""Forming groups: the positives and negatives that one query trains with, by id."""

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

SMALL = 5_000
"""Positives of a training set that is small: with three negatives each, an hour of a slow CPU."""


class Groups(Config):
    """How groups are formed. All stages that name the same groups train on the same artifact."""

    negatives: Sampler = RandomWindow()
    """Which candidates become negatives; a judged relevant document never does."""
    filters: tuple[Filter, ...] = ()
    """Rules that keep false negatives out; the first filter that removes a document counts it."""
    positives: Literal["inject", "drop", "keep_if_retrieved", "any"] = "inject"
    """inject: positives join whether retrieved or not. drop: a query none of whose positives was
    retrieved is dropped. keep_if_retrieved: such a query stays, with negatives only. any: the
    sampler takes candidates whatever the judgements say, of queries without judgements too. The
    last two are for losses on teacher values; any distills published lists as they are."""
    max_positives: int = Field(1, ge=1)
    """Positives per group, drawn at random if there are more."""
    groups_per_query: Literal["auto", "one", "each_positive"] = "auto"
    """one: a single group with up to `max_positives` positives. each_positive: for every positive a
    group with negatives of its own, without the query's other positives. auto: each_positive where
    the training queries have several positives, at most 5,000 together, and `max_positives` is 1;
    otherwise one. What it chose is said."""
    copies: Literal["leave_out", "keep"] = "leave_out"
    """leave_out: the query's own document (by id, or by text) and documents with the text of a
    relevant one are no negatives. Texts are equal up to case, white space and forms of characters.
    keep: only judgements say what is no negative. With `positives: any` all are kept."""
    seed: int = 0
    """Seed of the sampling. Training has another, so that trainings of many seeds share groups."""

    @model_validator(mode="after")
    def _one_positive_each(self) -> Groups:
        if self.groups_per_query == "each_positive" and self.max_positives > 1:
            raise ValueError(
                "groups_per_query: each_positive makes groups of one positive, found max_positives="
                f"{self.max_positives}; leave max_positives at 1, or use groups_per_query: one"
            )
        return self

    def settled(self, positives: int, queries: int) -> Groups:
        """The same with `auto` decided.

        Args:
            positives: of all training queries together.
            queries: with a positive.
        """
        if self.groups_per_query != "auto":
            return self
        fits = self.max_positives == 1 and self.positives != "any"
        each = fits and queries < positives <= SMALL
        return self.replace(groups_per_query="each_positive" if each else "one")

    @property
    def every_group_has_a_positive(self) -> bool:
        return self.positives in ("inject", "drop")

    @property
    def leaves_copies_out(self) -> bool:
        """Whether documents are compared with the query and its relevant ones; `any` reads no
        judgements."""
        return self.copies == "leave_out" and self.positives != "any"

    @property
    def filters_need_scores(self) -> bool:
        """Whether a teacher must score candidates and positives first; ranks do not serve."""
        return any(rule.needs_scores for rule in self.filters)


@dataclass(frozen=True)
class Formed:
    """A group before ids become indices, positives first."""

    doc_ids: list[str]
    relevance: list[int]
    ranks: list[int]
    """Each document's rank in the list of its source; 0 if it was not retrieved."""
    sources: list[str]
    """Each document's source: `candidates`, the name of further candidates, `corpus`, or `qrels`
    (a positive that was injected)."""


def _no_text(doc_id: str) -> str:
    raise ValueError("groups.filters: near_duplicate compares texts, found none; set Material.text")


@dataclass(frozen=True)
class Material:
    """What groups are formed from beside the training candidates."""

    others: Mapping[str, RankedList] = field(default_factory=dict)
    """Further candidates of the query by source name."""
    corpus: Sequence[str] = ()
    """Every document id of the collection, by row."""
    scores: Mapping[str, float] | None = None
    """The filtering teacher's scores of the query's documents, higher is better; None without
    such a teacher."""
    text: Callable[[str], str] = _no_text
    """The text of a document."""
    hash_of: Callable[[str], int | None] = lambda doc_id: None
    """A number that documents of one text share; None of a document that is not known."""
    query_hash: int | None = None
    """The same of the query's own text."""


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
    """Choose positives and negatives of one query for one group.

    Args:
        doc_ids: the candidates, best first.
        ranks: their ranks, ascending from 1.
        relevance: the query's judgements; 0 < relevance < positive_relevance is neither positive
            nor negative.
        counts: to add to: documents that filters removed, and negatives that one part of a mixture
            gave instead of another.

    Returns:
        The group, positives first, or the name of the counter of queries that cannot form one.

    Raises:
        ValueError: `material` lacks what the sampler or the filters ask for.
    """
    candidates = RankedList(doc_ids, ranks)
    query = _Query(groups, query_id, candidates, relevance, positive_relevance, material)
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
    outcomes: list[Formed | str]
    if groups.groups_per_query != "each_positive":
        query_facts = (query_id, doc_ids, ranks, relevance, positive_relevance)
        outcomes = [form_group(groups, *query_facts, material=material, counts=counts)]
    else:
        candidates = RankedList(doc_ids, ranks)
        query = _Query(groups, query_id, candidates, relevance, positive_relevance, material)
        pool = query.positives()
        if isinstance(pool, str):
            outcomes = [pool]
        else:
            outcomes = [
                query.group(positives, query_rng(groups.seed, query_id, *positives), counts)
                for positives in [[positive] for positive in pool] or [[]]
            ]
    formed = [outcome for outcome in outcomes if isinstance(outcome, Formed)]
    reasons = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if not formed:
        counts[reasons[0]] += 1
    elif reasons:
        counts["positives_without_group"] += len(reasons)
    return formed


@dataclass(frozen=True)
class _Query:
    groups: Groups
    query_id: str
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
        compares = any(rule.needs_reference for rule in self.groups.filters)
        if compares and np.isnan(evidence.reference):
            return "queries_without_positive_score"
        screen = Screen(self.groups.filters, evidence, self._copies())
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

    def _copies(self) -> Callable[[str], str | None]:
        """The counter of a document that is the query itself, or a relevant one once more."""
        if not self.groups.leaves_copies_out:
            return lambda doc_id: None
        hash_of, own = self.material.hash_of, self.material.query_hash
        relevant = {hash_of(doc_id) for doc_id in self._forbidden()} - {None}

        def counter(doc_id: str) -> str | None:
            number = hash_of(doc_id)
            if doc_id == self.query_id or (own is not None and number == own):
                return "removed_as_the_query_itself"
            return "removed_as_copies_of_relevant_documents" if number in relevant else None

        return counter

    def _forbidden(self) -> frozenset[str]:
        """Documents that may not be negatives: those relevant to some degree; none with `any`."""
        if self.groups.positives == "any":
            return frozenset()
        return frozenset(d for d, value in self.relevance.items() if value > 0)

    def _evidence(self, positives: list[str]) -> Evidence:
        scores = self.material.scores
        if scores is None and self.groups.filters_need_scores:
            raise ValueError(
                "groups.filters: they compare teacher scores, and there are none; set "
                "Material.scores"
            )
        relevant = self.relevant()
        return Evidence(
            positives=positives or relevant,
            relevant=relevant,
            score=lambda doc_id: (scores or {}).get(doc_id, np.nan),
            text=self.material.text,
        )

    def _formed(self, positives: list[str], negatives: list[Chosen]) -> Formed:
        rank_of = dict(zip(self.candidates.doc_ids, self.candidates.ranks, strict=True))
        members = [
            Chosen(d, rank_of.get(d, 0), CANDIDATES if d in rank_of else QRELS)
            for d in sorted(positives, key=lambda d: (rank_of.get(d, 1 << 30), d))
        ]
        members += negatives
        return Formed(
            doc_ids=[document.doc_id for document in members],
            relevance=[self.relevance.get(document.doc_id, 0) for document in members],
            ranks=[document.rank for document in members],
            sources=[document.source for document in members],
        )
