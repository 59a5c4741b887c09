"""A cross-encoder as teacher: every document of the lists scored, in chunks of queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from raypipe.artifacts import Attempt, Step
from raypipe.data.truncation import Truncation
from raypipe.inference.chunks import Counts, Work, run_chunks
from raypipe.inference.lists import Lists
from raypipe.inference.pair_job import PairJob
from raypipe.inference.rows import Rows
from raypipe.inference.tokens import Tokens
from raypipe.models.backbone import Backbone
from raypipe.models.checks import require_scorer
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.records import TEACHER
from raypipe.resources import Context

CHUNK = 64
"""Queries per chunk: a killed job loses at most what its actors had in hand."""


@dataclass(frozen=True)
class CrossEncoderScores(Step):
    """The head's raw score (a logit) of every listed document.

    A model without a trained head is refused before an actor starts.
    """

    lists: Lists
    backbone: Backbone
    truncation: Truncation
    precision: str

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"cross_encoder-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "depth": self.lists.depth,
            "truncation": self.truncation.semantic(),
            "precision": self.precision,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "backbone": self.backbone.source}

    def inputs(self) -> Mapping[str, Step]:
        return {
            **self.lists.inputs(),
            "weights": self.backbone,
            "query_tokens": Tokens(self.lists.queries, self.backbone),
            "doc_tokens": Tokens(self.lists.collection, self.backbone),
        }

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        config = json.loads(attempt.inputs["weights"].read("config.json"))
        require_scorer(config, f"cross-encoder {self.backbone.source}")
        job = _ScoreLists(
            dict(attempt.inputs),
            CrossEncoder(backbone=self.backbone.source),
            self.truncation,
            self.lists.depth,
            self.precision,
            context.batch_tokens(),
            context.device(),
        )
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=True)


class _ScoreLists(PairJob):
    def build(self) -> Work:
        scored = self.open()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            lists, counts = scored(chunk)
            rows, counts["values_not_finite"] = [], 0
            for one, values in lists:
                good = np.isfinite(values)
                counts["values_not_finite"] += int((~good).sum())
                kept = [d for d, yes in zip(one.doc_ids, good, strict=True) if yes]
                found = values[good].astype(np.float64)
                rows.append({"query_id": one.query_id, "doc_ids": kept, "values": found})
            return pa.Table.from_pylist(rows, schema=TEACHER), counts

        return work
