"""Vectors of every text of a collection or query set: the job that encodes, and a reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.datasets.steps import Queries
from raypipe.inference.known_rows import EarlierRows, earlier_rows, known_texts, split_rows
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import TextEncoder, ready_to_score
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.tokens import Tokens, text_file
from raypipe.inference.vector_sizes import too_large, width_of
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.sentence_modules import SentenceModules
from raypipe.models.tokenizer import load_tokenizer
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import arrow_parts
from raypipe.storage.similar import made_from
from raypipe.tables.chunks import TAKEN, Counts, Work, run_chunks
from raypipe.tables.text_table import TextTable

CHUNK = 4096
_NOT_OF_A_SIDE = ("backbone", "query_prefix", "doc_prefix", "query_length")
"""Fields of encoders that an input, `prefix` and `longest` stand for."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embeddings(Step):
    """One float32 vector per text, in row order."""

    tokens: Tokens
    encoder: BiEncoder
    """Its fields as a `BiEncoder` decide the vectors; it may be a source or a teacher."""
    precision: str
    weights: Step | None = None
    """A trained stage whose start was `tokens.backbone`; None are the backbone's own weights."""

    kind: ClassVar[str] = "embeddings"
    version: ClassVar[int] = 2  # bf16 is that of the weights, no longer autocast's
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @property
    def name(self) -> str:
        if self.weights is None:
            return self.tokens.name
        return f"{self.tokens.texts.name}-{self.weights.name}"

    @cached_property
    def prefix(self) -> str:
        """Documents get the encoder's doc_prefix, queries its query_prefix."""
        query, doc = self.encoder.prefixes(self.tokens.backbone.published)
        return query if isinstance(self.tokens.texts, Queries) else doc

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest text that is read whole."""
        published = self.tokens.backbone.published
        if isinstance(self.tokens.texts, Queries):
            return self.encoder.longest_query(published)
        return self.encoder.longest(published)

    @cached_property
    def modules(self) -> SentenceModules:
        return self.encoder.modules(self.tokens.backbone.published)

    def spec(self) -> Mapping[str, Any]:
        encoder = self.encoder.part(BiEncoder).semantic()
        for name in _NOT_OF_A_SIDE:
            encoder.pop(name, None)
        encoder["max_length"] = self.longest
        encoder["normalize"] = self.modules.normalizes
        if not self.modules.plain:  # such vectors were once means
            encoder["modules"] = [*self.modules.pooling, *(m.kind for m in self.modules.weighted)]
        return {**encoder, "prefix": self.prefix, "precision": self.precision}

    def inputs(self) -> Mapping[str, Step]:
        weights = self.tokens.backbone if self.weights is None else self.weights
        return {"tokens": self.tokens, "backbone": weights}

    def needs(self) -> Mapping[str, Step]:
        return {} if self.prefix == self.tokens.prefix else {"texts": self.tokens.texts}

    def refuses(self, counts: Mapping[str, Any]) -> str | None:
        if counts.get("texts_with_inexact_prefix"):
            return "its texts were tokenised apart from their prefix, which gives other tokens"
        return None

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(TokenReader(attempt.inputs["tokens"].local()))
        width = width_of(self.tokens.backbone.published_config(), self.modules)
        if sentence := too_large(rows, width):
            print(
                f"encoding: {sentence}; they are written as they come, and exact search reads them "
                "from there block by block; an index would not fit",
                flush=True,
            )
        texts = attempt.inputs.get("texts") or made_from(attempt.inputs["tokens"], "texts")
        earlier = earlier_rows(attempt.store, self, "tokens", "texts") if texts else ()
        job = _Encode(
            attempt.inputs["tokens"],
            attempt.inputs["backbone"],
            texts,
            text_file(self.tokens.texts),
            "texts" in attempt.inputs,
            self.encoder,
            self.prefix,
            self.longest,
            self.precision,
            context.batch_tokens(),
            context.device(),
            earlier,
        )
        return run_chunks(job, rows, CHUNK, attempt, context, model=True, suffix="arrow")


@dataclass(frozen=True)
class _Encode:
    tokens: Artifact
    backbone: Artifact
    texts: Artifact | None
    """None where they are gone: then no vector is taken from an earlier artifact."""
    file: str
    """The file of `texts`."""
    prefixed: bool
    """Texts get their prefix before they are tokenised: its last tokens may depend on the text."""
    encoder: BiEncoder
    prefix: str
    longest: int
    precision: str
    budget: int
    device: str
    earlier: tuple[EarlierRows, ...] = ()
    """Vectors of other texts, whose vectors of the same texts are these."""

    def build(self) -> Work:
        folder = self.backbone.local()
        tokenizer = load_tokenizer(folder)
        encode = TextEncoder(
            ready_to_score(self.encoder.load(folder, self.device), self.device, self.precision),
            Template.of(tokenizer, pair=False),
            self.longest,
            self.budget,
            self.precision,
            self.device,
            prefixed=True,
        )
        read, find = self._reader(tokenizer), self._finder()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            texts = read(chunk)
            there, new, known = find(chunk)
            vectors = _joined(there, known, new, encode([texts[i] for i in new]) if new else None)
            self._check(vectors, chunk)
            column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
            counts = {
                "texts_cut": sum(len(text) > encode.room for text in texts),
                f"texts{TAKEN}": len(there),
            }
            return pa.table({"vector": column}), counts

        return work

    def _reader(self, tokenizer: Any) -> Callable[[range], list[Array]]:
        """Gives the tokens of a chunk's texts, with their prefix."""
        if self.texts is None or not self.prefixed:
            tokens = TokenReader(self.tokens.local())
            return lambda chunk: [tokens[i] for i in chunk]
        texts = TextTable(self.texts.local() / self.file)

        def read(chunk: range) -> list[Array]:
            prefixed = [self.prefix + text for text in texts.texts(chunk)]
            encoded = tokenizer(prefixed, add_special_tokens=False, verbose=False)
            return [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]

        return read

    def _finder(self) -> Callable[[range], tuple[list[int], list[int], Array | None]]:
        """Gives a chunk's positions that have a vector, those that have none, and the vectors."""
        if self.texts is None or not self.earlier:
            return lambda chunk: ([], list(range(len(chunk))), None)
        texts, known = TextTable(self.texts.local() / self.file), known_texts(self.earlier)
        stored = Vectors(*(each.rows.local() for each in self.earlier))

        def find(chunk: range) -> tuple[list[int], list[int], Array | None]:
            rows = known.rows_of(texts.texts(chunk))
            there, new = split_rows(rows)
            return there, new, stored.take(rows[there]) if there else None

        return find

    def _check(self, vectors: Array, chunk: range) -> None:
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{self.tokens.step_path}: expected finite vectors, but that of row "
                f"{chunk[int(finite.argmin())]} is not ({int((~finite).sum())} of {len(chunk)} in "
                f"this chunk); the weights may overflow in {self.precision}, try precision=fp32"
            )


