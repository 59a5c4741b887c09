"""Files with a score per query and document: a pointwise ranker's, or a teacher ensemble's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.config import Config, ConfigError
from raypipe.inference.lists import Lists
from raypipe.records import TEACHER
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.storage.parts import part_name
from raypipe.tables.text_columns import Columns, count_columns
from raypipe.teachers.published.join import Join
from raypipe.teachers.published.wanted import PairMeans, ValuedPairs, WantedPairs

PLAIN = Columns(("query_id", "doc_id", "score"), ("doc_id",), ("score",))
MONO = Columns(
    ("query_id", "doc_id", "score_true", "score_false"), ("doc_id",), ("score_true", "score_false")
)
ENSEMBLE = Columns(
    ("pos_score", "neg_score", "query_id", "pos_doc_id", "neg_doc_id"),
    ("pos_doc_id", "neg_doc_id"),
    ("pos_score", "neg_score"),
)


class MonoScores(Config):
    """A pointwise ranker's scores (monoT5): `query_id doc_id score_true score_false`, tabs.

    The value is log softmax of true. Three columns are `query_id doc_id score`, taken as it is.
    """

    type: Literal["mono_scores"] = "mono_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "pointwise scores"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return ScoreFile(self, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "mono_scores file")


class EnsembleScores(Config):
    """Scored triples (Hofstaetter et al. 2020): `pos_score neg_score query_id pos_doc_id
    neg_doc_id`, parted by tabs.

    Both scores of a row count; a document scored more than once has the mean.
    """

    type: Literal["ensemble_scores"] = "ensemble_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "ensemble scores"
    needs_lists: ClassVar[bool] = False

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files."""
        return ScoreFile(self, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "ensemble_scores file")


def read_mono(join: Join, path: Path, means: PairMeans) -> None:
    """log P(true) = score_true - log(e^score_true + e^score_false), or the score alone."""
    number = count_columns(path)
    if number not in (len(PLAIN.names), len(MONO.names)):
        raise ConfigError(f"{path}, line 1: expected {MONO} or {PLAIN}, found {number} columns")
    columns = PLAIN if number == len(PLAIN.names) else MONO
    for (numbers,), scores in join.read(path, columns):
        values = scores[0]
        if columns is MONO:
            both = np.isfinite(scores[0]) & np.isfinite(scores[1])
            with np.errstate(invalid="ignore"):
                values = np.where(both, values - np.logaddexp(*scores), np.nan)
        join.add_finite(means, numbers, values)


def read_ensemble(join: Join, path: Path, means: PairMeans) -> None:
    """A row scores its positive and its negative document; each counts if it is wanted."""
    for numbers, scores in join.read(path, ENSEMBLE):
        for numbers_of_column, values in zip(numbers, scores, strict=True):
            join.add_finite(means, numbers_of_column, values)


READERS: Mapping[str, Callable[[Join, Path, PairMeans], None]] = {
    "mono_scores": read_mono,
    "ensemble_scores": read_ensemble,
}


@dataclass(frozen=True)
class ScoreFile(Step):
    """The file's score of every document of the lists, the mean where it has several.

    One row per query, in the query set's order; documents without a finite score are left out.
    """

    teacher: MonoScores | EnsembleScores
    lists: Lists

    kind: ClassVar[str] = "teacher"

    @property
    def name(self) -> str:
        return f"{self.teacher.type}-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "format": self.teacher.type,
            "values": "score",
            "files": checksums(self.teacher.paths),
            "depth": self.lists.depth,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "paths": full_paths(self.teacher.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.named()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        wanted = WantedPairs(attempt.inputs, self.lists.depth)
        join, means = Join(self.teacher.type, wanted), PairMeans(len(wanted))
        for path in self.teacher.paths:
            READERS[self.teacher.type](join, Path(path).expanduser(), means)
        join.require_values(self.teacher.paths)
        valued = ValuedPairs(wanted, means.values())
        for number, (_, columns) in enumerate(valued.parts()):
            table = pa.Table.from_arrays(columns, schema=TEACHER)
            attempt.put_table(table, part_name(number))
        return {**join.counts, **valued.counts(), "scores_averaged": means.averaged()}
