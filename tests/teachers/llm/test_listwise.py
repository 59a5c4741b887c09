"""Sliding windows against hand-worked orders, an oracle, and answers as models really give them."""

from __future__ import annotations

import random
import re

import pytest
from asked_model import Fake
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.config import Config, ConfigError
from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Answer, Engine, Prompt
from raypipe.recipe.reading import validate
from raypipe.teachers.llm.listwise import Listwise, Window, rank_windows, window_bounds
from raypipe.teachers.llm.task import RankingList


def shown(prompt: Prompt) -> dict[int, str]:
    """Identifier to passage, as the model reads them."""
    text = "\n".join(content for role, content in prompt.messages if role == "user")
    return {int(i): passage for i, passage in re.findall(r"^\[(\d+)\] (.*)$", text, re.M)}


def oracle(prompt: Prompt) -> Answer:
    """Passages are numbers, larger is better."""
    by_value = sorted(shown(prompt).items(), key=lambda item: -int(item[1]))
    return Answer(" > ".join(f"[{i}]" for i, _ in by_value))


def numbers(values, name="q") -> RankingList:
    return RankingList(name, "what", [f"d{v}" for v in values], [str(v) for v in values])


def judge(task: Listwise, generate: Fake, *lists: RankingList, context=100_000):
    asked = Asked(generate, context, task.max_failed)
    return task.judge(lists, asked), asked.counts


def ranked(row) -> list[str]:
    """Documents best first; ranks count from 1 without gaps."""
    assert sorted(row["values"]) == list(range(1, len(row["doc_ids"]) + 1))
    return [d for _, d in sorted(zip(row["values"], row["doc_ids"], strict=True))]


@pytest.mark.parametrize(
    ("n", "window", "stride", "bounds"),
    [
        (25, 20, 10, [(5, 25), (0, 15)]),
        (30, 20, 10, [(10, 30), (0, 20)]),
        (20, 20, 10, [(0, 20)]),
        (7, 20, 10, [(0, 7)]),
        (2, 20, 10, [(0, 2)]),
        (1, 20, 10, []),
        (0, 20, 10, []),
        (5, 3, 2, [(2, 5), (0, 3)]),
        (6, 3, 2, [(3, 6), (1, 4), (0, 2)]),
    ],
)
def test_window_bounds(n, window, stride, bounds):
    assert window_bounds(n, window, stride) == bounds


def test_a_hundred_documents_take_nine_windows():
    bounds = window_bounds(100, 20, 10)
    assert len(bounds) == 9 and bounds[0] == (80, 100) and bounds[-1] == (0, 20)


def by(best_first: str):
    """Orders a window of positions 0.. = a.. as `best_first` has them."""

    def ask(windows: list[Window]):
        place = [best_first.index(chr(97 + i)) for i in range(len(best_first))]
        return [
            sorted(range(len(w.positions)), key=lambda k: place[w.positions[k]]) for w in windows
        ]

    return ask


@pytest.mark.parametrize(("passes", "order"), [(1, "ebadc"), (2, "edbca")])
def test_windows_worked_by_hand(passes, order):
    """abcde, e best, then d, ...: ab[cde] ab[edc], [abe]dc [eba]dc; eb[adc] eb[dca], [ebd] [edb]"""
    (found,) = rank_windows([5], 3, 2, passes, by("edcba"))
    assert "".join(chr(97 + i) for i in found) == order


def test_a_window_without_an_answer_stays():
    asked = []

    def ask(windows):
        asked.append(windows[0].positions)
        return [None if len(asked) == 1 else [2, 1, 0]]

    assert rank_windows([5], 3, 2, 1, ask) == [[2, 1, 0, 3, 4]]
    assert asked == [[2, 3, 4], [0, 1, 2]]


def test_lists_move_in_lockstep():
    rounds = []

    def ask(windows):
        rounds.append([(w.list_index, len(w.positions)) for w in windows])
        return [None for _ in windows]

    orders = rank_windows([25, 1, 5, 0], 20, 10, 1, ask)
    assert rounds == [[(0, 20), (2, 5)], [(0, 15)]]
    assert [len(order) for order in orders] == [25, 1, 5, 0]


