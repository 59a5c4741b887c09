"""Embeddings of every text of a collection or query set, and teacher scores made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Artifact, Attempt, Step
from raypipe.data.collection import index_of, read_docs
from raypipe.data.pairs import Template
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.data.tokens import TokenReader
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.scoring import TextEncoder
from raypipe.inference.tokens import Tokens, load_tokenizer
from raypipe.models.bi_encoder import BiEncoder
from raypipe.records import TEACHER
from raypipe.resources import Context

ENCODE_CHUNK = 4096
SCORE_CHUNK = 4096
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Embeddings(Step):
    """One float32 vector per text, in row order."""

    tokens: Tokens
    encoder: BiEncoder
    precision: str

    kind: ClassVar[str] = "embeddings"

    @property
    def name(self) -> str:
        return self.tokens.name

    def spec(self) -> Mapping[str, Any]:
        encoder = {k: v for k, v in self.encoder.semantic().items() if k != "backbone"}
        return {**encoder, "precision": self.precision}

    def inputs(self) -> Mapping[str, Step]:
        return {"tokens": self.tokens, "backbone": self.tokens.backbone}

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = len(TokenReader(attempt.inputs["tokens"].local()))
        job = _Encode(
            attempt.inputs["tokens"],
            attempt.inputs["backbone"],
            self.encoder,
            self.precision,
            context.batch_tokens(),
            context.device(),
        )
        return run_chunks(job, rows, ENCODE_CHUNK, attempt, context, model=True, suffix="arrow")


@dataclass(frozen=True)
class _Encode:
    tokens: Artifact
    backbone: Artifact
    encoder: BiEncoder
    precision: str
    budget: int
    device: str

    def build(self) -> Work:
        folder = self.backbone.local()
        tokens = TokenReader(self.tokens.local())
        encode = TextEncoder(
            self.encoder.load(folder, self.device),
            Template.of(load_tokenizer(folder), pair=False),
            self.encoder.max_length,
            self.budget,
            self.precision,
            self.device,
        )

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            texts = [tokens[i] for i in chunk]
            vectors = encode(texts)
            kept = min(self.encoder.max_length, 1 << 30) - encode.template.n_special
            column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
            cut = sum(len(text) > kept for text in texts)
            return pa.table({"vector": column}), {"texts_cut": cut}

        return work


def read_vectors(folder: Path) -> Array:
    """[rows, hidden] float32; memory-mapped if there is one part."""
    parts = []
    for path in sorted(folder.glob("part-*.arrow")):
        column = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(0)
        parts.append(column.flatten().to_numpy().reshape(len(column), -1))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class VectorScores(Step):
    """Teacher values by dot product, optionally fused with the first stage.

    Scored are the candidates to `depth` and, with `negatives`, the documents of the groups, whose
    injected positives may not be among the candidates.
    """

    candidates: Step
    negatives: Step | None
    collection: Collection
    queries: Queries
    doc_vectors: Embeddings
    query_vectors: Embeddings
    depth: int
    first_stage_weight: float
    """0 is the bi-encoder alone; w is (1 - w) z(bi-encoder) + w z(first stage)."""

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"{'fusion' if self.first_stage_weight else 'bi_encoder'}-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth, "first_stage_weight": self.first_stage_weight}

    def inputs(self) -> Mapping[str, Step]:
        parts = {
            "candidates": self.candidates,
            "collection": self.collection,
            "queries": self.queries,
            "doc_vectors": self.doc_vectors,
            "query_vectors": self.query_vectors,
        }
        return {**parts, "negatives": self.negatives} if self.negatives is not None else parts

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        rows = attempt.inputs["candidates"].table().num_rows
        job = _Dot(dict(attempt.inputs), self.depth, self.first_stage_weight)
        return run_chunks(job, rows, SCORE_CHUNK, attempt, context, model=False)


@dataclass(frozen=True)
class _Dot:
    inputs: dict[str, Artifact]
    depth: int
    weight: float

    def build(self) -> Work:
        candidates = self.inputs["candidates"].table()
        known = read_docs(self.inputs["collection"].local() / DOCS_FILE).ids()
        query_ids = read_docs(self.inputs["queries"].local() / QUERIES_FILE).ids()
        docs = read_vectors(self.inputs["doc_vectors"].local())
        queries = read_vectors(self.inputs["query_vectors"].local())
        extra: dict[str, list[str]] = {}
        if "negatives" in self.inputs:
            table = self.inputs["negatives"].table()
            extra = dict(
                zip(
                    table.column("query_id").to_pylist(),
                    table.column("doc_ids").to_pylist(),
                    strict=True,
                )
            )

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            part = candidates.slice(chunk.start, len(chunk)).to_pylist()
            lists = [
                _merged(r["doc_ids"][: self.depth], extra.get(r["query_id"], [])) for r in part
            ]
            rows = index_of([d for one in lists for d in one], known)
            positions = index_of([r["query_id"] for r in part], query_ids)
            out, at = [], 0
            for row, doc_ids, query in zip(part, lists, positions, strict=True):
                values = (docs[rows[at : at + len(doc_ids)]] @ queries[query]).astype(np.float64)
                if self.weight:
                    first = first_stage_scores(row, doc_ids)
                    values = (1 - self.weight) * zscore(values) + self.weight * zscore(first)
                out.append({"query_id": row["query_id"], "doc_ids": doc_ids, "values": values})
                at += len(doc_ids)
            return pa.Table.from_pylist(out, schema=TEACHER), {"pairs": at}

        return work


def _merged(first: list[str], more: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *more]))


def first_stage_scores(row: Mapping[str, Any], doc_ids: list[str]) -> Array:
    """First-stage scores of `doc_ids`; what was not retrieved gets the list's lowest score.

    Its own score would be lower still, so the floor errs in the document's favour.
    """
    known = dict(zip(row["doc_ids"], row["scores"], strict=True))
    floor = min(known.values(), default=0.0)
    return np.array([known.get(d, floor) for d in doc_ids], dtype=np.float64)


def zscore(values: Array) -> Array:
    """Zero mean, unit variance; a constant list becomes zeros."""
    if not len(values) or np.ptp(values) == 0:  # the deviation of equal doubles can be 1e-17
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()
