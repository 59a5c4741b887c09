"""TREC run files as candidates: read, matched with the collection, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.artifacts import Attempt, Step
from raypipe.config import ConfigError, nearest
from raypipe.data.collection import index_of, read_docs
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.evaluation.runs import read_trec_run
from raypipe.files import file_checksum
from raypipe.records import CANDIDATES


def check_files(paths: Sequence[str]) -> None:
    """Every path is a file; the error names the nearest one beside it."""
    for text in paths:
        path = Path(text).expanduser()
        if not path.is_file():
            beside = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
            raise ConfigError(f"run file {text}: not there{nearest(path.name, beside)}")


def read_for(
    paths: Sequence[str], wanted: set[str], known: pa.Array, depth: int | None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows of the wanted queries, unknown documents dropped and counted, ranks counted anew.

    Raises:
        ConfigError: no query or no document of the files is known.
    """
    counts: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            table, found = read_trec_run(Path(path).expanduser(), wanted, depth)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        counts.update(found)
        for row in table.to_pylist():
            if row["query_id"] in rows:
                raise ConfigError(f"run file {path}: query {row['query_id']} is in two files")
            there = index_of(row["doc_ids"], known) >= 0
            counts["unknown_documents"] += int((~there).sum())
            keep = [i for i, yes in enumerate(there) if yes]
            rows[row["query_id"]] = {
                "query_id": row["query_id"],
                "doc_ids": [row["doc_ids"][i] for i in keep],
                "ranks": list(range(1, len(keep) + 1)),
                "scores": [row["scores"][i] for i in keep],
                "sources": [row["sources"][i] for i in keep],
            }
    counts["candidates"] = sum(len(row["doc_ids"]) for row in rows.values())
    names = ", ".join(paths)
    if not rows:
        raise ConfigError(
            f"run file {names}: none of the {len(wanted)} queries is in it; the file's query ids "
            "must be those of the data set"
        )
    if not counts["candidates"]:
        raise ConfigError(
            f"run file {names}: none of its {counts['unknown_documents']} documents is in the "
            "collection; the file's document ids must be those of the data set"
        )
    return list(rows.values()), counts


@dataclass(frozen=True)
class RunFileCandidates(Step):
    """One row per query of the set; a query that the files do not have has no candidates."""

    paths: tuple[str, ...]
    depth: int
    label: str
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{self.label}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        files = [file_checksum(Path(path).expanduser()) for path in self.paths]
        return {"files": files, "depth": self.depth, "source": self.label}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        known = read_docs(attempt.inputs["collection"].local() / DOCS_FILE).ids()
        queries = read_docs(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        rows, counts = read_for(self.paths, set(queries), known, self.depth)
        by_id = {
            row["query_id"]: {**row, "sources": [self.label] * len(row["doc_ids"])} for row in rows
        }
        empty: dict[str, Any] = {"doc_ids": [], "ranks": [], "scores": [], "sources": []}
        ordered = [by_id.get(q, {"query_id": q, **empty}) for q in queries]
        counts["queries_without_candidates"] = sum(not row["doc_ids"] for row in ordered)
        attempt.put_table(pa.Table.from_pylist(ordered, schema=CANDIDATES))
        return dict(counts)
