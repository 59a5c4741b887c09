"""Turns groups into model inputs: the groups of every step, and the blocks that are computed.

Shapes: Q queries, D documents per group (padded), T pairs, P passages (one per pair, or more).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from raypipe.inference.pairs import Template, length_batches
from raypipe.inference.token_reader import TokenReader
from raypipe.inference.truncation import Pair, Reading, expand
from raypipe.train.group_reader import GroupReader

Array = np.ndarray[Any, Any]


class QueryOrder:
    """Says which groups every step takes: a function of seed and position only.

    Each epoch is one permutation; steps run across epoch ends, so every step has the same number
    of queries and every worker the same number of steps.
    """

    def __init__(self, groups: int, queries_per_step: int, seed: int) -> None:
        self._groups = groups
        self._per_step = queries_per_step
        self._seed = seed
        self._epoch = -1
        self._permutation: Array = np.empty(0, dtype=np.int64)

    def rows(self, step: int) -> list[int]:
        """Rows of the whole step's groups; worker r of w takes rows[r::w]."""
        start = step * self._per_step
        return [self._row(position) for position in range(start, start + self._per_step)]

    def _row(self, position: int) -> int:
        epoch, within = divmod(position, self._groups)
        if epoch != self._epoch:
            self._epoch = epoch
            rng = np.random.default_rng([self._seed, epoch])
            self._permutation = rng.permutation(self._groups)
        return int(self._permutation[within])


@dataclass(frozen=True)
class Pairing:
    """Which of a block's texts are the query and the document of each pair, for vectors."""

    query_T: Array
    """Positions among the P texts."""
    doc_T: Array
    doc_rows_T: Array
    """Rows of the collection."""
    doc_texts_T: Array
    """uint64, equal for documents of one text."""
    values_T: Array
    """The teacher's, higher is better; not finite where it has none."""
    query_rows_Q: Array
    """Of each group's query."""
    kept_out: tuple[Array, Array]
    """(group, text that is no negative of its query) beside what the groups say."""
    temperature: float
    """Divides the product of the two vectors."""


@dataclass(frozen=True)
class Block:
    """Whole groups whose activations live at the same time."""

    batches: list[tuple[Array, dict[str, Array]]]
    """Positions among the P passages, and model inputs of similar length."""
    cells_P: tuple[Array, Array]
    """Row and column of every passage in the [T, passages] matrix whose row maxima are the scores
    of the pairs; a pair's first passage stands in column 0."""
    cells_T: tuple[Array, Array]
    """Row and column of every pair in the [Q, D] score matrix."""
    targets_QD: Array
    mask_QD: Array
    labels_QD: Array
    """Float: the relevance grade of a positive, 0 of a negative, NaN of what is neither."""
    preferences_QDD: Array | None
    """Probability that i is better than j at [q, i, j], NaN where they were not compared; None
    without a pairwise teacher."""
    tokens: int
    """Real tokens of all passages, without padding."""
    pairing: Pairing | None = None
    """For a bi-encoder, whose P passages are the distinct texts of the block, queries among them;
    its score of a pair is made of two of them."""
    weights_Q: Array | None = None
    """How much each group counts; None where all count alike."""

    @property
    def queries(self) -> int:
        return int(self.mask_QD.shape[0])

    @property
    def pairs(self) -> int:
        """Query-document pairs; a document is one, however many passages are read of it."""
        return len(self.cells_T[0])

    @property
    def passages(self) -> int:
        return len(self.cells_P[0])


@dataclass(frozen=True)
class Targets:
    """Turns labels and teacher values into the targets that a loss fits."""

    uses: Literal["labels", "teacher"]
    teacher_kind: Literal["score", "rank"]
    positive_relevance: int
    graded: bool = False
    """Labels keep their grades, for objectives with gains."""

    def of(self, relevance_D: Array, teacher_D: Array) -> tuple[Array, Array]:
        """(targets, which are usable); higher is better, so a rank teacher's ranks are negated."""
        if self.uses == "teacher":
            return self.values(teacher_D), np.isfinite(teacher_D)
        labels = self.labels(relevance_D)
        fitted = np.nan_to_num(labels) if self.graded else (labels > 0).astype(np.float64)
        return fitted, ~np.isnan(labels)

    def values(self, teacher_D: Array) -> Array:
        """The teacher's values, higher is better; not finite where there is none."""
        return -teacher_D if self.teacher_kind == "rank" else teacher_D

    def labels(self, relevance_D: Array) -> Array:
        """Float64: the grade of a positive, 0 of a negative, NaN in 0 < relevance < threshold."""
        positive = relevance_D >= self.positive_relevance
        return np.where(positive, relevance_D, np.where(relevance_D <= 0, 0.0, np.nan))


