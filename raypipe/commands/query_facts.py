"""What queries, judgements and documents say about each other, counted before work."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.commands.query_sets import NamedQueries, Read
from raypipe.config import ConfigError
from raypipe.datasets.queries import SelectedQueries
from raypipe.datasets.steps import DOCS_FILE
from raypipe.names import quoted
from raypipe.storage.builder import Builder
from raypipe.tables.plain_text import normalised
from raypipe.tables.text_table import TextTable

LOOKED_AT = 1000
"""Queries whose texts are compared with a document's, and missing ids that are spelt otherwise."""


class Documents(Protocol):
    """A collection, or the part of it that was read."""

    def __len__(self) -> int: ...

    def rows_of(self, asked: list[str]) -> np.ndarray:
        """The row of each id, -1 where it is not there."""
        ...

    def text(self, index: int) -> str: ...

    def ids(self) -> pa.ChunkedArray: ...


@dataclass(frozen=True)
class QuerySetFacts:
    """What was counted of one set of queries, and the sentences that its user should read."""

    counts: Mapping[str, int]
    notes: Sequence[str] = ()


def query_facts(
    sets: Sequence[NamedQueries], builder: Builder, read: Read
) -> dict[str, QuerySetFacts]:
    """By the field that names the queries, with a digest where trials have several; makes their
    collections.

    Raises:
        ConfigError: a set of which no relevant document is in the collection.
    """
    facts: dict[str, QuerySetFacts] = {}
    for named in sets:
        docs = TextTable(builder.get(named.collection).local() / DOCS_FILE)
        content = read(named.queries)
        missing, own = missing_facts(named, content, docs), own_facts(named, content, docs)
        notes = [*missing.notes, *own.notes]
        key = named.field if named.field not in facts else f"{named.field} {named.queries.digest}"
        facts[key] = QuerySetFacts({**missing.counts, **own.counts}, notes)
    return facts


def missing_facts(named: NamedQueries, content: SelectedQueries, docs: Documents) -> QuerySetFacts:
    """How many judged documents the collection lacks, and how many queries that leaves without a
    relevant one.

    Raises:
        ConfigError: it has none of the relevant ones.
    """
    qrels = content.qrels
    relevant = pc.greater_equal(qrels["relevance"], named.queries.queries.positive_relevance)
    positive = qrels.filter(relevant)
    judged = pc.unique(qrels["doc_id"]).to_pylist()
    there = docs.rows_of(judged) >= 0
    found = {doc_id for doc_id, has in zip(judged, there, strict=True) if has}
    answered = {
        query_id
        for query_id, doc_id in zip(*_columns(positive, "query_id", "doc_id"), strict=True)
        if doc_id in found
    }
    asked = len(pc.unique(positive["query_id"]))
    counts = {
        "judged_documents": len(judged),
        "judged_documents_missing": len(judged) - len(found),
        "queries_whose_relevant_documents_are_missing": asked - len(answered),
    }
    if len(found) == len(judged):
        return QuerySetFacts(counts)
    absent = [doc_id for doc_id, has in zip(judged, there, strict=True) if not has]
    sentence = _missing(named, counts, absent, docs)
    if asked and not answered:
        raise ConfigError(
            f"{sentence}; none of the relevant ones is there, every value would be 0: name the "
            "judgements of this collection, or its documents"
        )
    if lost := counts["queries_whose_relevant_documents_are_missing"]:
        sentence += f"; {lost:,} of {asked:,} queries have no relevant document left"
    return QuerySetFacts(counts, [sentence])


def _missing(
    named: NamedQueries, counts: Mapping[str, int], absent: list[str], docs: Documents
) -> str:
    example = f"such as {quoted(absent[0])}"
    if len(docs):
        example += f" (the collection has {quoted(docs.ids()[0].as_py())})"
    return (
        f"{named.field}: {counts['judged_documents_missing']:,} of {counts['judged_documents']:,} "
        f"judged documents are not in the collection, or have no text, {example}"
        f"{_otherwise(absent[:LOOKED_AT], docs)}"
    )


SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "another Unicode form (NFC)": lambda text: unicodedata.normalize("NFC", text),
    "another Unicode form (NFD)": lambda text: unicodedata.normalize("NFD", text),
    "lower case": str.lower,
    "upper case": str.upper,
}


def _otherwise(absent: list[str], docs: Documents) -> str:
    """The end of a sentence, where missing ids are there if they are spelt otherwise."""
    for name, spelt in SPELLINGS.items():
        if number := int((docs.rows_of([spelt(doc_id) for doc_id in absent]) >= 0).sum()):
            return f"; {number:,} of the first {len(absent):,} of these are there in {name}"
    return ""


def own_facts(named: NamedQueries, content: SelectedQueries, docs: Documents) -> QuerySetFacts:
    """How many queries are documents of the collection themselves, by id.

    Ids that are numbers are equal by chance, so the texts of some are compared: one must be a part
    of the other.
    """
    ids, texts = _columns(content.queries, "query_id", "text")
    rows = docs.rows_of(ids)
    equal = np.flatnonzero(rows >= 0)
    some = equal[:LOOKED_AT]
    alike = sum(_alike(texts[at], docs.text(int(rows[at]))) for at in some)
    number = len(equal) if some.size and 2 * alike >= len(some) else 0
    counts = {"queries_among_documents": number}
    if not number or getattr(named.source, "exclude_query_id", True):
        return QuerySetFacts(counts)
    return QuerySetFacts(
        counts,
        [
            f"{named.field}: {number:,} of {len(ids):,} queries are documents of the collection, "
            "and find themselves; set exclude_query_id=true in their candidates, as BEIR does"
        ],
    )


def _alike(query: str, document: str) -> bool:
    short, long = sorted((normalised(query), normalised(document)), key=len)
    return short in long


def _columns(table: pa.Table, *names: str) -> list[list[str]]:
    return [table[name].to_pylist() for name in names]