def _joined(there: list[int], known: Array | None, new: list[int], made: Array | None) -> Array:
    """[len(there) + len(new), hidden]: vectors that were known and made, each in its place."""
    some = made if made is not None else known
    assert some is not None, "a chunk has a text"
    vectors = np.empty((len(there) + len(new), some.shape[1]), dtype=np.float32)
    for places, part in ((there, known), (new, made)):
        if part is not None:
            vectors[places] = part
    return vectors


class Vectors:
    """All parts of embeddings artifacts as one matrix: memory-mapped, never copied whole."""

    def __init__(self, *folders: Path) -> None:
        self.parts: list[Array] = []
        """[rows of the part, hidden] float32 each."""
        self.starts: list[int] = []
        """Row number of every part's first row."""
        self._total = 0
        for reader in chain.from_iterable(map(arrow_parts, folders)):
            column = reader.get_batch(0).column(0)
            self.starts.append(self._total)
            self.parts.append(column.flatten().to_numpy().reshape(len(column), -1))
            self._total += len(column)

    @classmethod
    def of(cls, matrix: Array) -> Vectors:
        """[rows, hidden] float32 that are in memory."""
        vectors = cls.__new__(cls)
        vectors.parts, vectors.starts, vectors._total = [matrix], [0], len(matrix)
        return vectors

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
