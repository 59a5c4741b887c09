"""The storage root: a directory or a URI, and whether it can be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from number_steps import Number

from raypipe.config import ConfigError
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.storage.conditional import DiskFiles


def test_a_store_is_a_directory_or_a_uri(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Store("below").root == str(tmp_path / "below") and Store("below").is_local
    by_uri = Store(f"file://{tmp_path}/below/")
    assert by_uri.root == str(tmp_path / "below") and by_uri.is_local
    made = Builder(Store("below")).get(Number(3))
    assert by_uri.find(Number(3)).manifest == made.manifest


def test_storage_below_a_file_is_an_error_that_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("x")
    store = Store(str(tmp_path / "file" / "storage"))
    with pytest.raises(
        ConfigError, match=r"storage .*/file/storage cannot be written .*set storage="
    ):
        store.check_writable()
    assert store.find(Number(1)) is None


def test_a_writable_storage_is_left_empty(tmp_path):
    store = Store(str(tmp_path / "storage"))
    store.check_writable()
    assert list(Path(store.root).iterdir()) == []


def test_a_storage_where_two_writers_create_one_file_is_refused(tmp_path, monkeypatch):
    def overwrites(self, path, data):
        (self.root / path).write_bytes(data)
        return True

    monkeypatch.setattr(DiskFiles, "create", overwrites)
    with pytest.raises(ConfigError, match=r"created only if it is absent.*a second writer.*set"):
        Store(str(tmp_path)).check_writable()


@pytest.mark.parametrize(
    ("uri", "below"),
    [
        ("/data/store", "/data/store/.tune"),
        ("odd?name", "odd?name/.tune"),
        ("s3://bucket/a/", "s3://bucket/a/.tune"),
        (
            "s3://bucket?region=us-east-1&scheme=http",
            "s3://bucket/.tune?region=us-east-1&scheme=http",
        ),
    ],
)
def test_a_path_below_keeps_the_parameters(uri, below):
    assert Store(uri).below(".tune") == below
