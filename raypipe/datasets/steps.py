"""Collections and queries as artifacts, which later steps read instead of the data set."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field, WithJsonSchema

from raypipe.config import UNLESS_DEFAULT, Config
from raypipe.datasets.clicks import BIASED, JUDGED_BY_CLICKS
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.own_files import PARTS, one_line, text_template_of
from raypipe.datasets.queries import SelectedQueries, select_queries
from raypipe.datasets.without_titles import TEXT_ONLY, WithoutTitles
from raypipe.records import DOCS, QUERIES, WEIGHTS
from raypipe.storage.artifacts import Attempt, Step
from raypipe.tables.text_table import TextTable

DOCS_FILE = "docs.arrow"
QUERIES_FILE = "queries.arrow"
QRELS_FILE = "qrels.parquet"
WEIGHTS_FILE = "weights.parquet"
"""Of relevant documents, where the data set has weights."""
SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                part: {
                    "type": ["string", "integer"] if part == "least_impressions" else "string",
                    "description": what,
                }
                for part, what in PARTS.items()
            },
            "required": ["corpus"],
            "additionalProperties": False,
        },
    ]
}
"""Of an id of a data set, for editors."""
BATCH = 4096
"""Documents that are written together."""


class QuerySet(Config):
    """Queries and judgements of one split, in an order that depends on the query ids only."""

    type: Literal["judged"] = Field("judged", exclude=True)
    """May be left out, but not in the place of synthetic queries, of a base or in a sweep: there it
    says that the mapping does not change fields of theirs."""
    dataset: Annotated[str, BeforeValidator(one_line), WithJsonSchema(SCHEMA)]
    """An ir_datasets id, `beir:/path/to/folder`, `msmarco:/folder`, `trec:/folder`,
    `training:/train.jsonl`, `pydoc`, `pydoc:PKG,PKG`, or files of your own: a mapping of `corpus`,
    `queries` and, if there are any, `qrels` or `clicks`, beside them `text`, such as
    `{title} | {brand}` of columns, and the columns `doc_id`, `query_id` and `relevance`
    (docs/own-data.md). In one line:
    `files:corpus=/c.tsv,queries=/q.tsv,qrels=/qrels.txt`."""
    fields: Annotated[Literal["title_and_text", "text"], UNLESS_DEFAULT] = "title_and_text"
    """What a document's text is: its title before its text, as MTEB and BEIR have it, or the text
    alone (CADET). The same in every set of one collection, which is else read as two."""
    split: str | None = None
    """The split of beir:, msmarco:, trec: and pydoc; an ir_datasets id names its split itself."""
    limit: int | None = Field(None, ge=1)
    """Take only this many queries, the first by the hash of their ids; null takes all."""
    skip: int = Field(0, ge=0)
    """Leave out this many queries, the first by hash. A set with skip n shares no query with a set
    with limit n."""
    positive_relevance: int = Field(1, ge=1)
    """Relevance from which a document counts as positive (2 on TREC DL)."""

    @property
    def text_template(self) -> str | None:
        """How a document's text is made of columns, if the id says it; reads nothing."""
        return text_template_of(self.dataset)

    def open(self) -> Dataset:
        """The data set behind the id.

        Raises:
            ConfigError: unknown id or split.
        """
        return self._read(opened(self.dataset, self.split))

    def _read(self, dataset: Dataset) -> Dataset:
        """The data set with the fields that are read of its documents."""
        return WithoutTitles(dataset) if self.fields == TEXT_ONLY else dataset

    def check(self) -> None:
        """Look whether everything outside the recipe is there.

        Raises:
            ConfigError: files, a split or packages are missing.
        """
        self.open().check()

    @property
    def title(self) -> str:
        """What the queries are, for people."""
        return f"{self.dataset} {self.split}" if self.split else self.dataset

    def chosen(
        self, *, require_positive: bool, keep_unjudged: bool = False, precision: str
    ) -> Queries:
        """The step that chooses the queries; arguments as the fields of `Queries`.

        Args:
            precision: of models that write or judge queries, as in a recipe.
        """
        return Queries(self, require_positive, keep_unjudged)

    def trained_on(self, candidates: Step) -> Step:
        """Of candidate lists of training queries what may be trained on: by default all."""
        return candidates

    def as_trained_on(self) -> QuerySet:
        """The same queries, with the lists that training queries would have."""
        return self

    @property
    def has_own_lists(self) -> bool:
        """Whether `own_lists` gives any; their scores are then a teacher's on [0, 1]."""
        return False

    def own_lists(self, precision: str) -> Step | None:
        """Candidate lists that training draws from instead of the recipe's; None without such."""
        return None


