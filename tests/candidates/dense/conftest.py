from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vector_parts import Array, clustered, write_vectors


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[Path, Array, Array]:
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("vectors")
    docs = clustered(rng, 2000)
    write_vectors(folder, docs, [900, 1100])
    return folder, docs, clustered(rng, 50)
