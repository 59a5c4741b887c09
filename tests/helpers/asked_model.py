"""A language model that a function stands in for, and the tasks that it is asked."""

from __future__ import annotations

from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Prompt
from raypipe.teachers.llm.task import RankingList

ABC = RankingList("q", "what", ["a", "b", "c"], ["1", "2", "4"])


class Fake:
    """A generator: one function from a prompt to an answer."""

    def __init__(self, answer) -> None:
        self.answer = answer
        self.calls: list[list[Prompt]] = []

    def __call__(self, prompts, max_new_tokens):
        self.calls.append(list(prompts))
        return [self.answer(prompt) for prompt in prompts]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def judge(task, answer, *lists, context=4096):
    generate = Fake(answer)
    asked = Asked(generate, context, task.max_failed)
    rows = task.judge(lists, asked)
    assert len(generate.calls) <= 1, "one call for the whole chunk"
    return rows, asked.counts, [p for call in generate.calls for p in call]
