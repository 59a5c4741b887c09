"""Vectors of every text of a collection or query set: the job that encodes, and a reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.steps import Collection
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import TextEncoder
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.tokens import Tokens, load_tokenizer
from raypipe.models.bi_encoder import BiEncoder, prefix_ids
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import arrow_parts
from raypipe.tables.chunks import Counts, Work, run_chunks

CHUNK = 4096
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embeddings(Step):
    """One float32 vector per text, in row order."""

    tokens: Tokens
    encoder: BiEncoder
    """Its fields as a `BiEncoder` decide the vectors; it may be a source or a teacher."""
    precision: str

    kind: ClassVar[str] = "embeddings"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @property
    def name(self) -> str:
        return self.tokens.name

    @property
    def prefix(self) -> str:
        """Documents get the encoder's doc_prefix, queries its query_prefix."""
        docs = isinstance(self.tokens.texts, Collection)
        return self.encoder.doc_prefix if docs else self.encoder.query_prefix

    def spec(self) -> Mapping[str, Any]:
        encoder = self.encoder.part(BiEncoder).semantic()
        for name in ("backbone", "query_prefix", "doc_prefix"):  # an input, and `prefix`
            del encoder[name]
        return {**encoder, "prefix": self.prefix, "precision": self.precision}

    def inputs(self) -> Mapping[str, Step]:
        return {"tokens": self.tokens, "backbone": self.tokens.backbone}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(TokenReader(attempt.inputs["tokens"].local()))
        job = _Encode(
            attempt.inputs["tokens"],
            attempt.inputs["backbone"],
            self.encoder,
            self.prefix,
            self.precision,
            context.batch_tokens(),
            context.device(),
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=True, suffix="arrow")


@dataclass(frozen=True)
class _Encode:
    tokens: Artifact
    backbone: Artifact
    encoder: BiEncoder
    prefix: str
    precision: str
    budget: int
    device: str

    def build(self) -> Work:
        folder = self.backbone.local()
        tokens = TokenReader(self.tokens.local())
        tokenizer = load_tokenizer(folder)
        prefix, exact = prefix_ids(tokenizer, self.prefix)
        encode = TextEncoder(
            self.encoder.load(folder, self.device),
            Template.of(tokenizer, pair=False),
            self.encoder.max_length,
            self.budget,
            self.precision,
            self.device,
            prefix if len(prefix) else None,
        )
        if encode.room < 1:
            raise ConfigError(
                f"{self.tokens.step_path}: max_length={self.encoder.max_length} leaves no token of "
                f"the texts: the prefix {self.prefix!r} has {len(prefix)}, special tokens are "
                f"{encode.template.n_special}; raise max_length"
            )

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            texts = [tokens[i] for i in chunk]
            vectors = encode(texts)
            self._check(vectors, chunk)
            column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
            counts = {"texts_cut": sum(len(text) > encode.room for text in texts)}
            if not exact:
                counts["texts_with_inexact_prefix"] = len(texts)
            return pa.table({"vector": column}), counts

        return work

    def _check(self, vectors: Array, chunk: range) -> None:
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{self.tokens.step_path}: expected finite vectors, but that of row "
                f"{chunk[int(finite.argmin())]} is not ({int((~finite).sum())} of {len(chunk)} in "
                f"this chunk); the weights may overflow in {self.precision}, try precision=fp32"
            )


class Vectors:
    """All parts of an embeddings artifact as one matrix: memory-mapped, never copied whole."""

    def __init__(self, folder: Path) -> None:
        self.parts: list[Array] = []
        """[rows of the part, hidden] float32 each."""
        self.starts: list[int] = []
        """Row number of every part's first row."""
        self._total = 0
        for reader in arrow_parts(folder):
            column = reader.get_batch(0).column(0)
            self.starts.append(self._total)
            self.parts.append(column.flatten().to_numpy().reshape(len(column), -1))
            self._total += len(column)

    def __len__(self) -> int:
        return self._total

    @property
    def width(self) -> int:
        return int(self.parts[0].shape[1])

    def take(self, rows: Array | Sequence[int]) -> Array:
        """[len(rows), hidden]: a copy of these rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        vectors = np.empty((len(rows), self.width), dtype=np.float32)
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(part_of):
            here = part_of == part
            vectors[here] = self.parts[part][rows[here] - self.starts[part]]
        return vectors

    def blocks(self, rows: int) -> Iterator[tuple[int, Array]]:
        """(first row, mapped block of at most `rows` rows) through the whole matrix, in order."""
        for start, part in zip(self.starts, self.parts, strict=True):
            for at in range(0, len(part), rows):
                yield start + at, part[at : at + rows]
