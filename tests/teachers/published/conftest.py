from __future__ import annotations

from typing import Any

import pytest
from six_documents import said, six_lists

from raypipe.inference.lists import Lists
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder


@pytest.fixture(scope="module")
def lists(tmp_path_factory) -> Lists:
    return six_lists(tmp_path_factory.mktemp("root") / "six")


@pytest.fixture(scope="module")
def builder(tmp_path_factory) -> Builder:
    return Builder(Store(str(tmp_path_factory.mktemp("storage"))))


@pytest.fixture
def make(builder, lists, tmp_path):
    """Writes a file and lets the teacher read it; (values by query and document, counts)."""

    def build(cls: type[Any], text: str | bytes, name: str = "file.tsv", **fields: Any):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        artifact = builder.get(cls(paths=(str(path),), **fields).scores(lists, "fp32"))
        return said(artifact), artifact.counts

    return build
