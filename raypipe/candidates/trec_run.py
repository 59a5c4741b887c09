"""Published or own TREC run files as a candidate source."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from raypipe.candidates.without_self import DepthOptions
from raypipe.config import ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.names import Name
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, checksums, full_paths
from raypipe.tables.spill import Spill, spill, write_candidates
from raypipe.tables.text_table import TextTable
from raypipe.tables.trec_run import RANKED, ranks_tie, read_lines


class TrecRun(DepthOptions):
    """Candidates from run files, plain or .gz; the rank column is the order, then the score."""

    type: Literal["trec_run"] = "trec_run"
    paths: tuple[str, ...] = Field(min_length=1)
    """One or more files; a query set takes its own queries from all of them."""
    depth: int = Field(100, ge=1)
    """Candidates per query, counted in the file's ranks."""
    name: Name = "run"
    """The source's name in tables."""

    @property
    def label(self) -> str:
        return self.name

    def candidates(self, collection: Collection, queries: Queries, precision: str) -> Step:
        """The step that reads the files."""
        return self.cut(RunFileCandidates(self, collection, queries))

    def check(self) -> None:
        """The files exist.

        Raises:
            ConfigError: a file does not.
        """
        check_files(self.paths)


def spill_runs(paths: Sequence[str], rows: Spill, queries: list[str]) -> Counter[str]:
    """Read the files once and keep the lines of these queries.

    Returns:
        Counts: `lines` and `other_queries`, the lines of queries that are not among these.

    Raises:
        ConfigError: a line is malformed, or two files have one query.
    """
    row_of = {query_id: row for row, query_id in enumerate(queries)}
    file_of = np.full(len(queries), -1)
    counts: Counter[str] = Counter(lines=0, other_queries=0)
    for file, path in enumerate(paths):
        try:
            for lines in read_lines(
                Path(path).expanduser(), lambda query_id: row_of.get(query_id, -1), counts
            ):
                query_rows = np.unique(lines["query"].to_numpy())
                earlier = file_of[query_rows]
                if len(twice := query_rows[(earlier >= 0) & (earlier != file)]):
                    query_id, other = queries[twice[0]], paths[file_of[twice[0]]]
                    raise ConfigError(
                        f"run file {path}: query {query_id} is in {other} too; expected all lines "
                        "of a query in one file, take them out of the other"
                    )
                file_of[query_rows] = file
                rows.add(lines)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return counts


def check_match(paths: Sequence[str], queries: int, counts: Counter[str]) -> None:
    """Refuse files of which no line is of a query and a document of the data set.

    Args:
        paths: of the files.
        queries: how many the data set has.
        counts: as `write_lists` returns them.

    Raises:
        ConfigError: no line is; the message says whether queries or documents do not match.
    """
    names = ", ".join(paths)
    if not counts["kept"]:
        raise ConfigError(
            f"run file {names}: none of the {queries} queries is in it; the file's query ids "
            "must be those of the data set"
        )
    if not counts["candidates"]:
        raise ConfigError(
            f"run file {names}: none of its {counts['unknown_documents']} documents is in the "
            "collection; the file's document ids must be those of the data set"
        )


def order_spec(paths: Sequence[str]) -> dict[str, Any]:
    """What the digest says of the order of these files, beside their checksums."""
    return {"ties": "score as written"} if any(map(_tied, paths, checksums(paths))) else {}


@lru_cache(maxsize=256)
def _tied(path: str, checksum: str) -> bool:
    """`ranks_tie` of the file with this checksum; a damaged file is refused when it is read."""
    try:
        return ranks_tie(Path(path).expanduser())
    except (OSError, ValueError):
        return False


def tell_order(paths: Sequence[str], counts: Mapping[str, int]) -> None:
    """Warn of lists whose order the rank column does not tell.

    Args:
        paths: of the files.
        counts: as `write_lists` returns them.
    """
    if lists := counts["queries_ordered_by_score"]:
        warnings.warn(
            f"run file {', '.join(paths)}: documents of {lists} queries share a rank or have none; "
            "these are ordered by score, the highest first",
            stacklevel=2,
        )


def tell_scores(paths: Sequence[str], queries: int, counts: Mapping[str, int]) -> None:
    """Warn of scores that are read though most lists rank against them.

    Args:
        paths: of the files.
        queries: how many the data set has.
        counts: as `write_lists` returns them.
    """
    against = counts["queries_with_scores_against_ranks"]
    if 2 * against > (listed := queries - counts["queries_without_candidates"]):
        warnings.warn(
            f"run file {', '.join(paths)}: {against} of {listed} lists rank a document above one "
            "of a higher score; where lower scores are better, or are those of a list that was "
            "re-ranked, set column=rank",
            stacklevel=2,
        )


@dataclass(frozen=True)
class RunFileCandidates(Step):
    """One row per query of the set; a query that the files do not have has no candidates.

    The files may have any number of rows: they are read once, and spilled to local disk.
    """

    source: TrecRun
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{file_safe(self.source.name)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        files = checksums(self.source.paths)
        plain = {"files": files, "depth": self.source.retrieved, "source": self.source.name}
        return plain | order_spec(self.source.paths)

    def facts(self) -> Mapping[str, Any]:
        return {"paths": full_paths(self.source.paths)}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        depth, source = self.source.retrieved, self.source.name
        with spill(RANKED) as rows:
            counts = spill_runs(self.source.paths, rows, queries)
            counts.update(
                write_candidates(rows, attempt, queries, docs, depth, source, as_listed=True)
            )
        check_match(self.source.paths, len(queries), counts)
        tell_order(self.source.paths, counts)
        return dict(counts)
