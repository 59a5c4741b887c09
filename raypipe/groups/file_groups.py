"""The groups of a training file as a step: queries and documents are found by text or by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.datasets.dataset import file_safe
from raypipe.datasets.own_rows import table_files
from raypipe.datasets.steps import DOCS_FILE, QRELS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.datasets.text_match import TextMatch
from raypipe.datasets.training_forms import FileGroup
from raypipe.datasets.training_reader import TrainingForm, read_groups
from raypipe.groups.triple_groups import Judged
from raypipe.names import quoted
from raypipe.records import NEGATIVES
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import file_checksum, full_paths
from raypipe.storage.parts import part_name
from raypipe.tables.text_table import TextTable

BLOCK = 4096
"""Lines that are Python objects at a time."""


@dataclass(frozen=True)
class FileGroups(Step):
    """One row of `records.NEGATIVES` per positive of a line, with the line's negatives.

    A query may have many groups; all ranks are 0. A negative that is judged relevant, or that is a
    positive of its line, is left out.
    """

    file: str
    form: TrainingForm
    per_group: int | None
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
        files = [file_checksum(path) for path in table_files(Path(self.file).expanduser())]
        fields = {"per_group": self.per_group, "limit": self.limit, "source": self.label}
        return {"training_file": files, **fields}

    def facts(self) -> Mapping[str, Any]:
        return {"paths": full_paths([self.file]), "form": self.form.name}

    def inputs(self) -> Mapping[str, Step]:
        return {"collection": self.collection, "queries": self.queries}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the groups.

        Returns:
            Counts: `lines` read; of them `unknown_queries` and `lines_without_positive`; documents
            left out as `unknown_documents`, `negatives_judged_relevant` (more than 0) and
            `repeated_documents`; `positives_without_negative`; `queries_matched_by_text`,
            `documents_matched_by_text` and `.._with_another_text`; `groups`, among them
            `short_groups` with fewer than `per_group` negatives; `pairs`; `queries_without_group`.
        """
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        folder = attempt.inputs["queries"].local()
        query_set = TextTable(folder / QUERIES_FILE)
        names = ("lines", "unknown_queries", "unknown_documents", "negatives_judged_relevant")
        more = ("repeated_documents", "lines_without_positive", "positives_without_negative")
        counts: Counter[str] = Counter(dict.fromkeys((*names, *more, "groups", "pairs"), 0))
        former = _Former(
            self,
            TextMatch(query_set, counts, "queries"),
            TextMatch(docs, counts, "documents"),
            Judged(pq.read_table(folder / QRELS_FILE), query_set, docs),
            counts,
        )
        has_group, example = np.zeros(len(query_set), bool), ""
        lines = _filled(read_groups(self.file), self.per_group or 1, self.form, counts)
        number = 0
        while block := list(islice(lines, BLOCK)):
            example = example or _shown(block[0])
            rows = former.rows(block)
            if self.limit is not None:
                rows = rows[: self.limit - counts["groups"]]
            attempt.put_table(former.table(rows, query_set, docs), part_name(number))
            counts.update(groups=len(rows), pairs=sum(len(row[1]) for row in rows))
            has_group[[row[0] for row in rows]] = True
            number += 1
            if self.limit is not None and counts["groups"] >= self.limit:
                break
        if not counts["groups"]:
            raise ConfigError(
                f"training file {self.file} ({self.form.name}): no line is of a query and "
                f"documents that are used here; found {dict(counts)}; {example}; "
                f"{of_data_set(query_set, docs)}; name the data set that it was made for, or "
                f"training:{self.file} if it has texts"
            )
        return {**counts, "queries_without_group": int((~has_group).sum())}


def of_data_set(query_set: TextTable, docs: TextTable) -> str:
    """An example of a data set's query and document, for an error."""
    query = f"{query_set.ids()[0].as_py()!r} ({quoted(query_set.text(0), 40)})"
    document = f"{docs.ids()[0].as_py()!r} ({quoted(docs.text(0), 40)})"
    return f"the data set has query {query} and document {document}"


def _shown(group: FileGroup) -> str:
    names = [entry.text_id or quoted(entry.text or "", 40) for entry in (group.query, *group.docs)]
    return f"{group.place} has query {names[0]} and document {names[1] if names[1:] else 'none'}"