@functools.lru_cache(maxsize=8)
def opened(dataset: str, split: str | None, *, documents_only: bool = False) -> Dataset:
    """As `open_dataset`, but opened once: steps of one recipe ask many times."""
    return open_dataset(dataset, split, documents_only=documents_only)


@dataclass(frozen=True)
class Collection(Step):
    """The documents with text in one memory-mapped file; a row's number is its index."""

    queries: QuerySet
    """Any split of the data set: splits of one corpus give the same collection."""

    kind: ClassVar[str] = "collection"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        return self.queries.open()

    @property
    def name(self) -> str:
        return self._dataset.docs_name

    def spec(self) -> Mapping[str, Any]:
        return self._dataset.docs_identity()

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.queries.dataset, "split": self.queries.split}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        with attempt.open(DOCS_FILE) as sink:
            return write_docs(self._dataset, sink)


@dataclass(frozen=True)
class Queries(Step):
    """The chosen queries and their judgements."""

    queries: QuerySet
    require_positive: bool
    """True leaves out queries without a positive, which training needs; evaluation takes every
    judged query."""
    keep_unjudged: bool = False
    """True keeps queries without judgements too, to distil published lists as they are."""

    kind: ClassVar[str] = "queries"

    @property  # not cached: a step travels to actors, an open data set cannot
    def _dataset(self) -> Dataset:
        return self.queries.open()

    @property
    def name(self) -> str:
        return self._dataset.name

    def spec(self) -> Mapping[str, Any]:
        chosen = {k: getattr(self.queries, k) for k in ("limit", "skip", "positive_relevance")}
        spec = {**self._dataset.identity(), **chosen, "require_positive": self.require_positive}
        return {**spec, "keep_unjudged": True} if self.keep_unjudged else spec

    def facts(self) -> Mapping[str, Any]:
        return {"dataset": self.queries.dataset, "split": self.queries.split}

    def select(self) -> SelectedQueries:
        """Read and choose; write nothing."""
        return select_queries(
            self._dataset,
            self.queries.limit,
            self.queries.skip,
            self.queries.positive_relevance,
            self.require_positive,
            self.keep_unjudged,
        )

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        chosen = self.select()
        write_queries(chosen, attempt)
        dataset = self._dataset
        _write_weights(dataset.weights(), chosen, attempt)
        return {**chosen.counts, **dataset.judgement_counts()}

    def alarms(self, counts: Mapping[str, Any]) -> Sequence[str]:
        return [BIASED] if JUDGED_BY_CLICKS in counts else []


def write_queries(chosen: SelectedQueries, attempt: Attempt) -> None:
    """Write queries and judgements as the files that `Queries` promises."""
    with attempt.open(QUERIES_FILE) as sink, pa.ipc.new_file(sink, QUERIES) as writer:
        writer.write_table(chosen.queries)
    attempt.put_table(chosen.qrels, QRELS_FILE)


def _write_weights(
    weights: Iterator[tuple[str, str, float]], chosen: SelectedQueries, attempt: Attempt
) -> None:
    """Write the weights of the chosen queries' documents; no file where the data set has none."""
    ids = set(chosen.queries["query_id"].to_pylist())
    rows = [row for row in weights if row[0] in ids]
    if rows:
        columns = list(map(list, zip(*rows, strict=True)))
        attempt.put_table(pa.table(columns, schema=WEIGHTS), WEIGHTS_FILE)


@dataclass(frozen=True)
class Listed(Step):
    """The documents of a collection that candidate lists name; a small part of a large one."""

    collection: Collection
    candidates: Step
    depth: int
    """Documents of each list that are taken."""

    kind: ClassVar[str] = "collection"

    @property
    def name(self) -> str:
        return f"listed-{self.candidates.name}"

    def spec(self) -> Mapping[str, Any]:
        return {"depth": self.depth}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "candidates": self.candidates}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        lists = attempt.inputs["candidates"].table()["doc_ids"].to_pylist()
        named = {doc_id for doc_ids in lists for doc_id in doc_ids[: self.depth]}
        rows = np.sort(docs.rows_of(pa.array(sorted(named), pa.string())))
        rows = rows[rows >= 0]  # candidates of texts that are made otherwise
        ids, texts = docs.ids_at(rows), docs.texts(rows.tolist())
        table = pa.table([ids, pa.array(texts, DOCS.field(1).type)], schema=DOCS)
        with attempt.open(DOCS_FILE) as sink, pa.ipc.new_file(sink, DOCS) as writer:
            writer.write_table(table, max_chunksize=BATCH)
        return {"docs": len(rows), "docs_of_the_collection": len(docs)}
