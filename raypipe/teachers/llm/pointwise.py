"""Pointwise relevance by a language model: does the passage answer the query, yes or no?

Liang et al. 2022 (2211.09110); as a ranker in Zhuang et al. 2023 (2310.14122).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import CHOICE_TOKENS, Answer, chosen
from raypipe.teachers.llm import prompts
from raypipe.teachers.llm.task import RankingList, Row, Task

UNHEARD = 50.0
"""Log-odds of a choice beside one that has no probability at all."""


class Pointwise(Task):
    """Log-odds of Yes against No for every document by itself: log P(Yes) - log P(No).

    log P(Yes) alone is 0 for all documents that the model is sure of. An answer is clipped where
    the engine names the likeliest tokens only and Yes or No is none of them: its log-odds are
    larger in truth.
    """

    scale = "log-odds"

    def judge(self, lists: Sequence[RankingList], asked: Asked) -> list[Row]:
        """Log-odds; from an engine that gives only text, 1 for Yes and 0 for No.

        The two are never mixed in one list: where some answers have log-probabilities, the others
        are left out.
        """
        made = [
            asked.fit(prompts.pointwise(self.instruction, ranking.query), [text], CHOICE_TOKENS)
            for ranking in lists
            for text in ranking.passages
        ]
        asked.counts["documents_too_long"] += sum(prompt is None for prompt in made)
        sent = [prompt for prompt in made if prompt is not None]
        asked.expect(len(sent))
        answers = iter(asked(sent, CHOICE_TOKENS))
        every = iter([None if prompt is None else next(answers) for prompt in made])
        return [
            self._row(ranking, [next(every) for _ in ranking.doc_ids], asked) for ranking in lists
        ]

    def _row(self, ranking: RankingList, answers: list[Answer | None], asked: Asked) -> Row:
        usable = [a if a is not None and a.error is None else None for a in answers]
        graded = any(a is not None and a.logprobs is not None for a in usable)
        values = []
        for answer in usable:
            value = None
            if answer is not None:
                value = log_odds(answer.logprobs) if graded else said_yes(answer.text)
                clipped = graded and value is not None and _is_clipped(answer)
                asked.counts["answers_clipped"] += clipped
                asked.counts["answers_from_text"] += not graded
                asked.counts["answers_unparsable"] += value is None
            values.append(value)
        kept = [k for k, value in enumerate(values) if value is not None]
        asked.counts["documents_without_value"] += len(values) - len(kept)
        return {
            "query_id": ranking.query_id,
            "doc_ids": [ranking.doc_ids[k] for k in kept],
            "values": [values[k] for k in kept],
        }


def log_odds(logprobs: Mapping[str, float] | None) -> float | None:
    """log(yes) - log(no), at most `UNHEARD` from 0 where one is 0; None where both are or one is
    NaN."""
    yes, no = _yes_and_no(logprobs)
    if math.isnan(yes - no):  # -inf - -inf is NaN too
        return None
    return yes - no if math.isfinite(yes - no) else math.copysign(UNHEARD, yes - no)


def _yes_and_no(logprobs: Mapping[str, float] | None) -> tuple[float, float]:
    yes, no = ((logprobs or {}).get(choice, -math.inf) for choice in prompts.YES_OR_NO)
    return yes, no


def _is_clipped(answer: Answer) -> bool:
    return answer.clipped or math.isinf(sum(_yes_and_no(answer.logprobs)))


def said_yes(text: str) -> float | None:
    """1 for an answer that says yes first, 0 for no, None for neither."""
    choice = chosen(text, prompts.YES_OR_NO)
    return None if choice is None else float(choice == prompts.YES_OR_NO[0])
