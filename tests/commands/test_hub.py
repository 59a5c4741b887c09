"""--push-to-hub: what arrives at a stand-in of the hub, and what is refused before and after."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants
from servers_here import serving

from raypipe.commands.hub import check_push, push
from raypipe.config import ConfigError

FILES = {
    "README.md": b"---\nlicense: apache-2.0\n---\n# a card\n",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "1_Pooling/config.json": b'{"pooling_mode": "mean"}',
}


@pytest.fixture
def hub(monkeypatch) -> Iterator[HubServer]:
    with serving(HubServer()) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_standin")
        yield server


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_every_file_arrives_in_a_private_repository(hub, folder, kind):
    said: list[str] = []
    check_push("me/reranker")
    push(folder, "me/reranker", kind, said.append)
    assert hub.files == FILES
    (created,) = hub.created
    assert created["visibility"] == "private" and created.get("type", "model") == kind
    assert hub.keys == {"Bearer hf_standin"}
    assert said[0].startswith(f"pushed to {hub.url}/") and "hf_standin" not in said[0]


def test_a_hub_that_refuses_leaves_the_folder(hub, folder):
    hub.refuses = (403, "you may not write here")
    with pytest.raises(ConfigError, match=r"did not take it .*403") as refused:
        push(folder, "me/reranker", "model")
    assert f"hf upload me/reranker {folder} --repo-type model" in str(refused.value)
    assert "hf_standin" not in str(refused.value) and (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["reranker", "a/b/c", "me/re ranker", "/x"])
def test_a_name_that_is_none_is_refused_before_work(hub, name):
    with pytest.raises(ConfigError, match="expected a repository USER/NAME"):
        check_push(name)


def test_without_a_token_or_a_hub(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no token of the hub; run `hf auth login`"):
        check_push("me/reranker")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"switched off here by \$HF_HUB_OFFLINE"):
        check_push("me/reranker")


def test_the_command_refuses_it_before_it_looks_for_the_model(
    recipe, tmp_path, monkeypatch, capsys
):
    from raypipe.program import program

    words = ["raypipe", "export", str(tmp_path / "out"), str(recipe), "--push-to-hub", "nobody"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 2
    assert "--push-to-hub nobody: expected a repository USER/NAME" in capsys.readouterr().err
