"""Listwise ranking by a language model: windows that slide from the back of a list to its front.

Sun et al. 2023 (RankGPT, 2304.09542): a window of 20 moved by 10 carries the best 10 to the top
in one pass. All lists of a chunk move in lockstep, one batch of prompts per round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator

from raypipe.config import ConfigError
from raypipe.inference.llm.asked import FEWEST_TOKENS, MESSAGE_TOKENS, TEMPLATE_TOKENS, Asked
from raypipe.inference.llm.base import Engine, Prompt, estimate_tokens
from raypipe.teachers.llm import prompts
from raypipe.teachers.llm.task import RankingList, Row, Task
from raypipe.teachers.permutations import parse_permutation


@dataclass(frozen=True)
class Window:
    """A part of one list that is to be ordered now."""

    list_index: int
    positions: list[int]
    """Of the original list, in their order so far."""


AskRound = Callable[[list[Window]], list[list[int] | None]]
"""Windows of different lists to their orders: positions within the window, best first; None leaves
the window as it is."""


def window_bounds(n: int, window: int, stride: int) -> list[tuple[int, int]]:
    """(start, stop) of one pass over n documents, from the back; fewer than two need no window.

    25 documents, window 20, stride 10: (5, 25), (0, 15). As rank_llm has it; RankGPT's own code
    ends where a full window no longer fits, and leaves the first five of 25 where they are.
    """
    bounds: list[tuple[int, int]] = []
    stop = n
    while n > 1 and (not bounds or bounds[-1][0] > 0):
        bounds.append((max(stop - window, 0), stop))
        stop -= stride
    return bounds


def rank_windows(
    sizes: Sequence[int], window: int, stride: int, passes: int, ask: AskRound
) -> list[list[int]]:
    """The order of every list after `passes` passes of sliding windows.

    Args:
        sizes: documents per list; their order so far is 0, 1, ...
        ask: called once per round with the next window of every list that has windows left.

    Returns:
        Per list a permutation of its positions, best first.
    """
    orders = [list(range(n)) for n in sizes]
    plans = [window_bounds(n, window, stride) * passes for n in sizes]
    for step in range(max(map(len, plans), default=0)):
        moving = [i for i, plan in enumerate(plans) if step < len(plan)]
        windows = [Window(i, orders[i][slice(*plans[i][step])]) for i in moving]
        for moved, order in zip(windows, ask(windows), strict=True):
            if order is not None:
                assert sorted(order) == list(range(len(moved.positions))), "not a permutation"
                new = [moved.positions[k] for k in order]
                orders[moved.list_index][slice(*plans[moved.list_index][step])] = new
    return orders


class Listwise(Task):
    """Ranks from a model that is shown a window of passages and answers [3] > [1] > [2]."""

    values = "rank"

    prompt: prompts.Style = "rank_zephyr"
    """One message with all passages (RankZephyr), or a dialogue of a turn per passage (RankGPT)."""
    window: int = Field(20, ge=2)
    """Passages shown together."""
    stride: int = Field(10, ge=1)
    """How far a window moves; window - stride documents are carried to the front."""
    passes: int = Field(1, ge=1)
    """Passes over the whole list; each begins with the order of the last."""

    @model_validator(mode="after")
    def _overlap(self) -> Listwise:
        if self.stride >= self.window:
            raise ValueError(
                f"stride {self.stride}: expected less than window {self.window}, or windows do "
                "not overlap and no document reaches the front"
            )
        return self

    def judge(self, lists: Sequence[RankingList], asked: Asked) -> list[Row]:
        """Rank of every document, 1 is best.

        A window whose answer failed or cannot be read stays in its order. A list has no values if
        no answer can be read, or if its windows do not fit: its order would be the first stage's.
        """
        sizes = [len(ranking.doc_ids) for ranking in lists]
        plans = [window_bounds(n, self.window, self.stride) for n in sizes]
        asked.expect(self.passes * sum(map(len, plans)))
        rounds = _Rounds(self, lists, asked)
        orders = rank_windows(sizes, self.window, self.stride, self.passes, rounds)
        asked.counts["queries_too_long"] += len(rounds.too_long)
        silent = {i for i, n in enumerate(sizes) if n > 1} - rounds.answered - rounds.too_long
        asked.counts["queries_without_answer"] += len(silent)
        rows = []
        for i, (ranking, order) in enumerate(zip(lists, orders, strict=True)):
            none = i in silent or i in rounds.too_long
            ranks = {position: rank for rank, position in enumerate(order, 1)}
            kept = [] if none else range(len(order))
            asked.counts["documents_without_value"] += len(order) - len(kept)
            rows.append(
                {
                    "query_id": ranking.query_id,
                    "doc_ids": [ranking.doc_ids[k] for k in kept],
                    "values": [float(ranks[k]) for k in kept],
                }
            )
        return rows

    def check_engine(self, engine: Engine) -> None:
        """A full window of shortest passages fits, by estimate."""
        n = min(self.window, self.depth)
        frame = prompts.listwise(self.prompt, self.instruction, "")([""] * n)
        used = sum(estimate_tokens(text) + MESSAGE_TOKENS for _, text in frame.messages)
        need = used + TEMPLATE_TOKENS + answer_tokens(n) + n * FEWEST_TOKENS
        if need > engine.context_tokens:
            raise ConfigError(
                f"listwise_llm: {n} passages with their answer need about {need} tokens at least, "
                f"engine.context_tokens is {engine.context_tokens}; raise it or lower `window`"
            )


class _Rounds:
    """Asks for the windows of one round and remembers which lists got an answer."""

    def __init__(self, task: Listwise, lists: Sequence[RankingList], asked: Asked) -> None:
        self._task = task
        self._lists = lists
        self._asked = asked
        self.answered: set[int] = set()
        self.too_long: set[int] = set()

    def __call__(self, windows: list[Window]) -> list[list[int] | None]:
        new = answer_tokens(max(len(window.positions) for window in windows))
        made = [self._prompt(window, new) for window in windows]
        answers = iter(self._asked([prompt for prompt in made if prompt is not None], new))
        counts = self._asked.counts
        orders: list[list[int] | None] = []
        for window, prompt in zip(windows, made, strict=True):
            answer = next(answers) if prompt is not None else None
            order = None
            if answer is not None and answer.error is None:
                counts["windows"] += 1
                permutation = parse_permutation(answer.text, len(window.positions))
                counts["windows_unparsable"] += not permutation.parsable
                if permutation.parsable:
                    self.answered.add(window.list_index)
                    counts["windows_repaired"] += permutation.repaired
                    counts["ids_repeated"] += permutation.repeats
                    counts["ids_out_of_range"] += permutation.out_of_range
                    counts["ids_missing"] += permutation.missing
                    order = permutation.order
            orders.append(order)
        return orders

    def _prompt(self, window: Window, new: int) -> Prompt | None:
        if window.list_index in self.too_long:
            return None
        source = self._lists[window.list_index]
        make = prompts.listwise(self._task.prompt, self._task.instruction, source.query)
        prompt = self._asked.fit(make, [source.passages[k] for k in window.positions], new)
        if prompt is None:
            self.too_long.add(window.list_index)
        return prompt


def answer_tokens(n: int) -> int:
    """Enough for "[1] > [2] > ...": up to six tokens per identifier where digits are tokens."""
    return 6 * n + 8
