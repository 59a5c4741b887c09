"""A teacher that reads query and document together: any sequence classifier with one output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.config import Config
from raypipe.inference.known_scores import earlier_scores
from raypipe.inference.lists import Lists
from raypipe.inference.pair_job import PairJob
from raypipe.inference.tokens import Tokens
from raypipe.inference.truncation import LongestFirst, Truncation
from raypipe.models.backbone import Backbone
from raypipe.models.checks import check_length, require_scorer
from raypipe.models.cross_encoder import CrossEncoder, check_pair_model
from raypipe.models.sentence_modules import folder_reader, read_score_modules
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows

CHUNK = 64
"""Queries per chunk: a killed job loses at most the chunks that its actors were working on."""


class CrossEncoderTeacher(Config):
    """Logits of a trained cross-encoder (Hofstaetter et al. 2020), one forward per document."""

    type: Literal["cross_encoder"] = "cross_encoder"
    backbone: str
    """Hub name, directory or package of a sequence classifier with one label (or see `label`), or
    of sentence-transformers' modules that end in one score, such as
    cross-encoder/ms-marco-MiniLM-L6-v2 or a checkpoint that raypipe trained."""
    truncation: Truncation = LongestFirst(max_length=512)
    """What the teacher reads of a pair; the student may read another part."""
    label: int | None = Field(None, ge=0)
    """Of a head with several labels, the number of the one that means "relevant" (0 is the first):
    its log-odds are the values. null: the head has one output, which is the value."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "cross-encoder"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that scores the lists."""
        return CrossEncoderScores(self, lists, precision)

    def check(self) -> None:
        """Resolve the model and read its configuration, also from the hub.

        Raises:
            ConfigError: there is no such model, it has no trained head, its tokenizer does not
                serve pairs, or it has fewer positions than `truncation` reads.
        """
        backbone = Backbone(self.backbone)
        backbone.check()
        where = f"teacher.backbone {self.backbone}"
        modular = read_score_modules(backbone.published, where) is not None
        if not modular:
            require_scorer(backbone.published_config(), where, self.label)
        config = check_pair_model(backbone, where, headless=modular)
        field = f"teacher.truncation.{self.truncation.length_fields}"
        check_length(config, field, self.truncation.longest, where, headless=modular)


@dataclass(frozen=True)
class CrossEncoderScores(Step):
    """The head's raw score (a logit) of every listed document.

    A model without a trained head is refused before an actor starts.
    """

    teacher: CrossEncoderTeacher
    lists: Lists
    precision: str

    kind: ClassVar[str] = "teacher"
    version: ClassVar[int] = 2  # bf16 is that of the weights, no longer autocast's
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    @cached_property  # a hub is asked for the revision once per object
    def backbone(self) -> Backbone:
        return Backbone(self.teacher.backbone)

    @property
    def name(self) -> str:
        return f"cross_encoder-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "depth": self.lists.depth,
            "truncation": self.teacher.truncation.semantic(),
            "precision": self.precision,
            **({} if self.teacher.label is None else {"label": self.teacher.label}),
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
        where, folder = f"cross-encoder {self.backbone.source}", attempt.inputs["weights"].local()
        read = folder_reader(folder)
        if read_score_modules(read, where) is None:
            require_scorer(read("config.json"), where, self.teacher.label)
        job = _ScoreLists(
            dict(attempt.inputs),
            CrossEncoder(backbone=self.backbone.source),
            self.teacher.truncation,
            self.lists.depth,
            self.precision,
            context.batch_tokens(),
            context.device(),
            self.teacher.label,
            earlier_scores(attempt.store, self, "weights"),
        )
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=True)


class _ScoreLists(PairJob):
    def build(self) -> Work:
        scored = self.open()

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            lists, counts = scored(chunk)
            rows, counts["values_not_finite"] = [], 0
            for scored_list, scores in lists:
                finite = np.isfinite(scores)
                counts["values_not_finite"] += int((~finite).sum())
                kept = [d for d, good in zip(scored_list.doc_ids, finite, strict=True) if good]
                values = scores[finite].astype(np.float64)
                row = {"query_id": scored_list.query_id, "doc_ids": kept, "values": values}
                rows.append(row)
            return pa.Table.from_pylist(rows, schema=TEACHER), counts

        return work
