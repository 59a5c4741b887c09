"""A recipe names a key of an engine, never another secret of its reader's."""

from __future__ import annotations

import pytest

from raypipe.config import Config, ConfigError
from raypipe.inference.llm import HttpEngine
from raypipe.recipe.reading import validate


class Recipe(Config):
    engine: HttpEngine


def engine(name: str) -> HttpEngine:
    tree = {"url": "https://llm.example:8443/v1", "model": "m", "api_key_env": name}
    return validate(Recipe, {"engine": tree}, "recipe").engine


@pytest.mark.parametrize(
    "name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN", "HOME", "MY_LLM_KEY"]
)
def test_another_variable_is_refused_with_the_host_it_would_go_to(monkeypatch, name):
    monkeypatch.setenv(name, "hush")
    words = rf"engine.api_key_env: .* {name}, whose value would go to llm.example:8443; .* export"
    with pytest.raises(ConfigError, match=words) as caught:
        engine(name)
    assert f"RAYPIPE_ALLOW_ENV={name}" in str(caught.value) and "hush" not in str(caught.value)


def test_keys_of_engines_and_those_that_the_user_allows(monkeypatch):
    monkeypatch.setenv("RAYPIPE_ALLOW_ENV", "OTHER, MY_LLM_KEY")
    monkeypatch.setenv("MY_LLM_KEY", "sk-1")
    assert engine("MY_LLM_KEY").key() == "sk-1"
    for name in ("OPENAI_API_KEY", "LLM_API_KEY", "RAYPIPE_KEY"):
        assert engine(name).api_key_env == name
    with pytest.raises(ConfigError, match="MY_LLM, whose value"):
        engine("MY_LLM")
