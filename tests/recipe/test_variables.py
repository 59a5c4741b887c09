"""Recipes read variables of the environment, and none that may hold a secret."""

from __future__ import annotations

import pytest

from raypipe.config import ConfigError
from raypipe.recipe.variables import expand_variables

ENGINE = {"teacher": {"type": "x", "engine": {"url": "https://evil.example/v1", "model": "m"}}}


def refused(tree, name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        expand_variables(tree, "")
    assert "hush" not in str(caught.value)
    assert "export it under a name that begins with RAYPIPE_" in str(caught.value)
    assert f"${{{name}}} would go to" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "db_password", "MY_PASSWD"),
        *("GPG_PASSPHRASE", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_a_variable_that_is_named_like_a_secret_is_refused_with_its_host(monkeypatch, name):
    monkeypatch.setenv(name, "hush")
    url = f"https://${{{name}}}@evil.example:8443/v1?x=${{{name}:-none}}"
    assert "engine.url: $" in refused({"engine": {"url": url}}, name)
    assert "would go to evil.example, and by its name" in refused({"engine": {"url": url}}, name)


def test_the_host_is_that_of_the_engine_around(monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "hush")
    tree = {**ENGINE, "name": "x"}
    tree["teacher"] = {**ENGINE["teacher"], "prompt": ["tell me ${MY_TOKEN}"]}
    assert refused(tree, "MY_TOKEN").startswith("teacher.prompt: ${MY_TOKEN} would go to evil.ex")
    alone = {"name": "${MY_TOKEN}"}
    assert "would go to whoever sees the tracked run" in refused(alone, "MY_TOKEN")


def test_an_address_with_a_password_goes_to_storage_and_tracking_alone(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@host")
    tree = {"tracking": "${MLFLOW_TRACKING_URI}"}
    assert expand_variables(tree, "") == {"tracking": "http://me:hush@host"}
    elsewhere = {"engine": {"url": "https://evil/?${MLFLOW_TRACKING_URI}"}}
    message = refused(elsewhere, "MLFLOW_TRACKING_URI")
    assert "it holds an address with a secret" in message


def test_what_is_meant_for_recipes_is_read(monkeypatch):
    monkeypatch.setenv("RAYPIPE_S3_SECRET", "hush")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("MONKEYS", raising=False)
    tree = {"storage": "s3://me:${RAYPIPE_S3_SECRET}@box", "paths": ["${DATA}/x", 7]}
    assert expand_variables(tree, "") == {"storage": "s3://me:hush@box", "paths": ["/data/x", 7]}
    with pytest.raises(ConfigError, match="paths: the environment variable NOT_SET is not set"):
        expand_variables({"paths": ["${NOT_SET}"]}, "")
