"""Files of pairwise probabilities, such as duoT5's: kept as pairs, and added up per document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.inference.lists import Lists
from raypipe.records import PAIRWISE
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import checksums, full_paths
from raypipe.tables.text_columns import Columns, find_line
from raypipe.teachers.published.join import Join
from raypipe.teachers.published.wanted import Array, Kept, Means, Wanted, as_lists

DUO = Columns(("query_id", "doc1", "doc2", "log_p"), ("doc1", "doc2"), ("log_p",))


ROUNDING = 1e-6
"""A log-probability above 0 by no more is 0."""


@dataclass(frozen=True)
class PairScores(Step):
    """Probabilities of pairs of listed documents, and per document how often it wins.

    One row per query, in the query set's order; a document in no comparison is left out.
    """

    paths: tuple[str, ...]
    aggregation: Literal["mean", "sum"]
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
            "files": checksums(self.paths),
            "aggregation": self.aggregation,
            "depth": self.lists.depth,
        }

    def facts(self) -> Mapping[str, Any]:
        return {"values": "score", "paths": full_paths(self.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return self.lists.named()

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        wanted = Wanted(attempt.inputs, self.lists.depth)
        join = Join("duo_scores", wanted)
        found = [pair for path in self.paths for pair in _read(join, Path(path).expanduser())]
        join.require_values(self.paths)
        pairs, means = _distinct([np.concatenate(column) for column in zip(*found, strict=True)])
        kept = Kept(wanted, aggregate(*pairs, len(wanted), self.aggregation))
        _write(attempt, kept, *pairs)
        repairs = {"pairs": len(pairs[0]), "scores_averaged": means.averaged()}
        return {**join.counts, **kept.counts(), **repairs}


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


def _read(join: Join, path: Path) -> list[tuple[Array, Array, Array]]:
    """(places of the first, of the second, probabilities) of pairs with two wanted documents."""
    found = []
    for (first, second), (log_p,) in join.read(path, DUO):
        if (log_p > ROUNDING).any():
            line = find_line(path, DUO, lambda numbers: numbers[0] > ROUNDING)
            raise ConfigError(
                f"{path}, line {line}: expected the log of a probability, at most 0, found a "
                f"positive number; write log P(doc1 is more relevant than doc2)"
            )
        here = (first >= 0) & (second >= 0)
        itself = here & (first == second)
        join.counts["pairs_with_itself"] += int(itself.sum())
        finite = np.isfinite(log_p)
        join.counts["values_not_finite"] += int((here & ~itself & ~finite).sum())
        keep = here & ~itself & finite
        join.counts["values"] += int(keep.sum())
        found.append((first[keep], second[keep], np.exp(np.minimum(log_p[keep], 0.0))))
    return found


def _distinct(columns: list[Array]) -> tuple[tuple[Array, Array, Array], Means]:
    """Sorted by first, then second place; the mean probability of a pair that comes again."""
    first, second, p = columns
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    fresh = np.append(True, (first[1:] != first[:-1]) | (second[1:] != second[:-1]))
    means = Means(int(fresh.sum()))
    means.add(np.cumsum(fresh) - 1, p[order])
    return (first[fresh], second[fresh], means.values()), means


def _write(attempt: Attempt, kept: Kept, first: Array, second: Array, p: Array) -> None:
    """PAIRWISE, in the parts of `kept`; pairs lie between their queries' ends as documents do."""
    ends = np.searchsorted(first, kept.wanted.ends)
    query = np.searchsorted(kept.wanted.ends, first, side="right") - 1
    positions = [
        (kept.before_P[place] - kept.ends[query]).astype(np.int32) for place in (first, second)
    ]
    for number, (queries, columns) in enumerate(kept.parts()):
        ours = slice(ends[queries.start], ends[queries.stop])
        more = [as_lists(ends, queries, pa.array(flat[ours])) for flat in (*positions, p)]
        table = pa.Table.from_arrays([*columns, *more], schema=PAIRWISE)
        attempt.put_table(table, f"part-{number:05d}.parquet")