Member = tuple[list[Pair], list[int], int]
"""A group in a block: its passages, how many each of its pairs has, and its row."""


@dataclass(frozen=True)
class Batcher:
    """Cuts a worker's queries into blocks and length-sorted batches.

    Args:
        budget: padded tokens alive at a time. A block of whole groups fills it; inside, passages of
            similar length share a batch of at most a quarter, because padding is 35 % of the tokens
            of unsorted batches.
        drawn: dropout draws per batch, so that the batches decide the weights and never change.
    """

    groups: GroupReader
    query_tokens: TokenReader
    doc_tokens: TokenReader
    template: Template
    truncation: Reading
    targets: Targets
    budget: int
    drawn: bool = False

    counts_texts: ClassVar[bool] = False
    """Whether the model reads texts, of which a block has fewer than two per pair."""

    def blocks(self, rows: list[int]) -> Iterator[Block]:
        """Blocks in order; a group larger than the budget is a block of its own."""
        members: list[Member] = []
        tokens = 0
        for row in rows:
            passages, counts = self._read(row)
            size = sum(self._length(passage) for passage in passages)
            if members and tokens + size > self.budget:
                yield self._block(members)
                members, tokens = [], 0
            members.append((passages, counts, row))
            tokens += size
        if members:
            yield self._block(members)

    def _read(self, row: int) -> tuple[list[Pair], list[int]]:
        query, docs, *_ = self.groups[row]
        query_ids = self.query_tokens[query]
        pairs = [(query_ids, self.doc_tokens[int(doc)]) for doc in docs]
        return expand(pairs, self.truncation, self.template.n_special)

    def _length(self, passage: Pair) -> int:
        return len(passage[0]) + len(passage[1]) + self.template.n_special

    def _block(self, members: list[Member]) -> Block:
        flat = [passage for passages, *_ in members for passage in passages]
        return self._computed(members, flat, cells([n for _, counts, _ in members for n in counts]))

    def _computed(
        self, members: list[Member], flat: list[Pair], cells_P: tuple[Array, Array]
    ) -> Block:
        """The block of these groups.

        Args:
            flat: the passages that the model reads.
        """
        rows, sizes = [row for *_, row in members], [len(counts) for _, counts, _ in members]
        lengths = [self._length(passage) for passage in flat]
        batches = [
            (chosen, self.template.pad([flat[i] for i in chosen]))
            for chosen in length_batches(lengths, max(self.budget // 4, 1))
        ]
        return Block(
            batches,
            cells_P,
            cells(sizes),
            *self._fitted(rows, max(sizes)),
            self._preferences(rows, max(sizes)),
            sum(lengths),
            weights_Q=self.groups.weights(rows),
        )

    def _fitted(self, rows: list[int], depth: int) -> tuple[Array, Array, Array]:
        """Targets, mask and labels, each [Q, D]."""
        shape = (len(rows), depth)
        targets, mask = np.zeros(shape), np.zeros(shape, dtype=bool)
        labels = np.full(shape, np.nan)
        for number, row in enumerate(rows):
            _, _, relevance, teacher = self.groups[row]
            values, usable = self.targets.of(relevance, teacher)
            targets[number, : len(values)] = values
            mask[number, : len(values)] = usable
            labels[number, : len(values)] = self.targets.labels(relevance)
        return targets, mask, labels

    def _preferences(self, rows: list[int], depth: int) -> Array | None:
        if self.groups.compared is None or self.targets.uses == "labels":
            return None
        preferences = np.full((len(rows), depth, depth), np.nan)
        for number, row in enumerate(rows):
            first, second, probabilities = self.groups.comparisons(row)
            preferences[number, first, second] = probabilities
        return preferences


def cells(sizes: list[int]) -> tuple[Array, Array]:
    """Row and column of every member, where row i of a ragged matrix has sizes[i] members."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
