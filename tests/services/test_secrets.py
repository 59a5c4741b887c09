"""Planted secrets: a sweep with S3, a tracking server and an LLM, and nothing holds one."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from chat_server import Handler, completion, running
from servers import answers, end, free_port, mlflow_server, until

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "storage": "Sto/rageXq7",
    "access key": "AKIAPLANTEDXQ7",
    "tracking": "TrackingXq7",
    "engine": "EngineXq7",
    "LLM_API_KEY": "sk-LlmKeyXq7",
    "HF_TOKEN": "hf_HubTokenXq7",
}
REPLACED = ("storage:", "tracking:", "teacher:")
pytestmark = pytest.mark.services


@contextlib.contextmanager
def bucket() -> Iterator[tuple[str, object]]:
    """The address of an S3 server that takes any keys, and a client of its empty bucket."""
    boto3 = pytest.importorskip("boto3", reason="needs the Python package boto3")
    pytest.importorskip("moto", reason="needs the Python package moto[server]")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}"), process)
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
        client.create_bucket(Bucket="raypipe")
        yield f"127.0.0.1:{port}", client
    finally:
        end(process)


def spellings(secret: str) -> list[bytes]:
    """A secret as files may hold it: plain, in an address, in hexadecimal, in base 64."""
    plain = [secret.encode(), quote(secret, safe="").encode()]
    inner = [base64.b64encode(b"x" * shift + plain[0])[4:-4] for shift in range(3)]
    return [*plain, plain[0].hex().encode(), *inner]


def holders(contents: Iterator[tuple[str, bytes]]) -> list[str]:
    """Which content holds which secret."""
    found = []
    for name, content in contents:
        for what, secret in SECRETS.items():
            if any(spelling in content for spelling in spellings(secret)):
                found.append(f"{what} in {name}")
    return found


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()


def objects(client) -> Iterator[tuple[str, bytes]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="raypipe"):
        for item in page["Contents"]:
            body = client.get_object(Bucket="raypipe", Key=item["Key"])["Body"]
            yield f"s3://raypipe/{item['Key']}", body.read()


def test_a_planted_secret_is_nowhere(recipe, tmp_path):
    asked = []

    def play(handler: Handler, body, number) -> None:
        asked.append((handler.path, handler.headers["Authorization"]))
        handler.reply(200, completion("yes" if len(asked) % 2 else "no"))

    port, backend = free_port(), f"sqlite:///{tmp_path}/server/mlflow.db"
    (tmp_path / "server").mkdir()
    with (
        bucket() as (s3, client),
        mlflow_server(tmp_path / "server", port, backend),
        running(play) as llm,
        tempfile.TemporaryDirectory(prefix="rp", dir="/tmp") as ray_folder,  # sockets: short paths
    ):
        keys = f"{SECRETS['access key']}:{quote(SECRETS['storage'], safe='')}"
        options = f"endpoint_override={s3}&scheme=http&region=us-east-1"
        engine = f"{{type: http, url: '{llm.url}?code={SECRETS['engine']}', model: m}}"
        engine = engine.replace("model: m", "model: m, api_key_env: LLM_API_KEY")
        lines = [line for line in recipe.read_text().splitlines() if not line.startswith(REPLACED)]
        lines += [
            f"storage: s3://{keys}@raypipe/store?{options}",
            f"tracking: http://me:{SECRETS['tracking']}@127.0.0.1:{port}",
            f"teacher: {{type: pointwise_llm, engine: {engine}}}",
        ]
        recipe.write_text("\n".join(lines) + "\n")
        done = sweep(recipe, tmp_path, ray_folder)
        assert done.returncode == 0, (tmp_path / "log").read_text()[-4000:]
        assert {f"/v1/chat/completions?code={SECRETS['engine']}"} == {path for path, _ in asked}
        assert {f"Bearer {SECRETS['LLM_API_KEY']}"} == {key for _, key in asked}
        stored = dict(objects(client))
        assert any("/checkpoint/" in name and name.endswith("manifest.json") for name in stored)
        assert any(name.endswith("tuner.pkl") for name in stored)
        assert holders(iter(stored.items())) == []
        assert [*Path(ray_folder).rglob("raylet.out")] and holders(files(Path(ray_folder))) == []
    for place in ("home", "server"):
        assert any(files(tmp_path / place)) and holders(files(tmp_path / place)) == []
    assert holders(iter([("log", (tmp_path / "log").read_bytes())])) == []
    assert open_to_others(tmp_path / "home") == []


def sweep(recipe: Path, folder: Path, ray_folder: str) -> subprocess.CompletedProcess:
    own = {name: SECRETS[name] for name in ("LLM_API_KEY", "HF_TOKEN")}
    own |= {"RAYPIPE_HOME": str(folder / "home"), "RAY_TMPDIR": ray_folder}
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), str(recipe)]
    with (folder / "log").open("w") as log:  # Ray's agents outlive the job and would hold a pipe
        return subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **own}, umask=0o022
        )


def open_to_others(folder: Path) -> list[str]:
    """Files and folders that others than their owner have rights on."""
    places = [folder, *folder.rglob("*")]
    return [f"{path} {path.stat().st_mode:o}" for path in places if path.stat().st_mode & 0o077]
