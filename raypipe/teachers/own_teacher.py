"""A scorer of the user's own as a teacher."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.config import Config
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.lists import ListReader, Lists, ScoreList
from raypipe.records import TEACHER
from raypipe.resources import Context
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.chunks import Counts, Work, run_chunks
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable

CHUNK = 64
Score = Callable[[str, Sequence[str]], Sequence[float]]
"""Given a query's text and those of its documents, best candidate first, a value for each document;
NaN leaves a document without one."""


class OwnTeacher(Config):
    """Base of a teacher of one's own: `build` makes the scorer, once in every actor."""

    type: str = ""
    """Declared here, so that recipes are printed with `type` first."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    """score: higher is better. rank: 1 is best."""
    needs_lists: ClassVar[bool] = False
    """Whether a value depends on the list's other documents."""
    gpu: ClassVar[bool] = False
    """Whether actors ask for a GPU where the cluster has some."""

    @property
    def title(self) -> str:
        """The teacher's name in tables."""
        return type(self).__name__

    @abstractmethod
    def build(self, device: str) -> Score:
        """The scorer; `device` is cuda where models run on GPUs and `gpu` is set, else cpu."""

    def check(self) -> None:
        """Raise `ConfigError` if something that `build` needs is not there."""

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that scores the lists."""
        return OwnValues(self, lists, precision)


@dataclass(frozen=True)
class OwnValues(Step):
    """The scorer's value of every listed document that gets a finite one."""

    teacher: OwnTeacher
    lists: Lists
    precision: str

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"{type(self.teacher).__name__}-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        teacher = self.teacher.semantic() | {"values": self.teacher.values}
        return {"teacher": teacher, "depth": self.lists.depth, "precision": self.precision}

    def facts(self) -> Mapping[str, Any]:
        return {"values": self.teacher.values}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.inputs()

    def run(self, attempt: Attempt, context: Context) -> Mapping[str, Any]:
        device = context.device() if self.teacher.gpu else "cpu"
        job = _OwnScores(dict(attempt.inputs), self.teacher, self.lists.depth, device)
        rows = len(Rows(attempt.inputs["candidates"]))
        return run_chunks(job, rows, CHUNK, attempt, context, model=self.teacher.gpu)


@dataclass(frozen=True)
class _OwnScores:
    inputs: dict[str, Artifact]
    teacher: OwnTeacher
    depth: int
    device: str

    def build(self) -> Work:
        lists = ListReader(self.inputs, self.depth)
        queries = TextTable(self.inputs["queries"].local() / QUERIES_FILE)
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        score = self.teacher.build(self.device)

        def work(chunk: range) -> tuple[pa.Table, Counts]:
            counts: Counter[str] = Counter(pairs=0, values_not_finite=0)
            rows = []
            for scored in lists.read(chunk):
                texts = docs.texts(map(int, scored.doc_indices))
                values = score(queries.text(scored.query_index), texts) if texts else []
                rows.append(self._row(scored, values, counts))
            return pa.Table.from_pylist(rows, schema=TEACHER), dict(counts)

        return work

    def _row(
        self, scored: ScoreList, values: Sequence[float], counts: Counter[str]
    ) -> dict[str, Any]:
        if len(values) != len(scored.doc_ids):
            raise ValueError(
                f"teacher {self.teacher.type}: query {scored.query_id!r}: expected "
                f"{len(scored.doc_ids)} values, found {len(values)}; return one for every document"
            )
        floats = [float(value) for value in values]
        kept = [(d, v) for d, v in zip(scored.doc_ids, floats, strict=True) if math.isfinite(v)]
        counts["pairs"] += len(floats)
        counts["values_not_finite"] += len(floats) - len(kept)
        return {
            "query_id": scored.query_id,
            "doc_ids": [doc_id for doc_id, _ in kept],
            "values": [value for _, value in kept],
        }
