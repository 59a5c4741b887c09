"""Exact dense search beside faiss: queries per second over the same random vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from benchmarks.rows import Measured

from raypipe.candidates.dense.exact import ExactSearch
from raypipe.inference.embeddings import Vectors
from raypipe.storage.parts import part_name

DOCS, QUERIES, WIDTH, DEPTH = 100_000, 256, 384, 100
Measure = Callable[[Callable[[], int], Callable[[], int]], tuple[float, float]]


def rows(measure: Measure, docs: int = DOCS, queries: int = QUERIES) -> Iterator[Measured]:
    """The 100 best of all documents by dot product; raypipe also sorts ties by id, in float64.

    Args:
        measure: gives the rates of two ways, each of which returns how much it did.
    """
    import faiss

    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((docs, WIDTH), dtype=np.float32)
    asked = rng.standard_normal((queries, WIDTH), dtype=np.float32)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    with tempfile.TemporaryDirectory() as folder:
        column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), WIDTH)
        table = pa.table({"vector": column})
        with pa.ipc.new_file(str(Path(folder, part_name(0, "arrow"))), table.schema) as writer:
            writer.write_table(table)
        search = ExactSearch(Vectors(Path(folder)), np.arange(docs))
        mine = search(asked, DEPTH)
        _, theirs = index.search(asked, DEPTH)
        alike = np.mean([len(np.intersect1d(a, b)) for (a, _), b in zip(mine, theirs, strict=True)])
        assert alike > 0.99 * DEPTH, f"{alike} of {DEPTH} documents are the same"
        own, other = measure(
            lambda: len(search(asked, DEPTH)), lambda: len(index.search(asked, DEPTH)[1])
        )
        name = f"exact search of {docs:,} vectors"
        yield Measured(name, "queries/s", own, f"faiss {faiss.__version__}, flat", other)
