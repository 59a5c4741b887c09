"""Several teachers as one: the config and its step; combined values worked by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.teachers.ensemble import CombinedScores, Ensemble, combine


@dataclass(frozen=True)
class Nothing(Step):
    kind = "candidates"
    name = "nothing"


LISTS: Any = Lists(Nothing(), None, Nothing(), Nothing(), 7)  # type: ignore[arg-type]
MONO = {"type": "mono_scores", "paths": ["/mono.tsv"]}
RUN = {"type": "run_file", "paths": ["/llm.run"]}
DUO = {"type": "duo_scores", "paths": ["/duo.tsv"]}


def ensemble(one: dict[str, Any] = MONO, two: dict[str, Any] = RUN, **fields: Any) -> Ensemble:
    return Ensemble.model_validate({"teachers": {"one": one, "two": two}, **fields})


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, True),  # z-scores: of whole lists, or every group would have a scale of its own
        ({"normalise": "min_max"}, True),
        ({"normalise": "none"}, False),
        ({"normalise": "none", "two": DUO}, True),  # a member does
    ],
)
def test_whether_whole_lists_are_needed(fields, needed):
    assert ensemble(**fields).needs_lists is needed


def test_the_step_has_kind_and_weight_of_every_member(monkeypatch):
    monkeypatch.setattr("raypipe.teachers.published.scores.checksums", list)
    monkeypatch.setattr("raypipe.teachers.published.run_file.checksums", list)
    monkeypatch.setattr("raypipe.teachers.published.run_file.order_spec", lambda paths: {})
    one = ensemble(weights={"two": 0.5}, normalise="min_max")
    step = one.scores(LISTS, "fp32")
    assert isinstance(step, CombinedScores) and step.teacher is one
    assert step.teacher.members == {"one": ("score", 1.0), "two": ("rank", 0.5)}
    names = {name: type(member).__name__ for name, member in step.members.items()}
    assert names == {"one": "ScoreFile", "two": "RunFileValues"}
    assert one.values == "score" and one.title == "ensemble of one, two"
    others = [ensemble(), ensemble(weights={"two": 0.5}), ensemble(weights={"one": 0.5})]
    digests = {each.scores(LISTS, "fp32").digest for each in (one, *others)}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weights": {"tow": 1}}, "weights: there is no teacher 'tow'; did you mean 'two'"),
        ({"weights": {"two": 0}}, "greater than 0"),
        ({"weights": {"two": float("inf")}}, "finite"),
        ({"teachers": {"one": MONO}}, "at least 2 items"),
        ({"normalise": "softmax"}, "'none', 'min_max' or 'z'"),
        ({"two": {"type": "ensemble", "teachers": {}}}, "ensemble"),  # none within another one
    ],
)
def test_what_makes_no_ensemble(fields, message):
    with pytest.raises(ValidationError) as error:
        ensemble(**fields)
    assert message in str(error.value)


def test_what_a_member_lacks_is_said_with_its_name(tmp_path):
    (tmp_path / "llm.run").touch()
    there = {**RUN, "paths": [str(tmp_path / "llm.run")]}
    with pytest.raises(ConfigError, match=r"^teachers\.two: mono_scores file /mono\.tsv"):
        ensemble(there, MONO).check()
    ensemble(there, there).check()


# --- values ------------------------------------------------------------------------------------

A = {"a": 4.0, "b": 2.0, "c": 0.0}
B = {"c": 10.0, "a": 30.0, "b": 20.0, "x": 99.0}
EQUAL = {"A": ("score", 1.0), "B": ("score", 1.0)}


def values(normalise, members=EQUAL, **lists):
    doc_ids, found, left = combine(lists or {"A": A, "B": B}, members, normalise)
    return dict(zip(doc_ids, found.tolist(), strict=True)), left


def test_the_mean_as_it_is():
    # (4 + 30) / 2, (2 + 20) / 2, (0 + 10) / 2; x has no value from A
    assert values("none") == ({"a": 17.0, "b": 11.0, "c": 5.0}, 1)


def test_min_max():
    # A: 1, .5, 0; B over the common documents: 1, .5, 0
    assert values("min_max") == ({"a": 1.0, "b": 0.5, "c": 0.0}, 1)


def test_z_scores_and_weights():
    # both lists have z-scores sqrt(3/2), 0, -sqrt(3/2)
    z = 1.5**0.5
    found, _ = values("z", {"A": ("score", 3.0), "B": ("rank", 1.0)})
    # B counts as -rank: its order is turned, (3 z - z) / 4
    assert found == pytest.approx({"a": z / 2, "b": 0.0, "c": -z / 2})


def test_a_constant_list_says_nothing():
    flat = {"a": 7.0, "b": 7.0, "c": 7.0}
    assert values("min_max", A=A, B=flat)[0] == {"a": 0.5, "b": 0.25, "c": 0.0}


def test_nothing_in_common():
    doc_ids, found, left = combine({"A": {"a": 1.0}, "B": {"b": 1.0}}, EQUAL, "z")
    assert (doc_ids, found.tolist(), left) == ([], [], 2)


SCORES = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(-50, 50).map(float), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=80, database=None)
@given(one=SCORES, two=SCORES, scale=st.sampled_from([0.5, 3.0]), shift=st.integers(-9, 9))
@pytest.mark.parametrize("normalise", ["min_max", "z"])
def test_scale_and_shift_of_a_member_do_not_matter(normalise, one, two, scale, shift):
    moved = {d: scale * v + shift for d, v in one.items()}
    docs, first, _ = combine({"A": one, "B": two}, EQUAL, normalise)
    again, second, _ = combine({"A": moved, "B": two}, EQUAL, normalise)
    assert docs == again
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=40, database=None)
@given(one=SCORES, two=SCORES)
def test_the_order_of_members_does_not_matter(one, two):
    docs, first, left = combine({"A": one, "B": two}, EQUAL, "z")
    again, second, right = combine({"B": two, "A": one}, EQUAL, "z")
    assert left == right and set(docs) == set(again)
    assert dict(zip(docs, first, strict=True)) == pytest.approx(
        dict(zip(again, second, strict=True))
    )
