"""Drawing the passages that queries are written for: by seed, without copies, in splits.

A passage is a document less its title; titles stand beside it. The splits are disjoint by passage,
so that no query of one split asks for a passage of another.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.steps import DOCS_FILE, QRELS_FILE, Collection, Queries
from raypipe.storage.artifacts import Artifact, Attempt, Step
from raypipe.storage.parts import part_name
from raypipe.synthesis.contained import SHORTEST, contained, plain_form
from raypipe.tables.text_table import TextTable

Split = Literal["train", "validation", "test"]
DRAWN = pa.schema([("doc_id", pa.string()), ("split", pa.string()), ("title", pa.string())])
"""One row per passage that queries are written for, in the order drawn; `title` may be empty."""
LEFT_OUT_FILE = "left-out.parquet"
"""(doc_id, reason) of every document that leaves the lists of training queries: `held_out`, `copy`
of what another document contains, or `too_short`."""
LEFT_OUT = pa.schema([("doc_id", pa.string()), ("reason", pa.string())])
BATCH = 4096


@dataclass(frozen=True)
class Passages(Step):
    """The passages of a collection that queries are written for."""

    collection: Collection
    count: int | None
    """For training and validation together; None takes all."""
    validation_share: float
    held_out: int
    """Passages of the split `test`, the first that are drawn."""
    judged: Queries | None
    """Queries whose judged documents are held out."""
    seed: int

    kind: ClassVar[str] = "passages"

    @property
    def name(self) -> str:
        return self.collection.name

    def spec(self) -> Mapping[str, Any]:
        names = ("count", "validation_share", "held_out", "seed")
        return {name: getattr(self, name) for name in names}

    def inputs(self) -> Mapping[str, Step]:
        judged = {} if self.judged is None else {"judged": self.judged}
        return {"collection": self.collection, **judged}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        docs = TextTable(attempt.inputs["collection"].local() / DOCS_FILE)
        titles = titles_of(self.collection.queries.open(), docs)
        counts: Counter[str] = Counter(documents=len(docs))
        forms = [plain_form(body_of(text, titles.get(row, "")))
                 for row, text in enumerate(docs.iter_texts())]  # fmt: skip
        left_out = _copies(forms)
        del forms
        ids = docs.ids().to_pylist()
        if self.judged is not None:
            qrels = pq.read_table(attempt.inputs["judged"].local() / QRELS_FILE)
            judged = docs.rows_of(pc.unique(qrels["doc_id"]).to_pylist())
            left_out |= {int(row): "held_out" for row in judged if row >= 0}
        counts.update(f"documents_left_out_{reason}" for reason in left_out.values())
        order = drawn_order([d for row, d in enumerate(ids) if row not in left_out], self.seed)
        splits = self.split(order, counts)
        row_of = dict(zip(ids, range(len(ids)), strict=True))
        named = [titles.get(row_of[doc_id], "") for doc_id in splits]
        table = pa.table([list(splits), list(splits.values()), named], schema=DRAWN)
        attempt.put_table(table, part_name(0))
        left_out |= {row_of[d]: "held_out" for d, split in splits.items() if split == "test"}
        counts["documents_left_out_held_out"] += self.held_out
        gone = sorted(left_out)
        reasons = [left_out[row] for row in gone]
        attempt.put_table(pa.table([[ids[row] for row in gone], reasons], schema=LEFT_OUT),
                          LEFT_OUT_FILE)  # fmt: skip
        return counts

    def split(self, order: Sequence[str], counts: Counter[str]) -> dict[str, Split]:
        """The split of every passage that is drawn, in the order drawn.

        Args:
            order: ids of all passages that may be drawn.

        Raises:
            ConfigError: there are too few for two passages beside those held out.
        """
        asked = len(order) - self.held_out if self.count is None else self.count
        drawn = order[self.held_out : self.held_out + max(asked, 0)]
        if len(drawn) < 2:
            raise ConfigError(
                f"passages of {self.name}: expected at least 2 beside the {self.held_out} that "
                f"hold_out takes, found {len(order)} that may be drawn; {dict(counts)}; lower "
                "hold_out, or name a larger corpus"
            )
        least = int(self.validation_share > 0)
        chosen = min(max(round(self.validation_share * len(drawn)), least), len(drawn) - 1)
        counts["passages_missing"] = asked - len(drawn)
        splits: dict[str, Split] = dict.fromkeys(order[: self.held_out], "test")
        splits |= dict.fromkeys(drawn[:chosen], "validation")
        splits |= dict.fromkeys(drawn[chosen:], "train")
        counts.update(f"passages_{split}" for split in splits.values())
        return splits


def _copies(forms: Sequence[str]) -> dict[int, str]:
    """Rows of documents that say nothing, or that another one contains, with the reason."""
    long = [row for row, form in enumerate(forms) if len(form) >= SHORTEST]
    short = set(range(len(forms))) - set(long)
    copies = contained([forms[row] for row in long])
    return dict.fromkeys(short, "too_short") | {long[at]: "copy" for at in copies}


def drawn_order(doc_ids: Iterable[str], seed: int) -> list[str]:
    """The ids in an order that the seed and each id decide: a larger draw only adds at its end."""
    return sorted(doc_ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def titles_of(dataset: Dataset, docs: TextTable) -> dict[int, str]:
    """By row, the titles of documents whose text begins with one and goes on."""
    titles: dict[int, str] = {}
    waiting = iter(dataset.titles())
    while batch := list(islice(waiting, BATCH)):
        rows = docs.rows_of([doc_id for doc_id, _ in batch])
        for row, (_, title) in zip(rows, batch, strict=True):
            if row >= 0 and row not in titles and body_of(docs.text(int(row)), title):
                titles[int(row)] = title
    return titles


def body_of(text: str, title: str) -> str:
    """A document's text without its title; the whole text where it does not begin with it."""
    return text[len(title) :].strip() if text.startswith(title) else text


def read_passages(artifact: Artifact) -> pa.Table:
    """`DRAWN` rows of a `Passages` artifact."""
    return pq.read_table(artifact.local() / part_name(0))


def read_left_out(artifact: Artifact) -> set[str]:
    """Ids of the documents that leave the lists of training queries."""
    table = pq.read_table(artifact.local() / LEFT_OUT_FILE)
    return set(table["doc_id"].to_pylist())
