"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_training import write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory, beir_folder, tiny_backbone) -> Path:
    """Token stores and groups of the small collection."""
    return write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)
