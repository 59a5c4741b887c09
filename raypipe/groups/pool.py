"""The documents that a query's negatives are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

CANDIDATES = "candidates"
"""The source of a document from the training candidates."""
CORPUS = "corpus"
"""The source of a document drawn from the whole collection."""
QRELS = "qrels"
"""The source of a positive that was not retrieved."""


@dataclass(frozen=True)
class RankedList:
    """One source's documents for one query, best first; ranks ascend from 1."""

    doc_ids: Sequence[str]
    ranks: Sequence[int]


@dataclass(frozen=True)
class Chosen:
    """A document and the list that it was drawn from."""

    doc_id: str
    rank: int
    """The document's rank in the list of its source; 0 if it was not retrieved."""
    source: str
    """The name of the document's list, or `corpus`, or `qrels`."""


def _anything(document: Chosen) -> bool:
    return True


@dataclass(frozen=True)
class Pool:
    """What a sampler may draw from."""

    lists: Mapping[str, RankedList]
    """By source name; `candidates` are the training candidates."""
    corpus: Sequence[str] = ()
    """Every document id of the collection, by row."""
    forbidden: frozenset[str] = frozenset()
    """Documents that are never drawn: whatever is judged relevant to some degree."""
    accept: Callable[[Chosen], bool] = field(default=_anything)
    """Whether a document may be chosen; asked only when its turn comes, so that costly checks see
    few documents."""

    def ranked(self, source: str) -> RankedList:
        """The documents of a list, without the forbidden ones.

        Raises:
            ValueError: there is no such list.
        """
        if source not in self.lists:
            raise ValueError(
                f"negatives: there is no source {source!r}, only {sorted(self.lists)}; name it "
                "among the further candidates"
            )
        doc_ids, ranks = self.lists[source].doc_ids, self.lists[source].ranks
        allowed = [i for i, doc_id in enumerate(doc_ids) if doc_id not in self.forbidden]
        return RankedList([doc_ids[i] for i in allowed], [ranks[i] for i in allowed])
