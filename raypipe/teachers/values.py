"""Reads a teacher's values, and its comparisons, by query and document."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.storage.artifacts import Artifact
from raypipe.tables.rows import Rows


class TeacherValues:
    """A teacher artifact by query id."""

    def __init__(self, artifact: Artifact) -> None:
        self._rows = Rows(artifact, ["query_id", "doc_ids", "values"])

    def of_queries(self, query_ids: Iterable[str]) -> dict[str, dict[str, float]]:
        """Query id to value by document id, as the teacher has it; NaN for null."""
        return {
            query_id: {
                doc_id: np.nan if value is None else value
                for row in rows
                for doc_id, value in zip(row["doc_ids"], row["values"], strict=True)
            }
            for query_id, rows in self._rows.of_queries(query_ids).items()
        }


class Comparisons:
    """A pairwise teacher artifact by query id."""

    def __init__(self, artifact: Artifact) -> None:
        columns = ("query_id", "doc_ids", "first", "second", "probabilities")
        self._rows = Rows(artifact, columns)

    def of_queries(self, query_ids: Iterable[str]) -> dict[str, dict[tuple[str, str], float]]:
        """Query id to the probability that the first document is better, by two document ids."""
        return {
            query_id: {
                (row["doc_ids"][i], row["doc_ids"][j]): p
                for row in rows
                for i, j, p in zip(row["first"], row["second"], row["probabilities"], strict=True)
            }
            for query_id, rows in self._rows.of_queries(query_ids).items()
        }


def check_finite(teacher: Artifact) -> None:
    """Refuse a teacher whose values are all NaN or infinite; a teacher without values passes.

    Raises:
        ConfigError: there are values, and none is a finite number.
    """
    folder, total = teacher.local(), 0
    for name in teacher.files:
        values = pc.list_flatten(pq.read_table(folder / name, columns=["values"]).column(0))
        if pc.any(pc.is_finite(values)).as_py():
            return
        total += len(values)
    if total:
        raise ConfigError(
            f"teacher {teacher.step_path}: expected finite values, found {total} of which none is; "
            "look at the model's precision or the teacher's file"
        )
