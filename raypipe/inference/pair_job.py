"""A trained model over lists of candidates: what re-ranking and a cross-encoder teacher share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.inference.known_scores import EarlierScores, KnownScores
from raypipe.inference.lists import ListReader, ScoreList
from raypipe.inference.scoring import ready_to_score
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import Reading
from raypipe.inference.vector_pairs import pair_scorer, template_of
from raypipe.models.any_model import AnyModel
from raypipe.storage.artifacts import Artifact
from raypipe.tables.chunks import TAKEN, Counts
from raypipe.tables.text_table import TextTable

Array = np.ndarray[Any, Any]
Scored = list[tuple[ScoreList, Array]]
"""Lists with a float32 score per document."""


@dataclass(frozen=True)
class PairJob:
    """Scores lists on an actor; a subclass adds `build`, which writes scores in its own form."""

    inputs: dict[str, Artifact]
    """The inputs of `Lists`, with weights, query_tokens and doc_tokens."""
    model: AnyModel
    truncation: Reading
    depth: int
    precision: str
    budget: int
    device: str
    label: int | None = None
    """Of a head with several outputs, the one that is the score."""
    earlier: tuple[EarlierScores, ...] = ()
    """The same model's scores of other lists: a pair of the same texts is not scored again."""

    def open(self) -> Callable[[range], tuple[Scored, Counts]]:
        """Load the model; the result scores rows of the candidates and counts pairs."""
        folder = self.inputs["weights"].local()
        lists = ListReader(self.inputs, self.depth)
        query_tokens = TokenReader(self.inputs["query_tokens"].local())
        doc_tokens = TokenReader(self.inputs["doc_tokens"].local())
        score = pair_scorer(
            self.model,
            ready_to_score(
                self.model.load(folder, 0, training=False, device=self.device, label=self.label),
                self.device,
                self.precision,
            ),
            template_of(self.model, folder),
            self.truncation,
            self.budget,
            self.precision,
            self.device,
        )

        known = self._known()

        def scored(chunk: range) -> tuple[Scored, Counts]:
            part = lists.read(chunk)
            pairs = [
                (query_tokens[listed.query_index], doc_tokens[int(d)])
                for listed in part
                for d in listed.doc_indices
            ]
            ends = np.cumsum([len(listed.doc_ids) for listed in part])[:-1]
            scores = known(part)
            new = np.flatnonzero(np.isnan(scores))
            scores[new] = score([pairs[i] for i in new])
            counts = score.counts(pairs)
            if self.earlier:
                counts[f"pairs{TAKEN}"] = len(pairs) - len(new)
            return list(zip(part, np.split(scores, ends), strict=True)), counts

        return scored

    def _known(self) -> Callable[[Sequence[ScoreList]], Array]:
        """Gives the float32 scores of all documents of some lists, NaN where they are unknown."""
        if not self.earlier:
            return lambda part: np.full(sum(len(x.doc_ids) for x in part), np.nan, np.float32)
        earlier = KnownScores(self.earlier)
        docs = TextTable(self.inputs["collection"].local() / DOCS_FILE)
        queries = TextTable(self.inputs["queries"].local() / QUERIES_FILE)

        def known(part: Sequence[ScoreList]) -> Array:
            by_text = earlier.of([queries.text(listed.query_index) for listed in part])
            return np.array(
                [
                    scores.get(docs.text(int(d)), np.nan) if scores else np.nan
                    for listed, scores in zip(part, by_text, strict=True)
                    for d in listed.doc_indices
                ],
                np.float32,
            )

        return known
