"""The lists that RankGPT's language model saw, as candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.artifacts import Attempt, Step
from raypipe.config import ConfigError
from raypipe.data.collection import read_docs
from raypipe.data.dataset import file_safe
from raypipe.data.sets import DOCS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.files import checksums, full_paths
from raypipe.inference.published.rankgpt import read_lists
from raypipe.records import CANDIDATES


@dataclass(frozen=True)
class RankGptCandidates(Step):
    """One row per query of the set, in the order in which the model saw the documents."""

    file: str
    depth: int
    label: str
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "candidates"

    @property
    def name(self) -> str:
        return f"{file_safe(self.label)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        files = checksums([self.file])
        return {"format": "rankgpt", "files": files, "depth": self.depth, "source": self.label}

    def facts(self) -> Mapping[str, Any]:
        return {"paths": full_paths([self.file])}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = read_docs(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = read_docs(attempt.inputs["queries"].local() / QUERIES_FILE).ids().to_pylist()
        counts = Counter(dict.fromkeys(("lists_other_queries", "duplicates", "beyond_depth"), 0))
        lists = self._lists(set(queries), counts)
        flat = docs.rows_of([d for doc_ids in lists.values() for d in doc_ids]) >= 0
        counts["unknown_documents"] = int((~flat).sum())
        there = iter(flat.tolist())
        lists = {q: [d for d in doc_ids if next(there)] for q, doc_ids in lists.items()}
        rows = [self._row(query_id, lists.get(query_id, [])) for query_id in queries]
        counts["candidates"] = sum(len(row["doc_ids"]) for row in rows)
        counts["queries_without_candidates"] = sum(not row["doc_ids"] for row in rows)
        if not counts["candidates"]:
            raise ConfigError(
                f"rankgpt file {self.file}: none of its {counts['lists']} lists has a query and a "
                "document of the data set; its ids must be those of the data set"
            )
        attempt.put_table(pa.Table.from_pylist(rows, schema=CANDIDATES))
        return dict(counts)

    def _lists(self, wanted: set[str], counts: Counter[str]) -> dict[str, list[str]]:
        lists: dict[str, list[str]] = {}
        for number, query_id, doc_ids in read_lists(Path(self.file).expanduser()):
            counts["lists"] += 1
            if query_id not in wanted:
                counts["lists_other_queries"] += 1
                continue
            if query_id in lists:
                raise ConfigError(
                    f"{self.file}, line {number}: query {query_id} has a second list; keep one"
                )
            distinct = list(dict.fromkeys(doc_ids))
            lists[query_id] = distinct[: self.depth]
            counts["duplicates"] += len(doc_ids) - len(distinct)
            counts["beyond_depth"] += len(distinct) - len(lists[query_id])
        return lists

    def _row(self, query_id: str, doc_ids: list[str]) -> dict[str, Any]:
        ranks = range(1, len(doc_ids) + 1)
        return {
            "query_id": query_id,
            "doc_ids": doc_ids,
            "ranks": ranks,
            "scores": [-float(rank) for rank in ranks],  # the file has an order only
            "sources": [self.label] * len(doc_ids),
        }
