from __future__ import annotations

import pytest

from raypipe.inference.llm.thinking import begins_with_thinking, cut_in_thinking, without_thinking

ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("<think>\nOkay, passage [1] says", True),
        ("[THINK] passage [1] > [2]", True),
        ("<THINK> hm", True),
        ("<think>a</think> <think>b", True),
        ("<think>a</think>[2] > [1]", False),
        ("still thinking</think>[2] > [1]", False),
        (f"{ANALYSIS}[1] > [2], or", True),
        (f"{ANALYSIS}a<|end|><|start|>assistant{FINAL}[2] > [1]", False),
        ("[2] > [1]", False),
        ("", False),
    ],
)
def test_answers_that_end_inside_their_thinking(text, cut):
    assert cut_in_thinking(text) is cut


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a<think>b</think>c", "ac"),
        ("a</think>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("[think]a[/Think]b", "b"),
        ("a<think>b", "a"),
        (f"{ANALYSIS}a<|end|><|start|>assistant{FINAL}b", "b"),
        (f"{FINAL}b", "b"),
        ("a", "a"),
    ],
)
def test_what_is_left_without_thinking(text, rest):
    assert without_thinking(text) == rest


def test_a_first_token_of_thinking():
    assert begins_with_thinking(" <Think>a") and begins_with_thinking(f"{ANALYSIS}a")
    assert not begins_with_thinking("Yes <think>") and not begins_with_thinking(f"{FINAL}Yes")
