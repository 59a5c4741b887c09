"""Texts that are no negatives of a query, for losses over the documents of other queries too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.datasets.steps import DOCS_FILE, QRELS_FILE, QUERIES_FILE, Collection, Queries
from raypipe.datasets.text_hashes import TextHashes, read_hashes
from raypipe.groups.joined import JoinedGroups
from raypipe.groups.training_groups import TrainingGroups
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.tables.plain_text import text_hashes
from raypipe.tables.text_table import TextTable
from raypipe.train.step_texts import StepTexts

DOC_TEXTS, KEPT_OUT = "doc_texts", "kept_out"
"""Names of a stage's inputs; those of further sets end in ` of NAME`."""
SCHEMA = pa.schema([("query_index", pa.int64()), ("text", pa.uint64())])

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class KeptOut(Step):
    """`plain_text.text_hash` of a query's documents of any relevance above 0, of its own text, and
    of the document with its id; rows ascend by query, then text."""

    queries: Queries
    collection: Collection

    kind: ClassVar[str] = "kept_out"

    @property
    def name(self) -> str:
        return self.queries.name

    def inputs(self) -> Mapping[str, Step]:
        hashes = TextHashes(self.collection)
        return {"queries": self.queries, "collection": self.collection, "hashes": hashes}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Write the texts.

        Returns:
            Counts: `queries`, `texts`, and `judged_documents_without_text`, which the collection
            does not have.
        """
        folder = attempt.inputs["queries"].local()
        queries = TextTable(folder / QUERIES_FILE)
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        hashes = read_hashes(attempt.inputs["hashes"])
        qrels = pq.read_table(folder / QRELS_FILE)
        relevant = qrels.filter(pc.greater(qrels["relevance"], 0)).combine_chunks()
        asked = queries.rows_of(relevant["query_id"])
        judged = docs.rows_of(relevant["doc_id"])
        known = (asked >= 0) & (judged >= 0)
        every = np.arange(len(queries))
        same_id = docs.rows_of(queries.ids())
        itself = same_id >= 0
        rows = np.concatenate([asked[known], every, every[itself]])
        texts = [hashes[judged[known]], text_hashes(queries.iter_texts()), hashes[same_id[itself]]]
        table = pa.table([rows, np.concatenate(texts)], schema=SCHEMA)
        table = table.group_by(["query_index", "text"]).aggregate([])
        table = table.sort_by([("query_index", "ascending"), ("text", "ascending")])
        attempt.put_table(table.cast(SCHEMA))
        missing = int(((asked >= 0) & (judged < 0)).sum())
        return {
            "queries": len(queries),
            "texts": len(table),
            "judged_documents_without_text": missing,
        }


def step_text_inputs(
    groups: TrainingGroups | JoinedGroups, further: Sequence[str]
) -> dict[str, Step]:
    """What a stage reads beside its groups where a loss is over the step.

    Args:
        further: names of the sets behind the groups' own, in order.
    """
    members = list(groups.members.values()) if isinstance(groups, JoinedGroups) else [groups]
    steps: dict[str, Step] = {}
    for ending, member in zip(["", *(f" of {name}" for name in further)], members, strict=True):
        queries, collection = member.negatives.queries, member.negatives.collection
        steps[DOC_TEXTS + ending] = TextHashes(collection)
        steps[KEPT_OUT + ending] = KeptOut(queries, collection)
    return steps


def read_step_texts(inputs: Mapping[str, Artifact]) -> StepTexts | None:
    """The texts of all sets that are trained on, rows of one behind those of the sets before it;
    None where the inputs hold none."""
    endings = [name.removeprefix(KEPT_OUT) for name in inputs if name.startswith(KEPT_OUT)]
    if not endings:
        return None
    docs, rows, texts = [], [], []
    before = 0
    for ending in endings:
        docs.append(read_hashes(inputs[DOC_TEXTS + ending]))
        kept_out = inputs[KEPT_OUT + ending]
        table = kept_out.table()
        rows.append(table["query_index"].to_numpy() + before)
        texts.append(table["text"].to_numpy())
        before += int(kept_out.counts["queries"])
    return StepTexts(np.concatenate(docs), np.concatenate(rows), np.concatenate(texts))
