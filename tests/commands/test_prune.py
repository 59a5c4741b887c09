"""Pruning removes what nobody refers to, says what, and nothing without --yes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from buckets import store_on
from number_steps import Number, Sum, read
from stores import aged, leave_attempt, three

from raypipe.commands import needs
from raypipe.commands.prune import (
    ARTIFACTS,
    ATTEMPTS,
    COPIES,
    TUNE_FOLDERS,
    Garbage,
    LeftOvers,
    left_overs,
    run,
)
from raypipe.config import ConfigError
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.cache import LIMIT, localized
from raypipe.storage.copies import RemoteFolder
from raypipe.storage.inventory import ANSWERS, TUNE, TUNE_OVER
from raypipe.storage.manifest import MANIFEST


@pytest.fixture(params=["disk", "bucket"])
def store(tmp_path, monkeypatch, request) -> Store:
    """On disk, or on a file system that is not this machine's; files lie in tmp_path / storage."""
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    return store_on(request.param, monkeypatch, tmp_path / "storage")


@pytest.fixture
def folder(store, tmp_path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def recipes(monkeypatch) -> dict[str, set[str]]:
    """Paths that recipes need, by name, to be filled by the test."""
    paths: dict[str, set[str]] = {}
    monkeypatch.setattr(needs, "needs_of", lambda word, store, tracking: paths[word])
    return paths


def going(store: Store, keep=()) -> dict[str, list[str]]:
    """Paths by class, of the classes from which something goes."""
    garbage = left_overs(store, keep).garbage
    return {title: [each.path for each in entries] for title, entries in garbage.items() if entries}


def prune(store: Store, keep=(), yes: bool = True) -> list[str]:
    """Prune; returns what was said."""
    said: list[str] = []
    assert run(store, keep, None, yes, said.append)
    return said


def files(folder: Path) -> set[str]:
    """All files but those that a writer leaves beside its own."""
    notes = (".writer", ".ended", ".inputs.json")
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in notes]
    return {str(path.relative_to(folder)) for path in paths}


# --- attempts ------------------------------------------------------------------------------------


def test_an_attempt_that_nobody_refers_to_goes(store, folder):
    *_, eight = three(store)
    kept = files(folder)
    leave_attempt(folder / eight.step_path, "attempt-a", 10)
    leave_attempt(folder / eight.step_path, "attempt-b", 20)
    leave_attempt(folder / "sums" / "sum-0123456789abcdef", "attempt-c", 3000)
    aged(folder, 3)  # the committed attempts are as old
    said = prune(store, yes=False)
    assert said[1:4] == [
        f"{ATTEMPTS}: 2, 3.0 kB",
        f"       30 B  {eight.step_path}  (2 attempts)",
        "     3.0 kB  sums/sum-0123456789abcdef  (1 attempt, unfinished: without them the work "
        "begins anew)",
    ]
    assert said[-1] == "nothing was removed; the same command with --yes frees 3.0 kB"
    assert len(files(folder)) == len(kept) + 3
    said = prune(store)
    assert f"freed: {ATTEMPTS}: 2, 3.0 kB" in said
    assert files(folder) == kept
    assert (folder / "sums" / "sum-0123456789abcdef").exists() == (not store.is_local)
    assert going(store) == {}


def test_an_attempt_that_somebody_may_be_writing_stays(store, folder):
    three(store)
    with store.attempt(Number(9), {}) as attempt:
        with attempt.open("value.txt") as out:
            out.write(b"9")
        assert going(store) == {}
        prune(store)
        assert read(folder / Number(9).path / attempt.name) == 9
        attempt.commit({})
    assert store.find(Number(9)) is not None


def test_an_attempt_that_was_written_to_since_it_was_shown_stays(store, folder):
    attempt = leave_attempt(folder / "sums" / "sum-0123456789abcdef", "attempt-a")
    left_over, said = left_overs(store), []
    os.utime(attempt / "part-00000.parquet")
    assert left_over.run(said.append)
    assert "sums/sum-0123456789abcdef stays: somebody uses it by now" in said
    assert f"freed: {ATTEMPTS}: 0, 0 B" in said
    assert (attempt / "part-00000.parquet").exists()