def _filled(
    groups: Iterator[FileGroup], per_group: int, form: TrainingForm, counts: Counter[str]
) -> Iterator[FileGroup]:
    """The lines; consecutive triples of one query and positive become one, `per_group` at a time.
    Counts `lines`."""

    def counted() -> Iterator[FileGroup]:
        for group in groups:
            counts["lines"] += 1
            yield group

    if not form.is_triples or per_group == 1:
        yield from counted()
        return
    for _, run in groupby(counted(), lambda group: (group.query, group.docs[0])):
        while part := list(islice(run, per_group)):
            negatives = [entry for group in part for entry in group.docs[group.positives :]]
            first = part[0]
            docs = [*first.docs[: first.positives], *negatives]
            yield FileGroup(first.place, first.query, docs, first.positives)


Row = tuple[int, list[int], list[int]]
"""Query row, document rows with the positive first, relevance."""


@dataclass(frozen=True)
class _Former:
    """Turns lines into groups of rows."""

    step: FileGroups
    find_queries: TextMatch
    find_docs: TextMatch
    judged: Judged
    counts: Counter[str]

    def rows(self, block: Sequence[FileGroup]) -> list[Row]:
        """The groups of some lines, in order."""
        queries = self.find_queries.rows_of([group.query for group in block])
        docs = self.find_docs.rows_of([entry for group in block for entry in group.docs])
        sizes = [len(group.docs) for group in block]
        of_doc = np.repeat(queries, sizes)
        relevance = self.judged.of(np.maximum(of_doc, 0), np.maximum(docs, 0))
        relevance = np.where((of_doc >= 0) & (docs >= 0), relevance, 0)
        bounds = np.cumsum([0, *sizes])
        rows: list[Row] = []
        for at, group in enumerate(block):
            span = slice(bounds[at], bounds[at + 1])
            if queries[at] < 0:
                self.counts["unknown_queries"] += 1
                continue
            rows += self._of_line(
                group, int(queries[at]), docs[span].tolist(), relevance[span].tolist()
            )
        return rows

    def _of_line(
        self, group: FileGroup, query: int, docs: list[int], relevance: list[int]
    ) -> Iterator[Row]:
        self.counts["unknown_documents"] += sum(doc < 0 for doc in docs)
        judged = dict(zip(docs, relevance, strict=True))
        positives = [doc for doc in dict.fromkeys(docs[: group.positives]) if doc >= 0]
        kept = [doc for doc in docs[group.positives :] if doc >= 0]
        fitting = [doc for doc in kept if judged[doc] <= 0 or doc in positives]
        negatives = [doc for doc in dict.fromkeys(fitting) if doc not in positives]
        self.counts["negatives_judged_relevant"] += len(kept) - len(fitting)
        self.counts["repeated_documents"] += len(fitting) - len(negatives)
        self.counts["lines_without_positive"] += not positives
        wanted = self.step.per_group
        negatives = negatives[:wanted]
        least = self.step.queries.queries.positive_relevance
        for positive in positives:
            if not negatives:
                self.counts["positives_without_negative"] += 1
                continue
            self.counts["short_groups"] += wanted is not None and len(negatives) < wanted
            grades = [max(least, judged[positive]), *(0 for _ in negatives)]
            yield query, [positive, *negatives], grades

    def table(self, rows: Sequence[Row], query_set: TextTable, docs: TextTable) -> pa.Table:
        """The groups as NEGATIVES."""
        offsets = pa.array(np.cumsum([0, *(len(row[1]) for row in rows)]), pa.int32())
        flat = np.array([doc for row in rows for doc in row[1]], np.int64)
        relevance = np.array([grade for row in rows for grade in row[2]], np.int32)
        values = (
            docs.ids_at(flat),
            pa.array(relevance),
            pa.array(np.zeros_like(relevance)),
            pa.repeat(pa.scalar(self.step.label, pa.string()), len(flat)),
        )
        lists = [pa.ListArray.from_arrays(offsets, value) for value in values]
        queries = query_set.ids_at(np.array([row[0] for row in rows], np.int64))
        return pa.table([queries, *lists], schema=NEGATIVES)
