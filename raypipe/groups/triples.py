"""Ready-made training triples instead of sampled negatives: their config and their step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from raypipe.config import Config, ConfigError
from raypipe.datasets.dataset import Dataset, file_safe
from raypipe.datasets.own_files import one_line
from raypipe.datasets.own_rows import table_files
from raypipe.datasets.steps import (
    DOCS_FILE,
    QRELS_FILE,
    QUERIES_FILE,
    SCHEMA,
    Collection,
    Queries,
    QuerySet,
)
from raypipe.datasets.training_reader import form_of
from raypipe.groups.file_groups import FileGroups, of_data_set
from raypipe.groups.triple_groups import Array, Judged, group_parts
from raypipe.names import Name
from raypipe.progress import counting
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import check_files, file_checksum, full_paths
from raypipe.storage.parts import part_name
from raypipe.tables.fields import SeenIds
from raypipe.tables.text_columns import TextBlock, read_blocks
from raypipe.tables.text_table import TextTable

TRIPLES = pa.schema([(name, pa.string()) for name in ("query_id", "pos_id", "neg_id")])
"""One row per triple."""
SCORES = ("pos_score", "neg_score")
"""Columns that may stand before the ids: a published teacher's scores (Hofstaetter et al. 2020).
Triples ignore them; the `ensemble_scores` teacher reads them."""
BATCH = 1 << 18
"""Triples of a data set that are Python objects at a time."""


_SCHEMA = {"anyOf": [*SCHEMA["anyOf"], {"type": "null"}]}


class Triples(Config):
    """Ready-made groups: (query, positive, negative) ids as published, such as MS MARCO's triples,
    or a training file of another library (docs/own-data.md)."""

    type: Literal["triples"] = "triples"
    dataset: Annotated[str | None, BeforeValidator(one_line), WithJsonSchema(_SCHEMA)] = None
    """The ir_datasets id of triples (docpairs), such as msmarco-passage/train/triples-small, or
    files of your own with `clicks`, as in `data.train.dataset`. Either this or `path`."""
    path: str | None = None
    """A file, plain or .gz, of `query_id pos_id neg_id` lines, parted by tabs or spaces. Two scores
    may stand before the ids, as in files of the `ensemble_scores` teacher. Or a file, or folder of
    parts, as FlagEmbedding, Tevatron, sentence-transformers or ColBERT read it, with ids of the
    data set or with texts, which are looked for among its texts: every positive of a line is a
    group with the line's negatives. Their scores are read by the teacher `training_file`."""
    per_group: int | None = Field(None, ge=1)
    """Most negatives of a group: consecutive triples of one query and positive fill a group. With 1
    every triple is a group; with more, a negative that repeats beside its positive is left out.
    null is 1 for triples, and all of a line's negatives in other files."""
    limit: int | None = Field(None, ge=1)
    """The number of groups, the first in the file's order; null takes all."""
    name: Name = "triples"
    """The name of these triples in paths and as the documents' source."""

    @model_validator(mode="after")
    def _one_source(self) -> Triples:
        if (self.dataset is None) == (self.path is None):
            found = "neither; name one" if self.path is None else "both; leave one out"
            raise ValueError(f"expected either `dataset` or `path`, found {found}")
        return self

    @property
    def label(self) -> str:
        return self.name

    def negatives(self, collection: Collection, queries: Queries) -> Step:
        """The step that forms the groups."""
        form = None if self.path is None else form_of(self.path)
        if self.path is not None and form is not None:
            most = self.per_group or (1 if form.is_triples else None)
            named = (self.path, form, most, self.limit, self.name)
            return FileGroups(*named, collection, queries)
        return TripleGroups(
            self.dataset,
            self.path,
            self.per_group or 1,
            self.limit,
            self.name,
            collection,
            queries,
        )

    def check(self) -> None:
        """Look whether the triples are there; read none.

        Raises:
            ConfigError: there is no such file, or no data set with docpairs.
        """
        if self.path is not None:
            path = Path(self.path).expanduser()
            if path.is_dir() or "*" in path.name:
                table_files(path, "training file")
            else:
                check_files([self.path], "triples file")
            form_of(self.path)
        elif self.dataset is not None:
            open_docpairs(self.dataset)


