"""Storage on S3 (moto): a whole sweep, and the same again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from servers import answers, end, free_port, until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def s3() -> dict[str, str]:
    """Environment variables of a server with an empty bucket."""
    boto3 = pytest.importorskip("boto3", reason="needs the Python package boto3")
    pytest.importorskip("moto", reason="needs the Python package moto[server]")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    where = {"AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}
    try:
        until(lambda: answers(address), process)
        client = boto3.client(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket="raypipe")
        yield {**keys, **where, "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        end(process)


def sweep(recipe: Path, out: Path, s3: dict[str, str]) -> str:
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), str(recipe)]
    with out.open("w") as log:  # Ray's agents outlive the job and would hold a pipe
        done = subprocess.run(
            [*command, "storage=s3://raypipe/store"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **s3, "RAYPIPE_HOME": str(out.parent / "home")},
        )
    text = out.read_text()
    assert done.returncode == 0, text[-4000:]
    return text


def test_a_sweep_on_s3(s3, recipe, tmp_path):
    first = sweep(recipe, tmp_path / "first", s3)
    assert "(0 already trained)" in first
    again = sweep(recipe, tmp_path / "again", s3)
    assert "(2 already trained)" in again and "nothing to train" in again
    row = re.compile(r"^[a-z]  .*contrastive.*$", re.MULTILINE)

    def figures(text: str) -> list[str]:
        return [re.sub(r"\(reused\)| +", "", line) for line in row.findall(text)]

    assert figures(first) and [f[:20] for f in figures(first)] == [f[:20] for f in figures(again)]
