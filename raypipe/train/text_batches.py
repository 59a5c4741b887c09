"""Turns groups into the inputs of a bi-encoder: the distinct texts of a block, and who meets whom.

Shapes: P texts, T pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from raypipe.inference.truncation import Pair
from raypipe.train.batches import Batcher, Block, Member, Pairing, cells
from raypipe.train.step_texts import StepTexts


@dataclass(frozen=True)
class TextBatcher(Batcher):
    """Cuts a worker's queries into blocks of texts; a text of several groups is read once a block.

    Args:
        temperature: divides the product of two vectors.
        texts: for losses over the step; None takes every document for a text of its own.
    """

    temperature: float = 1.0
    texts: StepTexts | None = None

    counts_texts: ClassVar[bool] = True

    def _read(self, row: int) -> tuple[list[Pair], list[int]]:
        """The query and its documents, each with nothing beside it; one per pair is counted."""
        query, docs, *_ = self.groups[row]
        special, nothing = self.template.n_special, np.empty(0, dtype=np.int64)
        query_ids = self.query_tokens[query]
        texts = [(query_ids[: self.truncation.passages(len(query_ids), 0, special)[0][0]], nothing)]
        for doc in docs:
            ids = self.doc_tokens[int(doc)]
            texts.append((ids[: self.truncation.passages(0, len(ids), special)[0][2]], nothing))
        return texts, [1] * len(docs)

    def _block(self, members: list[Member]) -> Block:
        places: dict[tuple[str, int], int] = {}
        distinct: list[Pair] = []
        paired: list[tuple[int, int]] = []
        for texts, _, row in members:
            query, docs, *_ = self.groups[row]
            keys = [("query", query), *(("document", int(doc)) for doc in docs)]
            for key, text in zip(keys, texts, strict=True):
                if places.setdefault(key, len(distinct)) == len(distinct):
                    distinct.append(text)
            paired += [(places[keys[0]], places[key]) for key in keys[1:]]
        query_T, doc_T = np.array(paired, dtype=np.int64).T
        groups = [self.groups[row] for *_, row in members]
        queries = [query for query, *_ in groups]
        rows_T = np.concatenate([docs for _, docs, *_ in groups])
        texts_T, nothing = rows_T.astype(np.uint64), np.empty(0, dtype=np.int64)
        kept_out = nothing, nothing.astype(np.uint64)
        if self.texts is not None:
            texts_T, kept_out = self.texts.doc_texts[rows_T], self.texts.kept_out(queries)
        pairing = Pairing(
            query_T,
            doc_T,
            rows_T,
            texts_T,
            self.targets.values(np.concatenate([teacher for *_, teacher in groups])),
            np.array(queries, dtype=np.int64),
            kept_out,
            self.temperature,
        )
        block = self._computed(members, distinct, cells([1] * len(distinct)))
        return replace(block, pairing=pairing)