@dataclass(frozen=True)
class TripleGroups(Step):
    """One row of `records.NEGATIVES` per group: a positive, then up to `per_group` negatives.

    A query may have many groups; all ranks are 0. A triple whose negative is judged relevant is
    left out.
    """

    dataset: str | None
    """As in `Triples`; None where there is a file."""
    file: str | None
    """The `path` of `Triples`; None where there is a data set."""
    per_group: int
    limit: int | None
    label: str
    """The `name` of `Triples`."""
    collection: Collection
    queries: Queries

    kind: ClassVar[str] = "negatives"

    @property
    def name(self) -> str:
        return f"{file_safe(self.label)}-{self.queries.name}"

    def spec(self) -> Mapping[str, Any]:
        if self.file is not None:
            source: Any = file_checksum(Path(self.file).expanduser())
        else:
            source = open_docpairs(str(self.dataset)).identity()
        fields = {"per_group": self.per_group, "limit": self.limit, "source": self.label}
        return {"triples": source, **fields}

    def facts(self) -> Mapping[str, Any]:
        if self.file is None:
            return {"dataset": self.dataset}
        return {"paths": full_paths([self.file])}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the groups.

        Returns:
            Counts: `triples` read; triples dropped as `unknown_queries`, `unknown_documents`,
            `negatives_judged_relevant` (more than 0) and `repeated_documents` (the negative is the
            positive, or repeats beside it); `groups`, among them `short_groups` with fewer than
            `per_group` negatives; `pairs`; `queries_without_group`. With a limit, drops are counted
            to the end of the batch that reaches the limit.
        """
        collection = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        queries = attempt.inputs["queries"].local()
        query_set = TextTable(queries / QUERIES_FILE)
        names = ("triples", "unknown_queries", "unknown_documents", "negatives_judged_relevant")
        counts: Counter[str] = Counter(dict.fromkeys((*names, "repeated_documents"), 0))
        judged = Judged(pq.read_table(queries / QRELS_FILE), query_set, collection)
        triples = _known(self._blocks(counts), query_set, collection, counts)
        parts = group_parts(triples, judged, self.per_group, self.limit, counts)
        positive = self.queries.queries.positive_relevance
        has_group = np.zeros(len(query_set), bool)
        counts.update(groups=0, pairs=0, short_groups=0)
        for number, part in enumerate(parts):
            counts.update(groups=len(part), short_groups=int((part.sizes <= self.per_group).sum()))
            counts["pairs"] += len(part.docs)
            has_group[part.queries] = True
            table = part.table(judged, query_set, collection, self.label, positive)
            attempt.put_table(table, part_name(number))
        if not counts["groups"]:
            raise ConfigError(
                f"triples {self.file or self.dataset}: no triple is of a query and documents that "
                f"are used here; found {dict(counts)}; its first is {self._first()}, "
                f"{of_data_set(query_set, collection)}; name the query set that they were made for"
            )
        return {**counts, "queries_without_group": int((~has_group).sum())}

    def _first(self) -> str:
        """The first triple, for an error."""
        first = next(self._blocks(Counter()), TRIPLES.empty_table()).slice(0, 1).to_pylist()
        return " ".join(first[0].values()) if first else "missing"

    def _blocks(self, counts: Counter[str]) -> Iterator[pa.Table]:
        if self.file is not None:
            return _file_blocks(Path(self.file).expanduser(), counts)
        return _dataset_blocks(open_docpairs(str(self.dataset)))


def open_docpairs(dataset: str) -> Dataset:
    """The data set of an id, which has docpairs.

    Raises:
        ConfigError: there is no such id, or it has no docpairs.
    """
    opened = QuerySet(dataset=dataset).open()
    opened.docpairs()
    return opened


def _file_blocks(path: Path, counts: Counter[str]) -> Iterator[pa.Table]:
    """The file as tables of TRIPLES, one per block of text."""
    columns: list[str] = []
    seen = SeenIds(counts)
    try:
        for block in read_blocks(path):
            if not columns:
                first = block.data.lstrip().split(b"\n", 1)[0].split()
                columns = [*(SCORES if len(first) == 5 else ()), *TRIPLES.names]
                _refuse_run(block, first)
            table = block.table(columns, dict.fromkeys(columns, pa.string()))
            if table is None:
                rows = [[f.decode() for f in fields[-3:]] for _, fields, _ in block.rows(columns)]
                table = _table(rows)
            for name in TRIPLES.names:
                seen.look_at(table[name], block.place_of)
            yield table.select(TRIPLES.names)
    except ValueError as error:
        raise ConfigError(f"triples {error}") from None


def _refuse_run(block: TextBlock, first: list[bytes]) -> None:
    """Refuse a run, whose ranks would be read as ids of negatives: MS MARCO has documents 1, 2, 3.

    Args:
        first: fields of the first line.

    Raises:
        ValueError: ranks in the place of a negative, with or without a score behind; TREC's form.
    """
    found = "what looks like a run: name it as candidates (type: trec_run) or as teacher (run_file)"
    expected = " ".join(TRIPLES.names)
    scored = len(first) == 4 and first[2].isdigit() and first[3].replace(b".", b"").isdigit()
    if scored or (len(first) == 6 and first[3].isdigit()):
        raise block.wrong(1, f"triples, {expected}", found, b" ".join(first))
    if len(first) != len(TRIPLES):
        return
    docs: list[bytes] = []
    for _, (query, doc, rank), _ in block.rows(TRIPLES.names):
        if query != first[0]:
            break
        docs.append(doc)
        if rank != str(len(docs)).encode():
            return
    if len(docs) > 1 and len({*docs}) == len(docs):
        raise block.wrong(1, f"triples, {expected}", found, b" ".join(first))


def _dataset_blocks(dataset: Dataset) -> Iterator[pa.Table]:
    pairs, read = iter(dataset.docpairs()), 0
    with counting("docpairs", dataset.count("docpairs")) as at:
        while rows := list(islice(pairs, BATCH)):
            read += len(rows)
            at(read)
            yield _table(rows)


def _table(rows: list[Any]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(TRIPLES)
    return pa.table([pa.array(c, pa.string()) for c in columns], schema=TRIPLES)


def _known(
    blocks: Iterator[pa.Table], query_set: TextTable, collection: TextTable, counts: Counter[str]
) -> Iterator[Array]:
    """[3, n] indices of query, positive and negative, without triples of unknown ids."""
    for table in blocks:
        query = query_set.rows_of(table["query_id"])
        table = table.filter(pa.array(query >= 0))
        docs = np.stack([collection.rows_of(table[name]) for name in ("pos_id", "neg_id")])
        there = (docs >= 0).all(axis=0)
        counts.update(triples=len(query), unknown_queries=len(query) - table.num_rows)
        counts["unknown_documents"] += int((~there).sum())
        yield np.stack([query[query >= 0], *docs])[:, there]
