"""Files of pairwise probabilities, such as duoT5's: kept as pairs, and added up per document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from raypipe.config import Config, ConfigError
from raypipe.inference.lists import Lists
from raypipe.records import PAIRWISE
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.storage.parts import part_name
from raypipe.tables.text_columns import Columns, find_line
from raypipe.teachers.published.join import Join
from raypipe.teachers.published.wanted import Array, PairMeans, ValuedPairs, WantedPairs, as_lists

DUO = Columns(("query_id", "doc1", "doc2", "log_p"), ("doc1", "doc2"), ("log_p",))
ROUNDING = 1e-6
"""A log-probability above 0 by no more is 0."""


class DuoScores(Config):
    """A pairwise ranker's probabilities (duoT5): `query_id doc1 doc2 log_p`, parted by tabs.

    log_p is log P(doc1 is more relevant than doc2). A document's value is its probability to win,
    over all its comparisons (Pradeep et al. 2021, Sym-Sum); the pairs are kept beside it.
    """

    type: Literal["duo_scores"] = "duo_scores"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files, plain or .gz."""
    aggregation: Literal["mean", "sum"] = "mean"
    """The mean stays comparable where documents have unequal numbers of comparisons."""

    values: ClassVar[Literal["score", "rank"]] = "score"
    title: ClassVar[str] = "pairwise scores"
    needs_lists: ClassVar[bool] = True

    def scores(self, lists: Lists, precision: str) -> Step:
        """The step that reads the files; its table has the pairs too."""
        return PairScores(self, lists)

    def check(self) -> None:
        """The files exist."""
        check_files(self.paths, "duo_scores file")


@dataclass(frozen=True)
class PairScores(Step):
    """Probabilities of pairs of listed documents, and per document how often it wins.

    One row per query, in the query set's order; a document in no comparison is left out.
    """

    teacher: DuoScores
    lists: Lists

    kind: ClassVar[str] = "teacher"
    compares: ClassVar[bool] = True
    """Rows are those of records.PAIRWISE."""

    @property
    def name(self) -> str:
        return f"duo_scores-{self.lists.name}"

    def spec(self) -> Mapping[str, Any]:
        return {
            "format": "duo_scores",
            "values": "score",
            "files": checksums(self.teacher.paths),
            "aggregation": self.teacher.aggregation,
            "depth": self.lists.depth,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "paths": full_paths(self.teacher.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.named()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        wanted = WantedPairs(attempt.inputs, self.lists.depth)
        join = Join("duo_scores", wanted)
        paths = self.teacher.paths
        blocks = [block for path in paths for block in _read(join, Path(path).expanduser())]
        join.require_values(paths)
        pairs, means = _distinct([np.concatenate(column) for column in zip(*blocks, strict=True)])
        valued = ValuedPairs(wanted, aggregate(*pairs, len(wanted), self.teacher.aggregation))
        _write(attempt, valued, *pairs)
        repairs = {"pairs": len(pairs[0]), "scores_averaged": means.averaged()}
        return {**join.counts, **valued.counts(), **repairs}


def aggregate(
    first: Array, second: Array, p: Array, n: int, aggregation: Literal["mean", "sum"]
) -> Array:
    """Probability of each of n documents to win, over its comparisons; NaN where it has none.

    P(a over b) = .9 and P(a over c) = .5 give a 1.4, b .1, c .5, or with the mean a .7, b .1, c .5.
    """
    wins = np.bincount(first, p, n) + np.bincount(second, 1 - p, n)
    times = np.bincount(first, minlength=n) + np.bincount(second, minlength=n)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
        means = wins / times
    return means if aggregation == "mean" else np.where(times > 0, wins, np.nan)


def check_logs(path: Path, log_p: Array) -> None:
    """Refuse numbers of a file that are the log of no probability.

    Raises:
        ConfigError: one is above 0; the message names the file's first such line.
    """
    if (log_p > ROUNDING).any():
        line = find_line(path, DUO, lambda numbers: numbers[0] > ROUNDING)
        raise ConfigError(
            f"{path}, line {line}: expected the log of a probability, at most 0, found a "
            f"positive number; write log P(doc1 is more relevant than doc2)"
        )


def _read(join: Join, path: Path) -> list[tuple[Array, Array, Array]]:
    """Per block of the file, the comparisons of two wanted documents.

    Returns:
        (pair numbers of the first documents, of the second, probabilities that the first wins).
    """
    comparisons = []
    for (first, second), (log_p,) in join.read(path, DUO):
        check_logs(path, log_p)
        wanted = (first >= 0) & (second >= 0)
        itself = wanted & (first == second)
        join.counts["pairs_with_itself"] += int(itself.sum())
        finite = np.isfinite(log_p)
        join.counts["values_not_finite"] += int((wanted & ~itself & ~finite).sum())
        keep = wanted & ~itself & finite
        join.counts["values"] += int(keep.sum())
        comparisons.append((first[keep], second[keep], np.exp(np.minimum(log_p[keep], 0.0))))
    return comparisons


def _distinct(columns: list[Array]) -> tuple[tuple[Array, Array, Array], PairMeans]:
    """The comparisons sorted by first, then second document; repeated ones have the mean."""
    first, second, p = columns
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    fresh = np.append(True, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))
    means = PairMeans(int(fresh.sum()))
    means.add(np.cumsum(fresh) - 1, p[order])
    return (first[fresh], second[fresh], means.values()), means


def _write(attempt: Attempt, valued: ValuedPairs, first: Array, second: Array, p: Array) -> None:
    """The table PAIRWISE, in the parts of `valued`: comparisons name documents by their position
    in the query's list of documents with a value."""
    bounds = np.searchsorted(first, valued.wanted.bounds)
    query = np.searchsorted(valued.wanted.bounds, first, side="right") - 1
    positions = [
        (valued.valued_before_P[numbers] - valued.bounds[query]).astype(np.int32)
        for numbers in (first, second)
    ]
    for number, (queries, columns) in enumerate(valued.parts()):
        part = slice(bounds[queries.start], bounds[queries.stop])
        more = [as_lists(bounds, queries, pa.array(flat[part])) for flat in (*positions, p)]
        table = pa.Table.from_arrays([*columns, *more], schema=PAIRWISE)
        attempt.put_table(table, part_name(number))