def test_attempts_beside_a_manifest_that_cannot_be_read_stay(store, folder):
    seven, *_ = three(store)
    (folder / seven.step_path / MANIFEST).write_text("")
    aged(folder, 3)
    assert going(store) == {}
    (note,) = [note for note in left_overs(store).notes if seven.step_path in note]
    assert "its manifest cannot be read (expected JSON, found 0 bytes" in note


def test_unfinished_work_of_a_kept_recipe_stays(store, folder, recipes):
    _, total, _ = three(store)
    leave_attempt(folder / "sums" / "sum-0123456789abcdef", "attempt-c")
    leave_attempt(folder / total.step_path, "attempt-d")  # total stands: of no use any more
    recipes["mine"] = {"sums/sum-0123456789abcdef", total.step_path}
    assert going(store, ["mine"])[ATTEMPTS] == [total.step_path]


# --- Ray Tune's folders ---------------------------------------------------------------------------


def test_folders_of_jobs_that_ended_go(store, folder):
    three(store)
    kept = files(folder)
    for name, over, days in (("ended", True, 0), ("killed", False, 2), ("running", False, 0)):
        (folder / TUNE / name / "trial").mkdir(parents=True)
        (folder / TUNE / name / "trial" / "result.json").write_text(name)
        if over:
            (folder / TUNE / name / TUNE_OVER).touch()
        aged(folder / TUNE / name, days)
    assert going(store) == {TUNE_FOLDERS: [f"{TUNE}/ended", f"{TUNE}/killed"]}
    assert f"freed: {TUNE_FOLDERS}: 2, 11 B" in prune(store)
    assert files(folder) == kept | {f"{TUNE}/running/trial/result.json"}


# --- copies --------------------------------------------------------------------------------------


def test_copies_above_the_limit_go(store, tmp_path, monkeypatch):
    three(store)
    fs = pafs.SubTreeFileSystem(str(tmp_path / "remote"), pafs.LocalFileSystem())
    for name in ("a", "b"):
        path, content = f"kind/{name}-0123/attempt-{name}", name.encode() * 1000
        (tmp_path / "remote" / path).mkdir(parents=True)
        (tmp_path / "remote" / path / "data").write_bytes(content)
        meta = {"data": {"size": 1000, "sha256": hashlib.sha256(content).hexdigest()}}
        with localized(RemoteFolder(fs, path, path, meta, path)) as copy:
            assert copy.is_dir()
    assert going(store) == {}
    monkeypatch.setenv(LIMIT, "0.0000015")
    first = tmp_path / "home" / "cache" / "kind" / "a-0123" / "attempt-a"
    assert going(store) == {COPIES: [str(first)]}
    assert f"freed: {COPIES}: 1, 1.0 kB" in prune(store)
    assert not first.exists() and going(store) == {}


# --- artifacts -----------------------------------------------------------------------------------


def test_without_kept_recipes_all_artifacts_stay(store, folder):
    three(store)
    before = files(folder)
    assert any("artifacts stay, 3 of 3 B: name the recipes" in line for line in prune(store))
    assert files(folder) == before


def test_what_no_kept_recipe_needs_goes(store, folder, recipes):
    seven, total, eight = three(store)
    nine = Builder(store).get(Number(9, "nine"))
    recipes |= {"mine": {total.step_path, "sums/never-made"}, "other": {nine.step_path}}
    assert going(store, ["mine", "other"]) == {ARTIFACTS: [eight.step_path]}
    assert going(store, ["mine"]) == {ARTIFACTS: [eight.step_path, nine.step_path]}
    said = prune(store, ["mine"], yes=False)
    assert f"{ARTIFACTS}: 2, 2 B" in said and store.find(Number(9, "nine")) is not None
    assert f"freed: {ARTIFACTS}: 2, 2 B" in prune(store, ["mine"])
    assert store.find(Number(9, "nine")) is None and store.find(Number(8, "eight")) is None
    assert files(folder) == {
        f"{each.step_path}/{name}"
        for each in (seven, total)
        for name in (MANIFEST, f"{each.manifest['attempt']}/value.txt")
    }
    if store.is_local:
        assert not (folder / eight.step_path).exists()


