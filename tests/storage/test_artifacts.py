"""The store: nothing is there before its manifest, and what is there is what was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import bucket_store
from number_steps import Number, Sum, read

from raypipe.config import ConfigError
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import home
from raypipe.storage.manifest import MANIFEST


class Broken(Number):
    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        super().run(attempt, context)
        raise RuntimeError("half way")


def entries(store: Store, step: Step) -> list[str]:
    folder = Path(store.root) / step.path
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


# --- writing -------------------------------------------------------------------------------------


def test_a_reader_sees_nothing_before_the_manifest(store):
    step = Number(7)
    with store.attempt(step, {}) as attempt:
        assert store.find(step) is None
        counts = step.run(attempt, None)
        assert store.find(step) is None
        assert entries(store, step) == [attempt.name]
        made = attempt.commit(counts)
    assert entries(store, step) == [attempt.name, MANIFEST]
    found = store.find(step)
    assert found == made and read(found.local()) == 7
    assert found.uri == f"{store.uri}/{step.path}"


def test_the_manifest_says_what_was_written(store):
    step = Number(7)
    found = Builder(store).get(step)
    manifest = json.loads((Path(store.root) / step.path / MANIFEST).read_text())
    assert found.manifest == manifest
    assert manifest["digest"] == found.digest == step.digest
    assert manifest["spec"] == {"value": 7} and manifest["counts"] == found.counts == {"rows": 1}
    sha = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"  # printf 7 | sha256sum
    assert manifest["files"] == {"value.txt": {"size": 1, "sha256": sha}}
    assert found.files == ["value.txt"] and manifest["inputs"] == {}
    assert manifest["versions"]["pyarrow"] == pa.__version__


class Told(Number):
    def facts(self):
        return {"paths": ["/data/seven.txt"]}


def test_the_manifest_says_what_the_digest_does_not_depend_on(store):
    context = Context(Resources(workers=3, actors=2, micro_batch_tokens=512), "fp32")
    found = Builder(store, context).get(Told(7))
    assert found.manifest["facts"] == {"paths": ["/data/seven.txt"]}
    used = found.manifest["used"]
    assert (used["workers"], used["actors"], used["micro_batch_tokens"]) == (3, 2, 512)
    assert used["precision"] == "fp32" and found.manifest["storage"] == store.uri
    assert Builder(store, Context(Resources())).get(Told(7)) == found


def test_an_error_leaves_no_artifact_and_no_attempt(store):
    step = Broken(7)
    with pytest.raises(RuntimeError, match="half way"):
        Builder(store).get(step)
    assert entries(store, step) == [] and store.find(step) is None
    builder = Builder(store)
    with pytest.raises(RuntimeError, match="half way"):
        builder.get(Sum((Number(1), step)))
    assert store.find(Number(1)) is not None  # what was finished before stays
    assert builder.made == {Number(1).digest}


def test_an_interrupt_leaves_no_attempt(store):
    step = Number(7)
    with pytest.raises(KeyboardInterrupt), store.attempt(step, {}) as attempt:
        step.run(attempt, None)
        raise KeyboardInterrupt
    assert entries(store, step) == []


def test_the_second_writer_discards_its_own(store):
    step = Number(7)
    with store.attempt(step, {}) as first, store.attempt(step, {}) as second:
        assert first.name != second.name
        for attempt in (first, second):
            step.run(attempt, None)
        won = first.commit({"writer": 1})
        lost = second.commit({"writer": 2})
    assert lost == won and lost.counts == {"writer": 1}
    assert entries(store, step) == [first.name, MANIFEST]


def test_a_table_is_its_parts_in_order(store):
    with store.attempt(Number(7), {}) as attempt:
        for number in (1, 0, 100_000, 10, 99_999, 10_001):
            with attempt.open(f"part-{number:05d}.parquet") as sink:
                pq.write_table(pa.table({"n": [number]}), sink)
        with attempt.open("notes.txt") as sink:
            sink.write(b"no part")
        made = attempt.commit({})
    assert made.table()["n"].to_pylist() == [0, 1, 10, 10_001, 99_999, 100_000]


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["longer", "gone"])
def test_a_damaged_file_is_made_again_with_a_warning(store, damage):
    step = Number(7)
    path = Builder(store).get(step).local() / "value.txt"
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("77")
    with pytest.warns(UserWarning, match=r"value\.txt is damaged: made again"):
        assert store.find(step) is None
    builder = Builder(store)
    with pytest.warns(UserWarning, match="made again"):
        again = builder.get(step)
    assert builder.made == {step.digest}
    assert again.local() != path.parent and read(again.local()) == 7
    assert read(store.find(step).local()) == 7


def test_a_deleted_attempt_is_made_again(store):
    step = Number(7)
    shutil.rmtree(Builder(store).get(step).local())
    with pytest.warns(UserWarning, match="made again"):
        assert read(Builder(store).get(step).local()) == 7


# --- digests -------------------------------------------------------------------------------------


def test_a_digest_covers_spec_class_version_and_inputs_but_no_name(monkeypatch):
    one = Number(1)
    assert Number(1, "other name").digest == one.digest
    assert Number(1, "other name").path != one.path
    different = {one.digest, Number(2).digest, Broken(1).digest}
    monkeypatch.setattr(Number, "version", 2)
    different.add(Number(1).digest)
    assert len(different) == 4


def test_a_digest_covers_the_digests_of_inputs():
    one, two = Number(1), Number(2)
    assert Sum((one, two)).digest != Sum((two, one)).digest  # by the name of the input
    assert Sum((one, two)).digest != Sum((one,)).digest
    assert Sum((one,)).digest == Sum((Number(1, "renamed"),)).digest
    assert Sum((Sum((one,)),)).digest != Sum((Sum((two,)),)).digest
    assert Sum((one,), hint=two).digest == Sum((one,)).digest  # needs are covered by spec


def test_a_digest_does_not_change_between_versions_of_this_code():
    # printf '["numbers","Number",1,{"value":1},{}]' | sha256sum
    assert Number(1).path == "numbers/number-28ac458a99cd3063"


# --- remote storage ------------------------------------------------------------------------------


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Store:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    return bucket_store(monkeypatch, tmp_path / "remote" / "bucket")


def test_a_cache_limit_that_is_no_number_is_refused_before_work(remote, monkeypatch):
    monkeypatch.setenv("RAYPIPE_CACHE_GB", "many")
    with pytest.raises(ConfigError, match="RAYPIPE_CACHE_GB: expected a positive number of GB"):
        remote.check_writable()
    monkeypatch.delenv("RAYPIPE_CACHE_GB")
    remote.check_writable()


def test_remote_files_are_copied_once(remote, tmp_path):
    assert not remote.is_local
    made = Builder(remote).get(Number(7))
    folder = made.local()
    assert folder.is_relative_to(tmp_path / "home" / "cache") and read(folder) == 7
    shutil.rmtree(tmp_path / "remote")
    assert made.local() == folder and read(folder) == 7  # no second copy


def test_remote_manifests_and_damage(remote, tmp_path):
    step = Number(7)
    with remote.attempt(step, {}) as attempt:
        step.run(attempt, None)
        assert remote.find(step) is None
        attempt.commit({})
    folder = tmp_path / "remote" / "bucket" / step.path
    assert sorted(path.name for path in folder.iterdir()) == [attempt.name, MANIFEST]
    (folder / attempt.name / "value.txt").write_text("77")
    with pytest.warns(UserWarning, match="damaged"):
        assert remote.find(step) is None


def test_a_copy_with_another_checksum_is_refused(remote, tmp_path):
    step = Number(7)
    made = Builder(remote).get(step)
    stored = tmp_path / "remote" / "bucket" / step.path / made.manifest["attempt"] / "value.txt"
    stored.write_text("8")  # of the same size: only the checksum tells
    with pytest.raises(OSError, match=r"value\.txt does not have its committed checksum"):
        made.local()
    stored.write_text("7")
    assert read(made.local()) == 7  # the refused copy was not kept


def test_too_little_disk_is_an_error_before_the_copy(remote, monkeypatch):
    made = Builder(remote).get(Number(77))
    usage = shutil.disk_usage("/")._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=rf"{made.uri}: expected room for .* free on the disk"):
        made.local()
    assert not list(home().rglob("value.txt"))


def test_a_table_that_was_read_keeps_no_copy(remote, monkeypatch):
    step = Number(7)
    with remote.attempt(step, {}) as attempt:
        attempt.put_table(pa.table({"x": [7]}))
        made = attempt.commit({})
    size = sum(meta["size"] for meta in made.manifest["files"].values())
    monkeypatch.setenv("RAYPIPE_CACHE_GB", f"{size / 1e9:.9f}")
    assert made.table().to_pylist() == [{"x": 7}]
    other = Builder(remote).get(Number(8))
    assert read(other.local()) == 8
    assert [path.parent for path in home().rglob("value.txt")] == [other.local()]
    assert not list(home().rglob("*.parquet"))
    with pytest.raises(OSError, match="in use: number-"):  # what is localized stays
        made.local()


def test_remote_inputs_feed_downstream_steps(remote):
    assert read(Builder(remote).get(Sum((Number(3), Number(4)))).local()) == 7


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["a/../../../..", "..", "/abs", "a\x00\nb", "x" * 300, "\ud800"])
def test_no_name_leads_out_of_the_storage(store, tmp_path, label):
    step = Number(7, label)
    artifact = Builder(store).get(step)
    assert store.find(step) == artifact and read(artifact.local()) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["storage"]
    assert [path.name for path in Path(store.root).iterdir()] == ["numbers"]


@pytest.mark.parametrize("label", ["first pass", "kd/listnet", "日本語", "a.b", "$x{"])
def test_the_artifacts_of_earlier_versions_are_found(label):
    step = Number(7, label)
    assert step.path == f"numbers/{label}-{step.digest}"
