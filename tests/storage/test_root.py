"""The storage root: a directory or a URI, and whether it can be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from number_steps import Number

from raypipe.config import ConfigError
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


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