def test_what_an_attempt_reads_that_is_being_written_stays(store, folder, recipes):
    seven, _, eight = three(store)
    recipes["mine"] = {seven.step_path}
    step = Sum((Number(8, "eight"),), hint=Number(7, "seven"))
    with store.attempt(step, {"part0": eight}) as attempt:
        attempt.resume(lambda name, stream: False)
        left_over = left_overs(store, ["mine"])
        assert [each.path for each in left_over.garbage[ARTIFACTS]] == [Sum((Number(7),)).path]
        assert any("1 attempts may be written now" in note for note in left_over.notes)


def test_an_artifact_that_was_made_again_since_it_was_shown_stays(store, folder, recipes):
    seven, _, eight = three(store)
    recipes["mine"] = {seven.step_path}
    left_over, said = left_overs(store, ["mine"]), []
    (folder / eight.step_path / MANIFEST).unlink()
    again = Builder(store).get(Number(8, "eight"))
    assert left_over.run(said.append)
    assert f"{eight.step_path} stays: somebody uses it by now" in said
    assert store.find(Number(8, "eight")) == again


def test_a_recipe_of_which_nothing_stands_keeps_all(store, folder, recipes):
    three(store)
    recipes["mine"] = {"sums/never-made"}
    with pytest.raises(ConfigError, match="--keep mine: expected artifacts of this recipe in"):
        left_overs(store, ["mine"])


def test_what_cannot_be_removed_is_said_and_the_rest_goes(store):
    def refuses() -> bool:
        raise PermissionError("not yours: s3://me:hunter2@bucket")

    entries, said = [Garbage("a", 10, refuses), Garbage("b", 20, lambda: True)], []
    assert not LeftOvers(store, {ATTEMPTS: entries}).run(said.append)
    assert said == [
        "a could not be removed: not yours: s3://***@bucket",
        f"freed: {ATTEMPTS}: 1, 20 B",
    ]


# --- the command ---------------------------------------------------------------------------------


def test_recipes_are_named_behind_keep(command, tmp_path, recipes):
    store = Store(str(tmp_path / "storage"))
    _, total, eight = three(store)
    recipes |= {"a.yaml": {total.step_path}, "b.yaml": {eight.step_path}}
    words = ("artifacts.py", "prune", "--storage", store.uri)
    done = command(*words, "a.yaml", "--yes")
    assert done.returncode == 2 and "name recipes to keep behind --keep" in done.stderr
    done = command(*words, "--keep", "a.yaml", "b.yaml", "--yes")
    assert done.returncode == 0 and store.find(Number(8, "eight")) is not None
    done = command(*words, "--keep", "b.yaml", "--keep", "a.yaml", "--yes")
    assert done.returncode == 0 and store.find(Number(8, "eight")) is not None
    done = command(*words, "--keep", "a.yaml", "--yes")
    assert done.returncode == 0 and store.find(Number(8, "eight")) is None
    assert store.find(Number(7, "seven")) is not None  # what total was made from


def test_answers_of_language_models_stay_and_are_named(store):
    assert not any("answers" in note for note in left_overs(store).notes)
    store.make_folder(f"{store.root}/{ANSWERS}/engine")
    with store.fs.open_output_stream(f"{store.root}/{ANSWERS}/engine/a.parquet") as sink:
        sink.write(b"x" * 2000)
    found = left_overs(store)
    assert any(note.startswith("answers of language models stay, 2.0 kB") for note in found.notes)
    assert not any(ANSWERS in entry.path for part in found.garbage.values() for entry in part)