@settings(deadline=None, max_examples=40, database=None)
@given(st.integers(2, 90), st.integers(0, 99))
def test_a_perfect_model_puts_the_best_ten_on_top(n, seed):
    values = random.Random(seed).sample(range(1000), n)
    (row,), counts = judge(Listwise(), Fake(oracle), numbers(values))
    expected = [f"d{v}" for v in sorted(values, reverse=True)]
    assert ranked(row)[:10] == expected[:10]
    assert sorted(row["doc_ids"]) == sorted(expected)
    assert counts["windows_repaired"] == counts["windows_unparsable"] == 0
    assert counts["requests"] == counts["windows"] == len(window_bounds(n, 20, 10))


def test_one_call_per_round_for_all_queries():
    generate = Fake(oracle)
    rows, _ = judge(Listwise(), generate, numbers(range(25), "a"), numbers(range(5), "b"))
    assert [len(call) for call in generate.calls] == [2, 1]
    assert [row["query_id"] for row in rows] == ["a", "b"]
    assert ranked(rows[1]) == ["d4", "d3", "d2", "d1", "d0"]
    assert rows[1]["doc_ids"] == ["d0", "d1", "d2", "d3", "d4"]
    assert rows[1]["values"] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("style", ["rank_zephyr", "rank_gpt"])
def test_both_prompts_show_all_passages(style):
    generate = Fake(oracle)
    (row,), _ = judge(Listwise(prompt=style), generate, numbers([3, 9, 5]))
    assert ranked(row) == ["d9", "d5", "d3"]
    ((prompt,),) = generate.calls
    assert shown(prompt) == {1: "3", 2: "9", 3: "5"}
    roles = [role for role, _ in prompt.messages]
    turns = ["user", "assistant"] * 4 + ["user"] if style == "rank_gpt" else ["user"]
    assert roles == ["system", *turns] and prompt.choices == ()


def test_an_own_instruction_takes_the_place_of_the_published_one():
    generate = Fake(oracle)
    judge(Listwise(instruction="Begin."), generate, numbers([1, 2]))
    judge(Listwise(), generate, numbers([1, 2]))
    own, published = (call[0].messages[-1][1] for call in generate.calls)
    assert own.endswith("search query. Begin.") and "[4] > [2]" not in own
    assert published.endswith("do not say any word or explain.") and "[4] > [2]" in published


def test_reference_marks_in_passages_are_no_identifiers():
    generate = Fake(lambda prompt: Answer("[2] > [1]"))
    judge(Listwise(), generate, RankingList("q", "w", ["a", "b"], ["see [7]", "x"]))
    assert shown(generate.calls[0][0]) == {1: "see (7)", 2: "x"}


def test_repairs_are_counted():
    texts = iter(["The ranking is [2] > [2] > [9] > [1].", "I cannot rank these.", "[1] > [2]"])
    lists = [numbers([1, 2, 3], "a"), numbers([4, 5, 6], "b"), numbers([7, 8], "c")]
    rows, counts = judge(Listwise(), Fake(lambda _: Answer(next(texts))), *lists)
    assert ranked(rows[0]) == ["d2", "d1", "d3"]
    assert rows[1] == {"query_id": "b", "doc_ids": [], "values": []}
    assert ranked(rows[2]) == ["d7", "d8"]
    expected = {
        "windows": 3,
        "windows_repaired": 1,
        "windows_unparsable": 1,
        "ids_repeated": 1,
        "ids_out_of_range": 1,
        "ids_missing": 1,
        "queries_without_answer": 1,
        "documents_without_value": 3,
        "requests_failed": 0,
    }
    assert {name: counts[name] for name in expected} == expected


def test_a_list_with_one_unreadable_window_keeps_the_other():
    texts = iter(["no idea", "[2] > [1]"])
    task = Listwise(window=2, stride=1)
    (row,), counts = judge(task, Fake(lambda _: Answer(next(texts))), numbers([1, 2, 3]))
    assert ranked(row) == ["d2", "d1", "d3"]
    assert counts["windows_unparsable"] == 1 and counts["queries_without_answer"] == 0


def test_a_single_document_has_rank_one_without_a_request():
    generate = Fake(oracle)
    rows, counts = judge(Listwise(), generate, numbers([5]), numbers([]))
    assert rows[0]["values"] == [1.0] and rows[1]["values"] == []
    assert generate.calls == [] and counts["requests"] == 0


