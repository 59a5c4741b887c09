"""Pairwise comparison by a language model: which of two passages is more relevant?

Qin et al. 2023 (PRP, 2306.17563) for the prompt, PairDistill (2410.01383) for the pairs: every
document with its next `neighbours` in first-stage order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from pydantic import Field

from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import CHOICE_TOKENS, Answer, Prompt, chosen
from raypipe.records import PAIRWISE
from raypipe.teachers.llm import prompts
from raypipe.teachers.llm.task import RankingList, Row, Task

Pairs = dict[tuple[int, int], float]
"""(first, second) positions of a list to the probability that the first wins."""


class Pairwise(Task):
    """Mean probability of a document to win against its neighbours, and the comparisons."""

    neighbours: int = Field(5, ge=1)
    """Document i is compared with i + 1 ... i + neighbours of the first stage."""
    both_orders: bool = True
    """Ask twice, either passage first, and average: models favour the first or the second."""

    columns = PAIRWISE

    def judge(self, lists: Sequence[RankingList], asked: Asked) -> list[Row]:
        """Values and comparisons.

        A comparison is dropped, with both of its orders, where an answer failed or is unreadable.
        """
        plans = [pairs_of(len(ranking.doc_ids), self.neighbours) for ranking in lists]
        made = [
            self._prompts(ranking, pair, asked)
            for ranking, plan in zip(lists, plans, strict=True)
            for pair in plan
        ]
        asked.counts["comparisons_too_long"] += sum(not orders for orders in made)
        sent = [prompt for orders in made for prompt in orders]
        asked.expect(len(sent))
        wins = [self._wins(answer, asked) for answer in asked(sent, CHOICE_TOKENS)]
        ends = list(accumulate(map(len, made)))
        by_pair = iter(wins[end - len(p) : end] for p, end in zip(made, ends, strict=True))
        rows = []
        for ranking, plan in zip(lists, plans, strict=True):
            kept: Pairs = {}
            for pair in plan:
                p = self._probability(next(by_pair), asked)
                if p is not None:
                    kept[pair] = p
            rows.append(_row(ranking, kept, asked))
        return rows

    def _prompts(self, ranking: RankingList, pair: tuple[int, int], asked: Asked) -> list[Prompt]:
        """The comparison in one or both orders; none if the query leaves no room."""
        make = prompts.pairwise(self.instruction, ranking.query)
        orders = [pair, pair[::-1]] if self.both_orders else [pair]
        shown = [[ranking.passages[k] for k in order] for order in orders]
        fitted = [asked.fit(make, passages, CHOICE_TOKENS) for passages in shown]
        return [] if None in fitted else [prompt for prompt in fitted if prompt is not None]

    def _wins(self, answer: Answer, asked: Asked) -> float | None:
        """Probability of A, in [0, 1]."""
        if answer.error is not None:
            return None
        p = first_wins(answer.logprobs, answer.text)
        asked.counts["answers_from_text"] += answer.logprobs is None
        asked.counts["answers_unparsable"] += p is None
        return p

    def _probability(self, wins: list[float | None], asked: Asked) -> float | None:
        """p(first beats second): the mean of p(A) and, asked the other way round, 1 - p(A)."""
        known = [p for p in wins if p is not None]
        if not known or len(known) < len(wins):
            asked.counts["comparisons_dropped"] += 1
            return None
        asked.counts["comparisons"] += 1
        if not self.both_orders:
            return known[0]
        straight, swapped = known[0], 1 - known[1]
        asked.counts["orders_that_disagree"] += (straight - 0.5) * (swapped - 0.5) < 0
        return (straight + swapped) / 2


def pairs_of(n: int, neighbours: int) -> list[tuple[int, int]]:
    """(i, j) with i < j <= i + neighbours, in order of i, then j."""
    return [(i, j) for i in range(n) for j in range(i + 1, min(i + neighbours, n - 1) + 1)]


def first_wins(logprobs: Mapping[str, float] | None, text: str) -> float | None:
    """Probability of A: two-way softmax of the log-probabilities, else 0 or 1 from the text."""
    if logprobs is not None:
        a, b = (logprobs.get(choice, -math.inf) for choice in prompts.AB)
        if a == b == -math.inf or math.isnan(a) or math.isnan(b):
            return None
        return 1 / (1 + math.exp(min(b - a, 700.0)))
    choice = chosen(text, prompts.AB)
    return None if choice is None else float(choice == prompts.AB[0])


def mean_wins(n: int, pairs: Mapping[tuple[int, int], float]) -> list[float | None]:
    """Per document the mean of its win probabilities, None if it was never compared."""
    won: list[list[float]] = [[] for _ in range(n)]
    for (first, second), p in pairs.items():
        won[first].append(p)
        won[second].append(1 - p)
    return [math.fsum(wins) / len(wins) if wins else None for wins in won]


def _row(ranking: RankingList, pairs: Pairs, asked: Asked) -> Row:
    means = mean_wins(len(ranking.doc_ids), pairs)
    kept = [k for k, mean in enumerate(means) if mean is not None]
    position = {k: number for number, k in enumerate(kept)}
    asked.counts["documents_without_value"] += len(means) - len(kept)
    return {
        "query_id": ranking.query_id,
        "doc_ids": [ranking.doc_ids[k] for k in kept],
        "values": [means[k] for k in kept],
        "first": [position[first] for first, _ in pairs],
        "second": [position[second] for _, second in pairs],
        "probabilities": list(pairs.values()),
    }
