from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.teachers import permutations
from raypipe.teachers.permutations import Permutation, parse_permutation


def order(text: str, n: int) -> list[int] | None:
    """1-based, as in the text; None if nothing was found."""
    found = parse_permutation(text, n)
    return [i + 1 for i in found.order] if found.parsable else None


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("[2] > [3] > [1]", 3, Permutation([1, 2, 0], 0, 0, 0, True)),
        ("[3]>[1]", 4, Permutation([2, 0, 1, 3], 0, 0, 2, True)),
        ("[2] > [2] > [1] > [2]", 2, Permutation([1, 0], 2, 0, 0, True)),
        ("[0] > [4] > [3] > [-1] > [2]", 3, Permutation([2, 1, 0], 0, 2, 1, True)),
        ("[9] > [9]", 3, Permutation([0, 1, 2], 0, 2, 3, False)),
        ("", 3, Permutation([0, 1, 2], 0, 0, 3, False)),
        ("I cannot rank these.", 2, Permutation([0, 1], 0, 0, 2, False)),
        ("[1]", 0, Permutation([], 0, 1, 0, False)),
    ],
)
def test_orders_and_repairs_by_hand(text, n, expected):
    assert parse_permutation(text, n) == expected


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("Sure! The ranking is:\n[2] > [1] > [3]\nHope this helps.", 3, [2, 1, 3]),
        ("[ 2 ] = [1], [3]", 3, [2, 1, 3]),
        ("1. [3] because it names the city\n2. [1] a little\n3. [2]", 3, [3, 1, 2]),
        ("[Passage 2] > [passage 1]", 2, [2, 1]),
        ("Passage [3] is off topic. [2] > [1] > [3]", 3, [2, 1, 3]),
        ("Draft: [1] > [2] > [3]. Final: [3] > [2] > [1]", 3, [3, 2, 1]),
        ("[2] is best, then [1] > [3]", 3, [2, 1, 3]),
        ("[1] > [2] > 7 words > [3]. See [4].", 4, [1, 2, 3, 4]),
        ("[2] &gt; [1]", 2, [2, 1]),
        ("[2] > [" + "9" * 5000 + "] > [1]", 2, [2, 1]),
    ],
)
def test_bracketed_numbers_in_prose(text, n, expected):
    assert order(text, n) == expected


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("3 > 1 > 2", 3, [3, 1, 2]),
        ("The order is 3>1>2, I think.", 3, [3, 1, 2]),
        ("Passage 3 > Passage 1 > passage 2", 3, [3, 1, 2]),
        ("3, 1, 2", 3, [3, 1, 2]),
        ("[3, 1, 2]", 3, [3, 1, 2]),
        ("3\n1\n2\n", 3, [3, 1, 2]),
        ("Ranking:\n\n- 3\n- 1\n\n- 2\n\nDone", 3, [3, 1, 2]),
        ("3.\r\n1.\r\n2.", 3, [3, 1, 2]),
        ("Of 1, 2 I like 2 > 1 > 3 best", 3, [2, 1, 3]),  # > is said of orders alone
        ("I looked at 20 passages", 20, None),
        ("I looked at 1,234 passages", 300, None),
        ("In 2019, 20 passages were judged", 20, None),
        ("Passage 3 is better than 1", 3, None),
        ("3 > 3", 3, None),
        ("20", 20, None),
        ("7", 1, None),
    ],
)
def test_plain_numbers_only_where_they_are_an_order(text, n, expected):
    assert order(text, n) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>[1] > [2]</think>[2] > [1]", [2, 1]),
        ("<THINK>\n[1] > [2]\n</THINK>\n[2] > [1]", [2, 1]),
        ("<think>a</think>[2]<think>[1]</think>", [2, 1]),
        ("the template opened it: [1]</think>[2] > [1]", [2, 1]),
        ("<think>it was cut off at [1] > [2]", None),
        ("[THINK][1] is [2]? no[/THINK]The order: [2], [1]", [2, 1]),
        (
            "<|channel|>analysis<|message|>[1], [2]<|end|><|channel|>final<|message|>[2], [1]",
            [2, 1],
        ),
    ],
)
def test_thinking_is_no_answer(text, expected):
    assert order(text, 2) == expected


@pytest.mark.parametrize(
    ("text", "repaired"),
    [("[2] > [1]", False), ("[2]", True), ("[2] > [1] > [3]", True), ("", False)],
)
def test_repaired_says_understood_but_no_permutation(text, repaired):
    assert parse_permutation(text, 2).repaired is repaired


@given(st.text(alphabet=st.sampled_from("0123456789[]>, \n.<think/>a"), max_size=80) | st.text())
def test_whatever_the_answer_the_order_is_a_permutation(text):
    for n in (0, 1, 5, 20):
        found = parse_permutation(text, n)
        assert sorted(found.order) == list(range(n))
        assert 0 <= found.missing <= n
        if not found.parsable:
            assert found.order == list(range(n))
            assert found.missing == n
            assert not found.repaired


@given(st.permutations(range(12)), st.sampled_from([" > ", ">", "\n", ", ", " and ", ""]))
def test_a_whole_bracketed_order_comes_back(wanted, joint):
    text = joint.join(f"[{i + 1}]" for i in wanted)
    assert parse_permutation(text, 12) == Permutation(list(wanted), 0, 0, 0, True)


@given(st.permutations(range(12)), st.sampled_from([" > ", ">", "\n", ", "]))
def test_a_whole_plain_order_comes_back(wanted, joint):
    text = joint.join(str(i + 1) for i in wanted)
    assert parse_permutation(text, 12) == Permutation(list(wanted), 0, 0, 0, True)


@given(st.integers(1, 8), st.lists(st.integers(0, 12), min_size=1, max_size=12))
def test_repairs_against_a_naive_count(n, ids):
    found = parse_permutation(" > ".join(f"[{i}]" for i in ids), n)
    kept: list[int] = []
    repeats = out_of_range = 0
    for i in ids:
        if not 1 <= i <= n:
            out_of_range += 1
        elif i - 1 in kept:
            repeats += 1
        else:
            kept.append(i - 1)
    rest = [i for i in range(n) if i not in kept]
    assert found == Permutation(kept + rest, repeats, out_of_range, len(rest), bool(kept))


LONG = 900_000
"""Characters, fewer than are read: a search that goes back would take hours."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1" * LONG, None),
        (" " * LONG + "[2] > [1]", [2, 1]),
        ("passage" + " " * LONG + "[2] > [1]", [2, 1]),
        ("[passage" + " " * LONG + "[2] > [1]", [2, 1]),
        ("2 > 1" + " " * LONG + ">", [2, 1]),
        ("2, 1" + " " * LONG + ",", [2, 1]),
        ("2\n1" + "\n" * LONG + "x", [2, 1]),
        ("2\n1\n" + "3 x\n" * (LONG // 4), [2, 1]),
        ("[" * LONG + "2] > [1]", [2, 1]),
        ("<think>" * (LONG // 7), None),
        ("</think>" * (LONG // 8) + "[2] > [1]", [2, 1]),
        ("2 > 1 > " * (LONG // 8), [2, 1]),
        ("[2] > [1] > " * (LONG // 12), [2, 1]),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_an_answer_of_a_megabyte_is_read_once(text, expected):
    assert order(text, 2) == expected


def test_an_answer_that_is_longer_than_any_order_has_none(monkeypatch):
    monkeypatch.setattr(permutations, "LONGEST_ANSWER", 20)
    assert order("[2] > [1]".ljust(20), 2) == [2, 1]
    assert order("[2] > [1]".ljust(21), 2) is None
