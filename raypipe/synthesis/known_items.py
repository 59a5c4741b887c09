"""Generated queries as a set of queries: a query's passage is its one relevant document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from raypipe.datasets.dataset import Dataset
from raypipe.datasets.queries import SelectedQueries, select_queries
from raypipe.datasets.steps import Queries, write_queries
from raypipe.records import QRELS, QUERIES
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.plain_text import normalised


@dataclass(frozen=True)
class SyntheticQueries(Queries):
    """The queries of one split with their passages as judgements."""

    generated: Step = field(kw_only=True)
    """`generated.GENERATED` rows of all splits."""
    split: str = field(kw_only=True)

    kind: ClassVar[str] = "queries"
    filtered_by: ClassVar[str] = ""
    """What a filter asks, for people."""

    @property
    def name(self) -> str:
        return f"synthetic-{self.generated.name}-{self.split}"[:90]

    def spec(self) -> Mapping[str, Any]:
        return {"split": self.split, "limit": self.queries.limit, "skip": self.queries.skip}

    def inputs(self) -> Mapping[str, Step]:
        return {"generated": self.generated}

    def chain(self) -> tuple[SyntheticQueries, ...]:
        """This set and those that it was chosen from, the first one that was written first."""
        return (self,)

    def select(self) -> SelectedQueries:
        """Nothing: the queries are not written yet."""
        return SelectedQueries(
            QUERIES.empty_table(), QRELS.empty_table(), {"queries": 0, "qrels": 0}
        )

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        rows = attempt.inputs["generated"].table()
        known_items = KnownItems(self.name, rows, self.split)
        chosen = select_queries(known_items, self.queries.limit, self.queries.skip)
        write_queries(chosen, attempt)
        ids = set(chosen.queries["query_id"].to_pylist())
        types = Counter(row["type"] for row in known_items.rows if row["query_id"] in ids)
        return {**chosen.counts, **known_items.counts(), **_by_type(types)}


def _by_type(types: Mapping[str, int]) -> dict[str, int]:
    return {f"queries_of_{name}": types[name] for name in sorted(types)}


class KnownItems(Dataset):
    """Generated queries of one split as a data set without documents.

    A text that was written for several passages, of any split, names no known item: all its queries
    are left out.

    Args:
        rows: GENERATED.
    """

    def __init__(self, name: str, rows: pa.Table, split: str) -> None:
        self.name = self.docs_name = name
        of_split = [row for row in rows.to_pylist() if row["split"] == split]
        passages: dict[str, set[str]] = {}
        for text, doc_id in zip(rows["text"].to_pylist(), rows["doc_id"].to_pylist(), strict=True):
            passages.setdefault(normalised(text), set()).add(doc_id)
        self.rows = [row for row in of_split if len(passages[normalised(row["text"])]) == 1]
        self._ambiguous = len(of_split) - len(self.rows)

    def check(self, queries: bool = True) -> None:
        """Everything is here."""

    def docs_identity(self) -> dict[str, Any]:
        """None of its own: the step that wrote the rows has it."""
        return {}

    identity = docs_identity

    def docs(self) -> Iterator[tuple[str, str]]:
        """None: the corpus has them."""
        return iter(())

    def queries(self) -> Iterator[tuple[str, str]]:
        """The queries of the split."""
        return ((row["query_id"], row["text"]) for row in self.rows)

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """The passage of each query."""
        return ((row["query_id"], row["doc_id"], 1) for row in self.rows)

    def counts(self) -> Mapping[str, int]:
        """Queries that were left out."""
        return {"dropped_written_for_several_passages": self._ambiguous}


def synthetic_sets(steps: Iterable[Queries]) -> list[SyntheticQueries]:
    """The synthetic ones among sets of queries, each once."""
    found = {step.digest: step for step in steps if isinstance(step, SyntheticQueries)}
    return list(found.values())
