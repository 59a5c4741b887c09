"""A data set whose documents are their text alone, without the title before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raypipe.datasets.dataset import Beginning, Dataset

TEXT_ONLY = "text"


class WithoutTitles(Dataset):
    """Another data set less the titles that its documents' texts begin with.

    A document that is nothing but a title has no text then.
    """

    def __init__(self, whole: Dataset) -> None:
        self.whole = whole
        self.docs_name = f"{whole.docs_name}-text"
        self.name = f"{whole.name}-text"

    def check(self, queries: bool = True) -> None:
        self.whole.check(queries)

    def docs_identity(self) -> dict[str, Any]:
        """The other's, and that titles are left out."""
        return {**self.whole.docs_identity(), "fields": TEXT_ONLY}

    def identity(self) -> dict[str, Any]:
        """As `docs_identity`."""
        return {**self.whole.identity(), "fields": TEXT_ONLY}

    def docs(self) -> Iterator[tuple[str, str]]:
        """Both iterators go through the documents in one order."""
        titles = self.whole.titles()
        titled, title = next(titles, ("", ""))
        for doc_id, text in self.whole.docs():
            if title and doc_id == titled:
                yield doc_id, text.removeprefix(title).strip()
                titled, title = next(titles, ("", ""))
            else:
                yield doc_id, text

    def queries(self) -> Iterator[tuple[str, str]]:
        return self.whole.queries()

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        return self.whole.qrels()

    def weights(self) -> Iterator[tuple[str, str, float]]:
        return self.whole.weights()

    def judgement_counts(self) -> Mapping[str, int]:
        return self.whole.judgement_counts()

    def scoreddocs(self) -> Iterator[tuple[str, str, float]]:
        return self.whole.scoreddocs()

    def first_scoreddocs(self, count: int) -> list[tuple[str, str, float]] | None:
        return self.whole.first_scoreddocs(count)

    def docpairs(self) -> Iterator[tuple[str, str, str]]:
        return self.whole.docpairs()

    def count(self, kind: str) -> int | None:
        return self.whole.count(kind)

    @property
    def unspaced(self) -> bool:
        return self.whole.unspaced

    def beginning(self, count: int) -> Beginning | None:
        """As the other's, without titles."""
        found = self.whole.beginning(0)  # whether reading would fetch
        return None if found is None else super().beginning(count)

    def place_of(self, kind: str, text: str) -> str:
        return self.whole.place_of(kind, text)

    def counts(self) -> Mapping[str, int]:
        return self.whole.counts()
