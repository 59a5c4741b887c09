"""Several teachers as one: what the config says of them, refuses, and hands to the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import ValidationError

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Step
from raypipe.teachers.ensemble import CombinedScores, Ensemble


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
    one = ensemble(weights={"two": 0.5}, normalise="min_max")
    step = one.scores(LISTS, "fp32")
    assert isinstance(step, CombinedScores) and step.teacher is one
    assert step.teacher.members == {"one": ("score", 1.0), "two": ("rank", 0.5)}
    names = {name: type(member).__name__ for name, member in step.members.items()}
    assert names == {"one": "ScoreFile", "two": "RunFileValues"}
    assert one.values == "score" and one.label == "ensemble of one, two"
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
