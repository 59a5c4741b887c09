"""Storage on S3 (moto): a whole sweep, and the same again; what stands there, listed and pruned."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from number_steps import Number
from pyarrow.fs import FileSelector, FileType
from racers import race
from servers import answers, end, free_port, until
from stores import three

from raypipe.commands import needs, prune
from raypipe.storage.artifacts import Store
from raypipe.storage.inventory import TUNE, TUNE_OVER, inventory
from raypipe.storage.manifest import MANIFEST

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


def by_parameters(s3: dict[str, str], path: str = "store") -> str:
    """An address that says where the server is, as pyarrow's do."""
    host = s3["AWS_ENDPOINT_URL"].removeprefix("http://")
    return f"s3://raypipe/{path}?endpoint_override={host}&scheme=http&region=us-east-1"


def without_endpoint(s3: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in s3.items() if name != "AWS_ENDPOINT_URL"}


def sweep(recipe: Path, out: Path, s3: dict[str, str]) -> str:
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), str(recipe)]
    with out.open("w") as log:  # Ray's agents outlive the job and would hold a pipe
        done = subprocess.run(
            [*command, f"storage={by_parameters(s3)}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **without_endpoint(s3), "RAYPIPE_HOME": str(out.parent / "home")},
        )
    text = out.read_text()
    assert done.returncode == 0, text[-4000:]
    return text


def test_a_sweep_on_s3(s3, recipe, tmp_path):
    first = sweep(recipe, tmp_path / "first", s3)
    assert "already trained" not in first
    again = sweep(recipe, tmp_path / "again", s3)
    assert "(2 already trained)" in again and "nothing to train" in again
    row = re.compile(r"^[a-z]  .*contrastive.*$", re.MULTILINE)

    def figures(text: str) -> list[str]:
        return [re.sub(r"\(reused\)| +", "", line) for line in row.findall(text)]

    assert figures(first) and [f[:20] for f in figures(first)] == [f[:20] for f in figures(again)]


def test_a_bucket_is_listed_verified_and_pruned(s3, command, monkeypatch, tmp_path):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    store = Store("s3://raypipe/pruned")
    seven, total, eight = three(store)
    base = f"{store.root}/{eight.step_path}/attempt-left"
    tune = f"{store.root}/{TUNE}/job-1234"
    for path in (f"{base}/part-00000.parquet", f"{tune}/trial/result.json", f"{tune}/{TUNE_OVER}"):
        with store.fs.open_output_stream(path) as out:
            out.write(b"left over")
    for name in (".writer", ".ended"):
        with store.fs.open_output_stream(f"{base}/{name}"):
            pass
    words = ("--storage", store.uri)
    listed = command("artifacts.py", "list", *words).stdout
    assert f"total: 3 artifacts, 3 B in {store.uri}" in listed
    assert "beside them: 1 attempt, 9 B; see prune" in listed
    assert command("artifacts.py", "verify", *words).stdout.startswith("3 artifacts whole")
    monkeypatch.setattr(prune, "QUIET_S", -60.0)
    monkeypatch.setattr(needs, "needs_of", lambda *_: {total.step_path})
    done = command("artifacts.py", "prune", *words, "--keep", "a.yaml")
    assert done.stdout.endswith("the same command with --yes frees 28 B\n")
    done = command("artifacts.py", "prune", *words, "--keep", "a.yaml", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(inventory(store).artifacts) == {seven.step_path, total.step_path}
    left = store.fs.get_file_info(FileSelector(store.root, recursive=True))
    files = [i.path for i in left if i.type == FileType.File and not i.base_name.startswith(".")]
    assert len(files) == 4 and not [path for path in files if eight.step_path in path]
    with store.fs.open_output_stream(f"{store.root}/{seven.step_path}/{MANIFEST}") as out:
        out.write(b"")
    assert command("artifacts.py", "verify", *words).returncode == 1


@pytest.mark.parametrize("writers", [2, 8])
def test_of_several_writers_in_a_bucket_one_wins(s3, monkeypatch, tmp_path, writers):
    for name, value in without_endpoint(s3).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    uri = by_parameters(s3, f"race-{writers}")
    Store(uri).check_writable()
    rounds = int(os.environ.get("RAYPIPE_S3_ROUNDS", "10"))
    assert race(uri, rounds, writers, 0.0, False) == []
    store = Store(uri)
    for value in range(rounds):  # now all are repaired at once
        artifact = store.find(Number(value))
        store.fs.delete_file(
            f"{store.root}/{artifact.step_path}/{artifact.manifest['attempt']}/value.txt"
        )
    assert race(uri, rounds, writers, 0.0, False) == []
