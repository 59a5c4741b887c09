"""How rows' lists begin, from their runs; texts from the collections, where they may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.evaluation.report.first_documents import SHOWN, FirstIds, ListHeads, beginning
from raypipe.evaluation.results import Row
from raypipe.recipe.experiment import Experiment
from raypipe.runs.metrics import Metrics
from raypipe.storage.builder import Builder
from raypipe.tables.text_table import TextTable

MOST_LISTS = 100_000
"""Of a test set, over all rows: a page holds no more, and a file of 10 MB."""


def first_ids(seeds: Sequence[Metrics], builder: Builder) -> FirstIds:
    """query_id -> the first documents of the first seed's run; empty where the run is gone."""
    run = builder.find(seeds[0].run_step)
    if run is None:
        return {}
    table = run.table().select(["query_id", "doc_ids"])
    heads = pc.list_slice(table["doc_ids"], 0, SHOWN).to_pylist()
    return dict(zip(table["query_id"].to_pylist(), heads, strict=True))


def first_documents(
    rows: Sequence[Row], experiment: Experiment, builder: Builder
) -> dict[str, ListHeads]:
    """Test set -> how its rows begin, with texts where `shows_texts` allows them somewhere."""
    found = {}
    for role in dict.fromkeys(role for row in rows for role in row.first):
        lists = {row.name: row.first[role] for row in rows if role in row.first}
        if sum(map(len, lists.values())) > MOST_LISTS:
            continue
        found[role] = ListHeads(lists)
        if is_public(experiment, role) or experiment.report.texts is not None:
            found[role] = _with_texts(found[role], role, experiment, builder)
    return found


def is_public(experiment: Experiment, role: str) -> bool:
    """Whether everybody may read the texts of a role's queries and documents."""
    queries = experiment.query_set(role)
    return queries.type == "judged" and queries.open().public


def tracked_documents(
    found: Mapping[str, ListHeads], experiment: Experiment
) -> dict[str, ListHeads]:
    """What the tracking store gets of them: own texts only as `report.texts: tracked`."""
    everything = experiment.report.texts == "tracked"
    return {
        role: first if everything or is_public(experiment, role) else first.without_texts()
        for role, first in found.items()
    }


def _with_texts(first: ListHeads, role: str, experiment: Experiment, builder: Builder) -> ListHeads:
    docs, queries = experiment.collection(role), experiment.queries(role)
    ids = {doc_id for lists in first.rows.values() for of in lists.values() for doc_id in of}
    query_ids = {query_id for lists in first.rows.values() for query_id in lists}
    return ListHeads(
        first.rows,
        _texts(TextTable(builder.get(queries).local() / QUERIES_FILE), query_ids),
        _texts(TextTable(builder.get(docs).local() / DOCS_FILE), ids),
    )


def _texts(table: TextTable, ids: Iterable[str]) -> dict[str, str]:
    wanted = sorted(ids)
    rows = table.rows_of(wanted)
    known = np.flatnonzero(rows >= 0)
    texts = table.texts(map(int, rows[known]))
    return {wanted[int(i)]: beginning(text) for i, text in zip(known, texts, strict=True)}
