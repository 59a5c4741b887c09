"""A number per document that equal texts share, so that copies are found without reading texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.datasets.steps import DOCS_FILE, Collection
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import arrow_parts
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.plain_text import text_hashes
from raypipe.tables.text_table import TextTable

CHUNK = 262_144
"""Documents per file; 6 microseconds each."""
HASHES = pa.schema([("hash", pa.uint64())])


@dataclass(frozen=True)
class TextHashes(Step):
    """`plain_text.text_hash` of every document; a row's number is the document's."""

    collection: Collection

    kind: ClassVar[str] = "text_hashes"
    version: ClassVar[int] = 2  # characters that nobody sees make no other text

    @property
    def name(self) -> str:
        return self.collection.name

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        collection = attempt.inputs["collection"]
        rows = len(TextTable(collection.local() / DOCS_FILE))
        job = HashTexts(collection)
        return run_chunks(job, rows, CHUNK, attempt, context, model=False, suffix="arrow")


@dataclass(frozen=True)
class HashTexts:
    """The job of `TextHashes`."""

    collection: Artifact

    def build(self) -> Work:
        docs = TextTable(self.collection.local() / DOCS_FILE)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            hashes = text_hashes(docs.iter_texts(chunk))
            return pa.table([hashes], schema=HASHES), {}

        return work


def read_hashes(artifact: Artifact) -> np.ndarray:
    """The hash of every document, uint64: 8 bytes each in memory."""
    batches = [reader.get_batch(0) for reader in arrow_parts(artifact.local())]
    return np.concatenate([np.empty(0, np.uint64), *(b.column(0).to_numpy() for b in batches)])
