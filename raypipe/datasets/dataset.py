"""The contract of data sets: documents, and a split's queries and qrels."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from raypipe.config import ConfigError
from raypipe.tables.plain_text import mostly_unspaced

PEEK = 200
"""Documents that tell the script of a corpus."""


class Beginning(NamedTuple):
    """The first documents of a collection."""

    docs: list[tuple[str, str]]
    complete: bool
    """Whether there are no others."""


class Dataset(ABC):
    """One split of a collection. Reading is streamed and repeatable: the same order every time."""

    docs_name: str
    """Short and file-name safe, equal for all splits of the collection, such as `beir-scifact`."""

    name: str
    """`docs_name` with the split, such as `beir-scifact-test`."""

    public: bool = False
    """Whether everybody may read the texts: those of published data sets."""

    @abstractmethod
    def check(self, queries: bool = True) -> None:
        """Check ids, files, split and packages; read no content.

        Args:
            queries: False where only the documents are needed.

        Raises:
            ConfigError: what was expected, what was found, the nearest valid name.
        """

    @abstractmethod
    def docs_identity(self) -> dict[str, Any]:
        """What decides the documents, as JSON: checksums or versions, never a path or a date."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """`docs_identity` with what decides this split's queries and qrels."""

    @abstractmethod
    def docs(self) -> Iterator[tuple[str, str]]:
        """(doc_id, text): title and body joined by one space, stripped; may be ""."""

    def titles(self) -> Iterator[tuple[str, str]]:
        """(doc_id, title) of the documents with a title, in the order of `docs`; none by default.

        A document's text begins with its title.
        """
        return iter(())

    @abstractmethod
    def queries(self) -> Iterator[tuple[str, str]]:
        """(query_id, text) of this split only; the text is stripped and may be ""."""

    @abstractmethod
    def qrels(self) -> Iterator[tuple[str, str, int]]:
        """(query_id, doc_id, relevance) of this split."""

    def weights(self) -> Iterator[tuple[str, str, float]]:
        """(query_id, doc_id, weight) of relevant documents that count more or less than 1 in
        training; none by default."""
        return iter(())

    def judgement_counts(self) -> Mapping[str, int]:
        """Counters of how the judgements came about, where there is something to say."""
        return {}

    def scoreddocs(self) -> Iterator[tuple[str, str, float]]:
        """(query_id, doc_id, score) of the ranked lists that the data set ships.

        Raises:
            ConfigError: at the call, before anything is read: the data set ships no lists.
        """
        raise ConfigError(
            f"dataset {self.name} has no scoreddocs; name an ir_datasets id with them"
        )

    def first_scoreddocs(self, count: int) -> list[tuple[str, str, float]] | None:
        """The first of the lists' documents; None where they would have to be fetched.

        Raises:
            ConfigError: the data set ships no lists.
        """
        return list(islice(self.scoreddocs(), count))

    def docpairs(self) -> Iterator[tuple[str, str, str]]:
        """(query_id, positive doc_id, negative doc_id) of the training triples that it ships.

        Raises:
            ConfigError: at the call, before anything is read: the data set ships no triples.
        """
        raise ConfigError(f"dataset {self.name} has no docpairs; name an ir_datasets id with them")

    def count(self, kind: str) -> int | None:
        """The number of docs, scoreddocs or docpairs; None if only reading them would tell."""
        return None

    @property
    def unspaced(self) -> bool:
        """Whether the documents are in a script without spaces, by their beginning."""
        return False

    def beginning(self, count: int) -> Beginning | None:
        """The first documents, with or without text; None where they would have to be fetched.

        Raises:
            ConfigError: what was read is malformed.
        """
        docs = list(islice(self.docs(), count + 1))
        return Beginning(docs[:count], len(docs) <= count)

    def docs_count(self) -> int | None:
        """The number of documents before any drop; None if only reading them would tell."""
        return self.count("docs")

    def place_of(self, kind: str, text: str) -> str:
        """Where an id stands, as the beginning of an error; known to the line where files are read.

        Args:
            kind: document, query or judgement.
            text: the id.
        """
        return f"dataset {self.name}"

    def counts(self) -> Mapping[str, int]:
        """Counters of what reading dropped or merged; complete once `docs()` is used up."""
        return {}


def begins_unspaced(dataset: Dataset) -> bool:
    """Whether most letters of the first documents are of scripts without spaces."""
    try:
        texts = [text for _, text in islice(dataset.docs(), PEEK)]
    except (ConfigError, OSError):  # the step that reads the file says what is wrong
        return False
    return mostly_unspaced(texts)


def file_safe(text: str, length: int = 60) -> str:
    """The text as a file name of letters, digits, single dots, underscores and hyphens."""
    safe = re.sub(r"[^A-Za-z0-9._]+", "-", text)
    return re.sub(r"\.{2,}", ".", safe)[:length].strip("-._") or "data"
