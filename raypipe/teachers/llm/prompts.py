"""The published wordings of ranking prompts.

RankGPT (Sun et al. 2023, 2304.09542), RankZephyr (Pradeep et al. 2023, 2312.02724), PRP (Qin et
al. 2023, 2306.17563), relevance by yes or no (Liang et al. 2022, 2211.09110).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from raypipe.inference.llm.base import Prompt

Style = Literal["rank_zephyr", "rank_gpt"]

RANK_ZEPHYR_SYSTEM = (
    "You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to "
    "the query."
)
RANK_ZEPHYR = (
    "All the passages should be included and listed using identifiers, in descending order of "
    "relevance. The output format should be [] > [], e.g., [4] > [2]. Only respond with the "
    "ranking results, do not say any word or explain."
)
RANK_GPT_SYSTEM = (
    "You are RankGPT, an intelligent assistant that can rank passages based on their relevancy to "
    "the query."
)
RANK_GPT = (
    "The passages should be listed in descending order using identifiers. The most relevant "
    "passages should be listed first. The output format should be [] > [], e.g., [1] > [2]. Only "
    "response the ranking results, do not say any word or explain."
)
PRP = "Output A or B:"
"""PRP asks for "Passage A or Passage B"; one letter makes the next token the answer."""
YES_NO = (
    "Given a passage and a query, predict whether the passage includes an answer to the query by "
    "producing either `Yes` or `No`."
)
AB = ("A", "B")
YES_OR_NO = ("Yes", "No")

_IDENTIFIER = re.compile(r"\[(\d+)\]")


def listwise(style: Style, instruction: str | None, query: str) -> Callable[..., Prompt]:
    """The prompt as a function of the passages, which count from [1].

    "rank_zephyr" is one message with all passages, "rank_gpt" a message and a confirmation per
    passage. `instruction` replaces what both say last: how to answer.
    """
    query = query.strip()

    def zephyr(passages: Sequence[str]) -> Prompt:
        n = len(passages)
        shown = "".join(f"[{i}] {_clean(text)}\n" for i, text in enumerate(passages, 1))
        content = (
            f"I will provide you with {n} passages, each indicated by a numerical identifier []. "
            f"Rank the passages based on their relevance to the search query: {query}.\n\n"
            f"{shown}\nSearch Query: {query}.\n"
            f"Rank the {n} passages above based on their relevance to the search query. "
            f"{instruction or RANK_ZEPHYR}"
        )
        return Prompt((("system", RANK_ZEPHYR_SYSTEM), ("user", content)))

    def gpt(passages: Sequence[str]) -> Prompt:
        n = len(passages)
        first = (
            f"I will provide you with {n} passages, each indicated by number identifier []. "
            f"\nRank the passages based on their relevance to query: {query}."
        )
        last = (
            f"Search Query: {query}. \nRank the {n} passages above based on their relevance to the "
            f"search query. {instruction or RANK_GPT}"
        )
        shown = [
            message
            for i, text in enumerate(passages, 1)
            for message in (
                ("user", f"[{i}] {_clean(text)}"),
                ("assistant", f"Received passage [{i}]."),
            )
        ]
        start = [
            ("system", RANK_GPT_SYSTEM),
            ("user", first),
            ("assistant", "Okay, please provide the passages."),
        ]
        return Prompt((*start, *shown, ("user", last)))

    return zephyr if style == "rank_zephyr" else gpt


def pairwise(instruction: str | None, query: str) -> Callable[..., Prompt]:
    """The prompt as a function of two passages; its choices are A, the first, and B."""

    def make(passages: Sequence[str]) -> Prompt:
        a, b = (text.strip() for text in passages)
        content = (
            f'Given a query "{query.strip()}", which of the following two passages is more '
            f"relevant to the query?\n\nPassage A: {a}\n\nPassage B: {b}\n\n{instruction or PRP}"
        )
        return Prompt((("user", content),), AB)

    return make


def pointwise(instruction: str | None, query: str) -> Callable[..., Prompt]:
    """The prompt as a function of one passage; its choices are Yes and No."""

    def make(passages: Sequence[str]) -> Prompt:
        (passage,) = passages
        content = (
            f"{instruction or YES_NO}\n\nPassage: {passage.strip()}\nQuery: {query.strip()}\n"
            "Does the passage answer the query?\nAnswer:"
        )
        return Prompt((("user", content),), YES_OR_NO)

    return make


def _clean(passage: str) -> str:
    """A reference mark such as [3] in a passage would read as an identifier."""
    return _IDENTIFIER.sub(r"(\1)", passage.strip())
