"""Files with a score per query and document: a pointwise ranker's, or a teacher ensemble's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import checksums, full_paths
from raypipe.tables.text_columns import Columns, count_columns
from raypipe.teachers.published.join import Join
from raypipe.teachers.published.wanted import Kept, Means, Wanted

PLAIN = Columns(("query_id", "doc_id", "score"), ("doc_id",), ("score",))
MONO = Columns(
    ("query_id", "doc_id", "score_true", "score_false"), ("doc_id",), ("score_true", "score_false")
)
ENSEMBLE = Columns(
    ("pos_score", "neg_score", "query_id", "pos_doc_id", "neg_doc_id"),
    ("pos_doc_id", "neg_doc_id"),
    ("pos_score", "neg_score"),
)

Format = Literal["mono_scores", "ensemble_scores"]


def read_mono(join: Join, path: Path, means: Means) -> None:
    """log P(true) = score_true - log(e^score_true + e^score_false), or the score alone."""
    found = count_columns(path)
    if found not in (len(PLAIN.names), len(MONO.names)):
        raise ConfigError(f"{path}, line 1: expected {MONO} or {PLAIN}, found {found} columns")
    columns = PLAIN if found == len(PLAIN.names) else MONO
    for (places,), numbers in join.read(path, columns):
        values = numbers[0]
        if columns is MONO:
            both = np.isfinite(numbers[0]) & np.isfinite(numbers[1])
            with np.errstate(invalid="ignore"):
                values = np.where(both, values - np.logaddexp(*numbers), np.nan)
        join.add_finite(means, places, values)


def read_ensemble(join: Join, path: Path, means: Means) -> None:
    """A row says a score of its positive and of its negative; each counts where it is wanted."""
    for places, numbers in join.read(path, ENSEMBLE):
        for place, values in zip(places, numbers, strict=True):
            join.add_finite(means, place, values)


READERS: Mapping[str, Callable[[Join, Path, Means], None]] = {
    "mono_scores": read_mono,
    "ensemble_scores": read_ensemble,
}


@dataclass(frozen=True)
class ScoreFile(Step):
    """The file's score of every document of the lists, the mean where it has several.

    One row per query, in the query set's order; documents without a finite score are left out.
    """

    format: Format
    paths: tuple[str, ...]
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"{self.format}-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "format": self.format,
            "values": "score",
            "files": checksums(self.paths),
            "depth": self.lists.depth,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "paths": full_paths(self.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.named()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        wanted = Wanted(attempt.inputs, self.lists.depth)
        join, means = Join(self.format, wanted), Means(len(wanted))
        for path in self.paths:
            READERS[self.format](join, Path(path).expanduser(), means)
        join.require_values(self.paths)
        kept = Kept(wanted, means.values())
        for number, (_, columns) in enumerate(kept.parts()):
            table = pa.Table.from_arrays(columns, schema=TEACHER)
            attempt.put_table(table, f"part-{number:05d}.parquet")
        return {**join.counts, **kept.counts(), "scores_averaged": means.averaged()}
