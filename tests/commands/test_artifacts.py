"""What a user sees of a storage: a list, where an artifact comes from, whether all is whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from stores import leave_attempt, three

from raypipe.storage.artifacts import Store
from raypipe.storage.manifest import MANIFEST

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


@pytest.fixture
def artifacts(command, store):
    """Runs jobs/artifacts.py on the store."""
    return lambda *words: command("artifacts.py", *words, "--storage", store.uri)


def folder_of(artifact) -> Path:
    return Path(artifact.store.root) / artifact.step_path


def test_the_list_has_every_artifact_with_sums(store, artifacts):
    seven, total, eight = three(store)
    leave_attempt(folder_of(eight), "attempt-old", 2000)
    (folder_of(seven) / MANIFEST).write_text("{}")
    done = artifacts("list")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["kind", "artifact", "size", "rows", "written"]
    rows = {line.split()[1]: line.split() for line in lines[1:4]}
    written = [each.manifest["written"] for each in (total, eight)]
    name = Path(eight.step_path).name
    assert rows[name] == ["numbers", name, "1", "B", "1", written[1]]
    name = Path(total.step_path).name
    assert rows[name] == ["sums", name, "1", "B", "1", written[0]]
    assert rows[Path(seven.step_path).name][2:] == ["?", "unreadable", "manifest"]
    assert lines[5:] == [
        "numbers: 1, 1 B",
        "sums: 1, 1 B",
        f"total: 2 artifacts, 2 B in {store.uri}",
        "beside them: 1 attempt, 2.0 kB; see prune",
        "1 manifest cannot be read; see verify",
    ]


def test_an_artifact_shows_where_it_comes_from(store, artifacts):
    seven, total, _ = three(store)
    done = artifacts("show", total.digest)
    lines = done.stdout.splitlines()
    machine = re.escape(total.manifest["machine"])
    assert lines[0] == total.uri and lines[2] == "  1 file, 1 B"
    assert re.fullmatch(rf"  made by Sum, in \d\.\d+ s on {machine}, written 20\S+Z", lines[1])
    assert "    rows: 1" in lines and any(line.startswith("    pyarrow: ") for line in lines)
    assert lines[-2] == "  made from:"
    assert re.fullmatch(rf"    part0: {seven.step_path}  \(in .* on {machine}, .*Z\)", lines[-1])
    (folder_of(seven) / MANIFEST).unlink()
    assert artifacts("show", total.uri).stdout.endswith("(not there any more)\n")
    assert "not finished: 1 attempt, " in artifacts("show", seven.step_path).stdout


def test_an_input_that_was_made_again_is_told(store, artifacts):
    seven, total, _ = three(store)
    manifest = folder_of(seven) / MANIFEST
    manifest.write_text(manifest.read_text().replace('"rows": 1', '"rows": 2'))
    assert "; made again since)" in artifacts("show", total.step_path).stdout


def test_whole_artifacts_verify(store, artifacts):
    three(store)
    done = artifacts("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "3 artifacts whole, 3 files, 3 B; 0 damaged\n"


def test_damage_is_named_with_a_remedy(store, artifacts):
    seven, total, eight = three(store)
    leave_attempt(Path(store.root) / "sums" / "sum-0123456789abcdef", "attempt-a")  # no damage
    (folder_of(seven) / MANIFEST).write_bytes(b"")
    (folder_of(total) / total.manifest["attempt"] / "value.txt").write_text("8")
    done = artifacts("verify")
    assert (done.returncode, done.stderr) == (1, "")
    unreadable, changed, sums, remedy = done.stdout.splitlines()
    assert unreadable == (
        f"damaged: {seven.step_path}: its manifest cannot be read: expected JSON, found 0 bytes "
        "that are none"
    )
    assert changed.startswith(f"damaged: {total.step_path}: value.txt: expected the sha256 790")
    assert sums == "1 artifact whole, 1 file, 1 B; 2 damaged"
    assert remedy.startswith("remedy: remove the folder of each, then run the recipe again")
    assert remedy.endswith(f"{folder_of(seven)}, {folder_of(total)}")
    assert artifacts("verify", eight.digest).returncode == 0
    assert artifacts("verify", eight.digest, total.digest).returncode == 1
    assert artifacts("verify", "sum-0123456789abcdef").returncode == 1  # is not there, but wanted


def test_the_remedy_works(store, artifacts):
    _, total, _ = three(store)
    (folder_of(total) / total.manifest["attempt"] / "value.txt").write_text("8")
    remedy = artifacts("verify").stdout.splitlines()[-1]
    subprocess.run(["rm", "-r", remedy.rpartition(": ")[2]], check=True)
    three(store)
    assert artifacts("verify").returncode == 0


@pytest.mark.parametrize("words", [("list",), ("show", "x"), ("verify",), ("prune",)])
def test_a_storage_that_is_not_there_is_one_line(artifacts, words):
    done = artifacts(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: storage /") and len(done.stderr.splitlines()) == 1


def test_the_default_storage_is_that_of_the_jobs(command, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    three(Store(str(tmp_path / "storage")))
    assert f"3 artifacts, 3 B in {tmp_path}/storage" in command("artifacts.py", "list").stdout


def test_a_password_in_the_address_is_not_shown(command):
    done = command("artifacts.py", "list", "--storage", "s3://me:hunter2@no-such-bucket.invalid/x")
    assert done.returncode == 2 and "hunter2" not in done.stdout + done.stderr


def test_a_user_starts_it(tmp_path):
    words = [sys.executable, str(ROOT / "jobs" / "artifacts.py")]
    done = subprocess.run([*words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("list", "show", "verify", "prune"))
    code = "import sys, runpy; sys.argv = ['x', 'prune', '--help']\n"
    code += f"try: runpy.run_path({words[1]!r}, run_name='__main__')\n"
    code += "except SystemExit: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = done.stdout.splitlines()[-1].split()
    assert "typer" in modules and not {"pyarrow", "ray", "torch"} & set(modules)