def failing(every: int):
    """Fails at the request numbers 1, 1 + every, ..."""
    seen = iter(range(10_000))
    return lambda prompt: (
        Answer(error="429: slow down") if next(seen) % every == 0 else oracle(prompt)
    )


def test_some_failures_are_counted():
    lists = [numbers(range(10), f"q{i}") for i in range(4)]
    rows, counts = judge(Listwise(max_failed=0.25), Fake(failing(4)), *lists)
    assert counts["requests_failed"] == 1 and counts["requests"] == 4 and counts["windows"] == 3
    assert [len(row["doc_ids"]) for row in rows] == [0, 10, 10, 10]
    assert counts["queries_without_answer"] == 1


def test_more_failures_stop_the_chunk_with_the_servers_words():
    generate = Fake(failing(1))
    with pytest.raises(RuntimeError, match=r"1 of 2 requests.*429: slow down"):
        judge(Listwise(max_failed=0.25), generate, numbers(range(25)))
    assert len(generate.calls) == 1, "it stops at once"


def test_answers_must_be_as_many_as_prompts():
    generate = Fake(oracle)
    generate.__class__ = type("Short", (Fake,), {"__call__": lambda self, prompts, n: []})
    with pytest.raises(RuntimeError, match="0 answers to 1 prompts"):
        judge(Listwise(), generate, numbers([1, 2]))


def test_passages_are_cut_to_fit_and_counted():
    """Words are tokens here; the long passage gets what the short ones leave."""
    long = " ".join(["5", *["word"] * 5000])
    one = RankingList("q", "w", ["a", "b", "c"], ["1 short", long, "2 short"])
    generate = Fake(lambda prompt: Answer("[2] > [1] > [3]"))
    (row,), counts = judge(Listwise(), generate, one, context=400)
    assert ranked(row) == ["b", "a", "c"]
    assert counts["passages"] == 3 and counts["passages_cut"] == 1
    ((prompt,),) = generate.calls
    passages = shown(prompt)
    assert passages[1] == "1 short" and passages[3] == "2 short"
    words = sum(len(content.split()) for _, content in prompt.messages)
    assert 300 < words < 400 - 26  # 26 is the room for the answer


def test_a_query_that_leaves_no_room_is_counted():
    long = RankingList("long", "why " * 500, ["a", "b"], ["x " * 50, "y " * 50])
    generate = Fake(lambda prompt: Answer("[2] > [1]"))
    rows, counts = judge(Listwise(), generate, long, numbers([1, 2]), context=400)
    assert rows[0]["doc_ids"] == [] and ranked(rows[1]) == ["d2", "d1"]
    assert counts["queries_too_long"] == 1 and counts["queries_without_answer"] == 0
    assert counts["requests"] == 1 and counts["documents_without_value"] == 2


def test_ids_inside_thinking_that_was_cut_are_no_order():
    """Read as an order, "[THINK]" would rank what the model looked at first."""
    for text in ("[THINK]Passage [2] > [3] seems", "<think>\n[3], while [2]"):
        (row,), counts = judge(Listwise(), Fake(lambda _, t=text: Answer(t)), numbers([1, 2, 3]))
        assert row["doc_ids"] == [] and counts["answers_cut_in_thinking"] == 1
    answer = Answer("[THINK]maybe [1][/THINK][3] > [2] > [1]")
    (row,), counts = judge(Listwise(), Fake(lambda _: answer), numbers([1, 2, 3]))
    assert ranked(row) == ["d3", "d2", "d1"] and counts["answers_cut_in_thinking"] == 0


def test_windows_that_do_not_overlap_are_refused():
    with pytest.raises(ConfigError, match="stride 10: expected less than window 10"):
        validate(Listwise, {"window": 10}, "here")


def test_a_context_without_room_for_a_window_is_refused():
    class Small(Engine):
        pass

    with pytest.raises(ConfigError, match="lower `window`"):
        Listwise().check_engine(Small(context_tokens=512))
    Listwise(window=6, stride=3).check_engine(Small(context_tokens=512))


def test_max_failed_is_not_in_the_digest():
    assert isinstance(Listwise(), Config)
    assert Listwise().semantic() == Listwise(max_failed=0.5).semantic()
    assert Listwise().semantic() != Listwise(queries_per_chunk=4).semantic()
