"""What a model said of the same query and document before, in an earlier artifact of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.similar import made_from, similar
from raypipe.tables.known_texts import KnownTexts
from raypipe.tables.rows import Rows
from raypipe.tables.text_table import TextTable


@dataclass(frozen=True)
class EarlierScores:
    """An artifact of records.TEACHER with the texts that its ids stand for."""

    values: Artifact
    queries: Artifact
    collection: Artifact


def earlier_scores(store: Store, step: Step, model: str) -> tuple[EarlierScores, ...]:
    """Scores that `step` gave to other lists, as far as their texts are still there.

    Args:
        model: name of the input that must be the same: the weights.
    """
    apart = {*step.inputs(), "extra"} - {model}
    found = []
    for artifact in similar(store, step, apart):
        queries, docs = (made_from(artifact, name) for name in ("queries", "collection"))
        if queries is not None and docs is not None:
            found.append(EarlierScores(artifact, queries, docs))
    return tuple(found)


class KnownScores:
    """Scores by the texts of query and document."""

    def __init__(self, earlier: Sequence[EarlierScores]) -> None:
        columns = ["query_id", "doc_ids", "values"]
        self._values = [Rows(each.values, columns) for each in earlier]
        self._docs = [TextTable(each.collection.local() / DOCS_FILE) for each in earlier]
        self._queries = [TextTable(each.queries.local() / QUERIES_FILE) for each in earlier]
        self._known = KnownTexts(self._queries)

    def of(self, queries: Sequence[str]) -> list[dict[str, float]]:
        """Of each query, scores by document's text; empty for a query that nobody asked."""
        scores: list[dict[str, float]] = [{} for _ in queries]
        rows = self._known.rows_of(queries)
        places = {at: self._known.place(int(rows[at])) for at in np.flatnonzero(rows >= 0).tolist()}
        for number, (values, docs, texts) in enumerate(
            zip(self._values, self._docs, self._queries, strict=True)
        ):
            here = [at for at, (table, _) in places.items() if table == number]
            ids = texts.ids_at(np.array([places[at][1] for at in here], np.int64)).to_pylist()
            by_query = values.of_queries(ids)
            for at, query_id in zip(here, ids, strict=True):
                for row in by_query.get(query_id, ()):
                    read = docs.texts(docs.rows_of(row["doc_ids"]).tolist())
                    scores[at].update(zip(read, row["values"], strict=True))
        return scores
