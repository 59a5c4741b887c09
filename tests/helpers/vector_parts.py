"""Vectors in the parts that the encoding job writes, and exact search in numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.candidates.dense.faiss_index import FaissSearch, _build_index
from raypipe.inference.embeddings import Vectors
from raypipe.tables.ids import SortedIds, sorted_order

Array = np.ndarray[Any, Any]


@dataclass
class Folder:
    """Stands in for an artifact, and for the attempt that an index is written to."""

    path: Path
    inputs: dict[str, Folder] = field(default_factory=dict)

    def local(self) -> Path:
        return self.path

    def put_directory(self, folder: Path) -> None:
        self.path.mkdir(exist_ok=True)
        for source in folder.iterdir():
            (self.path / source.name).write_bytes(source.read_bytes())


def write_vectors(folder: Path, matrix: Array, sizes: list[int] | None = None) -> Vectors:
    """The parts that the encoding job would have written."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    ends = np.cumsum(sizes or [len(matrix)])[:-1]
    for number, part in enumerate(np.split(matrix.astype(np.float32), ends)):
        column = pa.FixedSizeListArray.from_arrays(part.reshape(-1), part.shape[1])
        table = pa.table({"vector": column})
        with pa.ipc.new_file(str(folder / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return Vectors(folder)


def oracle(docs: Array, queries: Array, order: Array, depth: int) -> list[tuple[list, list]]:
    """All scores of all documents, sorted by (-score, id)."""
    scores = (queries.astype(np.float64) @ docs.astype(np.float64).T).astype(np.float32)
    best = [np.lexsort((order, -row))[:depth] for row in scores]
    return [(b.tolist(), row[b].tolist()) for b, row in zip(best, scores, strict=True)]


def lists(found) -> list[tuple[list, list]]:
    return [(rows.tolist(), scores.tolist()) for rows, scores in found]


def ids(count: int, seed: int = 0) -> pa.Array:
    """Ids whose order is not that of the rows."""
    numbers = np.random.default_rng(seed).permutation(count)
    return pa.array([f"d{n:05d}" for n in numbers])


def ids_order(names: pa.Array) -> np.ndarray:
    return SortedIds(sorted_order(names)).places()


def clustered(rng: np.random.Generator, count: int, width: int = 32) -> Array:
    """Unit vectors around 40 centres, as texts of topics are."""
    centres = np.random.default_rng(99).standard_normal((40, width))
    points = centres[rng.integers(0, 40, count)] + 0.6 * rng.standard_normal((count, width))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def index_of(folder: Path, corpus, config) -> FaissSearch:
    pytest.importorskip("faiss")
    counts = _build_index(Folder(folder, {"doc_vectors": Folder(corpus[0])}), config)
    assert counts == {"docs": 2000}
    return FaissSearch(folder, config, Vectors(corpus[0]), ids_order(ids(2000)))
