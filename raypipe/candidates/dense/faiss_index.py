"""Approximate nearest neighbours with FAISS: an index artifact, searched by the dense job."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from raypipe.candidates.dense.exact import MARGIN, Found, rank
from raypipe.config import Config, ConfigError
from raypipe.inference.embeddings import Embeddings, Vectors
from raypipe.inference.vector_sizes import too_large
from raypipe.resources import Context
from raypipe.storage.artifacts import Attempt, Step

INDEX_FILE = "vectors.faiss"
Array = np.ndarray[Any, Any]


class _Faiss(Config):
    """An approximate index, built once by one thread so that its bytes depend on nothing else."""

    search_only: ClassVar[tuple[str, ...]]
    """Fields that a built index does not depend on."""

    def check(self) -> None:
        """FAISS is installed.

        Raises:
            ConfigError: FAISS is missing.
        """
        if importlib.util.find_spec("faiss") is None:
            raise ConfigError(
                "index: expected FAISS, which is not installed; pip install 'raypipe[dense]', or "
                "set index.type=exact"
            )

    def build(self, docs: Vectors) -> Any:
        """The filled FAISS index."""
        raise NotImplementedError

    def tune(self, index: Any) -> None:
        """Set the fields `search_only` on a loaded index."""
        raise NotImplementedError


class IvfIndex(_Faiss):
    """k-means cells; only the nearest ones are searched (Jegou et al. 2011, without codes)."""

    type: Literal["ivf"] = "ivf"
    lists: int = Field(256, ge=1)
    """Cells; some 4 to 16 times the square root of the number of documents."""
    probes: int = Field(32, ge=1)
    """Cells searched per query; recall grows with it, so does time."""

    search_only: ClassVar[tuple[str, ...]] = ("probes",)

    @model_validator(mode="after")
    def _probes_exist(self) -> IvfIndex:
        if self.probes > self.lists:
            raise ValueError(f"probes={self.probes} is more than lists={self.lists}; lower it")
        return self

    def build(self, docs: Vectors) -> Any:
        """Cells are trained on at most 256 documents each, taken at equal distances."""
        import faiss

        if len(docs) < self.lists:
            raise ConfigError(
                f"index.lists: {self.lists} cells for {len(docs)} documents; lower it to "
                f"{max(int(len(docs) ** 0.5), 1)} or so, or set index.type=exact"
            )
        metric = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(docs.width), docs.width, self.lists, metric)
        index.cp.min_points_per_centroid = 1  # else it prints a warning to stderr
        sample = np.linspace(0, len(docs) - 1, min(len(docs), 256 * self.lists)).astype(np.int64)
        index.train(docs.take(sample))
        return index

    def tune(self, index: Any) -> None:
        index.nprobe = self.probes


class HnswIndex(_Faiss):
    """A graph of near neighbours, walked greedily (Malkov and Yashunin 2020).

    Made for unit vectors: with `normalize: false`, long vectors hide others and recall drops.
    """

    type: Literal["hnsw"] = "hnsw"
    neighbours: int = Field(32, ge=2)
    """Edges per document and layer, twice as many in the lowest."""
    ef_construction: int = Field(200, ge=1)
    """Nearest ones considered when a document is added."""
    ef_search: int = Field(256, ge=1)
    """Nearest ones considered per query; at least the depth is taken."""

    search_only: ClassVar[tuple[str, ...]] = ("ef_search",)

    def build(self, docs: Vectors) -> Any:
        import faiss

        index = faiss.IndexHNSWFlat(docs.width, self.neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        return index

    def tune(self, index: Any) -> None:
        index.hnsw.efSearch = self.ef_search


@dataclass(frozen=True)
class FaissIndex(Step):
    """Built once, in one task of the cluster; query sets and search settings share it."""

    doc_vectors: Embeddings
    index: IvfIndex | HnswIndex

    kind: ClassVar[str] = "dense_index"

    @property
    def name(self) -> str:
        return f"{self.index.type}-{self.doc_vectors.name}"

    def spec(self) -> Mapping[str, Any]:
        fields = self.index.semantic().items()
        return {name: value for name, value in fields if name not in self.index.search_only}

    def inputs(self) -> Mapping[str, Step]:
        return {"doc_vectors": self.doc_vectors}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        import ray

        build = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_build_index)
        counts: dict[str, int] = ray.get(build.remote(attempt, self.index))
        return counts


def _build_index(attempt: Attempt, config: IvfIndex | HnswIndex) -> dict[str, int]:
    import faiss

    docs = Vectors(attempt.inputs["doc_vectors"].local())
    if sentence := too_large(len(docs), docs.width):
        raise ConfigError(
            f"index.type={config.type}: {sentence}, which an index holds whole; set "
            "index.type=exact, which reads them block by block, or take a larger machine"
        )
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # the order in which threads add documents changes a graph
    try:
        index = config.build(docs)
        for part in docs.parts:
            index.add(part)
    finally:
        faiss.omp_set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        faiss.write_index(index, str(Path(folder) / INDEX_FILE))
        attempt.put_directory(Path(folder))
    return {"docs": len(docs)}


class FaissSearch:
    """Approximate top-k: FAISS proposes depth + 32 documents, scored and sorted like exact ones."""

    def __init__(
        self, folder: Path, config: IvfIndex | HnswIndex, docs: Vectors, order: Array
    ) -> None:
        import faiss

        self._index = faiss.read_index(str(folder / INDEX_FILE))
        config.tune(self._index)
        self._docs = docs
        self._order = order

    def __call__(self, queries_QH: Array, depth: int) -> Found:
        """At most `depth` documents of every query; fewer where the search met fewer."""
        keep = min(depth + MARGIN, len(self._docs))
        _, rows_QK = self._index.search(np.ascontiguousarray(queries_QH), keep)
        rows = [rows_K[rows_K >= 0] for rows_K in rows_QK]
        return rank(self._docs, self._order, queries_QH, rows, depth)
