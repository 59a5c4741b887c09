"""explain: what a key or a choice means, from any name that people know."""

from __future__ import annotations

from pathlib import Path

import pytest

from raypipe.commands.explain import explain, reference
from raypipe.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "jobs" / "recipes"


def told(key: str | None) -> str:
    return "\n".join(explain(key, RECIPES))


def test_a_key_with_any_stage_s_name():
    text = told("stages.my stage.lr")
    assert text.startswith("stages.NAME.lr\n  takes: number, > 0, < 1\n  default: 2e-05\n")
    assert "elsewhere called: learning_rate" in text and "example: stages." in text


def test_a_choice_and_its_fields():
    text = told("infonce")
    assert text.startswith("infonce  (at stages.loss") and "temperature: number, > 0" in text


def test_a_field_lists_its_choices():
    assert "- listnet: " in told("stages.x.loss")


def test_the_end_of_one_key_alone_is_that_key():
    assert told("warmup_steps") == told("stages.NAME.warmup_steps")


def test_what_changes_no_result_is_said():
    assert "changes no result" in told("resources.workers")
    assert "changes no result" not in told("seed")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("learning_rate", "stages.NAME.lr"), ("first_stage", "candidates"), ("n_way", "groups")],
)
def test_names_of_elsewhere(theirs, ours):
    assert told(theirs).startswith(f"{theirs}: here it is called {ours}\n{ours}\n")


def test_without_a_key_all_at_the_top():
    lines = explain(None, RECIPES)
    assert {line.split()[0] for line in lines} >= {"name", "data", "stages", "resources"}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lrr", "did you mean 'lr'"),
        ("depth", "name the whole key, such as candidates.depth"),
        ("infonse", "did you mean 'infonce'"),
        ("qqqq", "without a key"),
    ],
)
def test_what_nobody_knows(key, words):
    with pytest.raises(ConfigError, match=words):
        told(key)


def test_the_reference_page_is_current():
    assert (ROOT / "docs/reference.md").read_text() == reference(), (
        "run: raypipe explain --reference docs/reference.md"
    )
