"""Terms of a loss over a whole step: each query against the documents of all queries.

Shapes: Q queries and D distinct documents of the step over all workers, P texts of a block, T pairs
of a query with a document of its group, E entries of a sparse [Q, D] matrix, H numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from raypipe.losses.combination import StepTerm
from raypipe.losses.listwise import InfoNCE
from raypipe.train.batches import Block, cells
from raypipe.train.parallel import gathered, gathered_rows, rank_and_world

Array = np.ndarray[Any, Any]

CELLS = 2**23
"""Scores of the [Q, D] matrix that are computed at a time: 32 MB, and some more such matrices."""


class StepLosses(NamedTuple):
    """What `step_losses` gives."""

    all_Q: Tensor
    """The losses of all queries of the step."""
    own_Q: Tensor
    """Those of this worker's queries among them."""
    masked: int
    """Documents that are neither positives nor negatives, over this worker's queries and all
    infonce terms."""


@dataclass(frozen=True)
class _Share:
    """One worker's part of a step, or all of them one after the other."""

    queries_QH: Tensor
    docs_DH: Tensor
    doc_rows_D: Array
    """Rows of the collection."""
    doc_texts_D: Array
    """uint64, equal for documents of one text."""
    query_rows_Q: Array
    """A query with several groups stands there several times."""
    weights_Q: Array
    """How much each query counts."""
    place_T: Array
    """Of a pair's query among the Q."""
    rows_T: Array
    texts_T: Array
    labels_T: Array
    values_T: Array
    """The teacher's, not finite where it has none."""
    out_places: Array
    """Of queries among the Q, one for each of `out_texts`."""
    out_texts: Array
    """What is no negative of that query."""


@dataclass(frozen=True)
class _Targets:
    """What a term fits, [Q, D], of which most places hold one value; NaN is not read."""

    query_E: Array
    """Ascending."""
    column_E: Array
    value_E: Array
    default: float
    documents: int

    @classmethod
    def of(
        cls, query: Array, column: Array, value: Array, default: float, documents: int
    ) -> _Targets:
        """From entries in any order; of several in one place the last one counts."""
        places = query * documents + column
        _, back = np.unique(places[::-1], return_index=True)
        last = len(places) - 1 - back
        return cls(query[last], column[last], value[last], default, documents)

    def dense(self, start: int, stop: int, device: torch.device) -> Tensor:
        """The rows from `start` to `stop`."""
        part = slice(*np.searchsorted(self.query_E, [start, stop]))
        entries = (self.query_E[part] - start, self.column_E[part], self.value_E[part])
        rows, columns, values = (torch.from_numpy(column).to(device) for column in entries)
        targets_QD = torch.full(
            (stop - start, self.documents), self.default, dtype=values.dtype, device=device
        )
        targets_QD[rows, columns] = values
        return targets_QD

    def masked(self, start: int, stop: int) -> int:
        """Entries of the rows from `start` to `stop` that are not read."""
        part = slice(*np.searchsorted(self.query_E, [start, stop]))
        return int(np.isnan(self.value_E[part]).sum())


def step_losses(
    terms: Sequence[StepTerm], blocks: Sequence[Block], vectors: Sequence[Tensor]
) -> StepLosses:
    """The losses of all queries of the step. All workers call this.

    Every worker holds all vectors and computes every query's loss in float32, some queries at a
    time; a gradient flows to the vectors of its own texts alone, whoever's query it comes from. A
    document that several workers or blocks have counts once, by the first one's vector.

    Each term has targets and a mask of its own. infonce: 1 for the query's positives in its group,
    0 for all other documents; not read is what the query's groups or its judgements say is
    relevant, what they call neither, what is above `own_share`, and all copies of these. kl: the
    teacher's value where it has one for the query.

    Args:
        blocks: of this worker, with a pairing.
        vectors: [P, H] of every block.

    Raises:
        FloatingPointError: a vector has NaN or infinite numbers.
        ValueError: the step has one distinct document.
    """
    own = _share(blocks, vectors)
    rank, _ = rank_and_world()
    nothing = torch.empty(0)
    sent = gathered(replace(own, queries_QH=nothing, docs_DH=nothing))
    vectors_of = zip(gathered_rows(own.queries_QH), gathered_rows(own.docs_DH), strict=True)
    shares: list[_Share] = [
        replace(share, queries_QH=queries_QH, docs_DH=docs_DH)
        for share, (queries_QH, docs_DH) in zip(sent, vectors_of, strict=True)
    ]
    starts = np.cumsum([0, *(len(share.query_rows_Q) for share in shares)])
    _check_finite(shares)
    shares[rank] = own
    step = _joined(shares, starts, own.queries_QH.device)
    targets = [_fitted(term, step) for term in terms]
    assert blocks[0].pairing is not None, "vectors are paired"
    temperature = blocks[0].pairing.temperature

    def losses_of(queries_QH: Tensor, docs_DH: Tensor, start: int) -> Tensor:
        scores_QD = queries_QH @ docs_DH.T / temperature
        losses_Q = torch.zeros(len(scores_QD), device=scores_QD.device)
        for term, fitted in zip(terms, targets, strict=True):
            targets_QD = fitted.dense(start, start + len(scores_QD), scores_QD.device)
            value_Q = term.loss.each(scores_QD, targets_QD, ~targets_QD.isnan())
            losses_Q = losses_Q + term.weight * value_Q
        return losses_Q

    parts, at_a_time = [], max(CELLS // len(step.docs_DH), 1)
    for start in range(0, len(step.queries_QH), at_a_time):
        given = (step.queries_QH[start : start + at_a_time], step.docs_DH, start)
        if at_a_time >= len(step.queries_QH):
            parts.append(losses_of(*given))
        else:  # the backward pass computes the scores again
            kept = checkpoint(losses_of, *given, use_reentrant=False, preserve_rng_state=False)
            parts.append(kept)
    losses_Q = torch.cat(parts)
    losses_Q = losses_Q * torch.from_numpy(step.weights_Q).to(losses_Q)
    mine = (int(starts[rank]), int(starts[rank + 1]))
    contrastive = [t for term, t in zip(terms, targets, strict=True) if _contrasts(term)]
    masked = sum(fitted.masked(*mine) for fitted in contrastive)
    return StepLosses(losses_Q, losses_Q[slice(*mine)], masked)


def _share(blocks: Sequence[Block], vectors: Sequence[Tensor]) -> _Share:
    parts = []
    for block, vectors_PH in zip(blocks, vectors, strict=True):
        pairing = block.pairing
        assert pairing is not None, "vectors are paired"
        places_T, columns_T = block.cells_T
        firsts = np.flatnonzero(columns_T == 0)  # each group's first pair
        distinct = _firsts(pairing.doc_rows_T)
        weights = np.ones(block.queries) if block.weights_Q is None else block.weights_Q
        parts.append(
            _Share(
                queries_QH=vectors_PH[torch.from_numpy(pairing.query_T[firsts])],
                docs_DH=vectors_PH[torch.from_numpy(pairing.doc_T[distinct])],
                doc_rows_D=pairing.doc_rows_T[distinct],
                doc_texts_D=pairing.doc_texts_T[distinct],
                query_rows_Q=pairing.query_rows_Q,
                weights_Q=np.asarray(weights, dtype=float),
                place_T=places_T,
                rows_T=pairing.doc_rows_T,
                texts_T=pairing.doc_texts_T,
                labels_T=block.labels_QD[places_T, columns_T],
                values_T=pairing.values_T,
                out_places=pairing.kept_out[0],
                out_texts=pairing.kept_out[1],
            )
        )
    starts = np.cumsum([0, *(block.queries for block in blocks)])
    return _joined(parts, starts, vectors[0].device)


def _joined(shares: Sequence[_Share], starts: Array, device: torch.device) -> _Share:
    """All parts as one, with every document once.

    Args:
        starts: the first query's place of every part.
    """

    def column(name: str) -> Array:
        return np.concatenate([getattr(share, name) for share in shares])

    def places(name: str) -> Array:
        pairs = zip(shares, starts, strict=False)
        return np.concatenate([getattr(share, name) + start for share, start in pairs])

    rows = column("doc_rows_D")
    distinct = _firsts(rows)
    docs = torch.cat([share.docs_DH.to(device) for share in shares])
    return _Share(
        queries_QH=torch.cat([share.queries_QH.to(device) for share in shares]),
        docs_DH=docs[torch.from_numpy(distinct)],
        doc_rows_D=rows[distinct],
        doc_texts_D=column("doc_texts_D")[distinct],
        place_T=places("place_T"),
        out_places=places("out_places"),
        **{
            name: column(name)
            for name in ("query_rows_Q", "weights_Q", "rows_T", "texts_T", "labels_T", "values_T")
        },
        out_texts=column("out_texts"),
    )


def _firsts(values: Array) -> Array:
    """Where each distinct value stands for the first time, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])


def _check_finite(shares: Sequence[_Share]) -> None:
    vectors = [v for share in shares for v in (share.queries_QH, share.docs_DH)]
    texts = sum(map(len, vectors))
    bad = sum(int((~torch.isfinite(v).all(1)).sum()) for v in vectors)
    if bad:
        raise FloatingPointError(
            f"the vectors of {bad:,} of the step's {texts:,} texts are not finite: lower lr, raise "
            "warmup, or use precision=fp32; the last checkpoint is unharmed"
        )
    documents = {int(row) for share in shares for row in share.doc_rows_D[:2]}
    if len(documents) < 2:
        raise ValueError(
            "over=step: the queries of the step have one document together, which nothing is "
            "compared with; raise queries_per_step, or take groups with negatives"
        )


def _contrasts(term: StepTerm) -> bool:
    return isinstance(term.loss, InfoNCE)


def _fitted(term: StepTerm, step: _Share) -> _Targets:
    if isinstance(term.loss, InfoNCE):
        return _contrastive(term.loss, step)
    query_E, pair_E = _pairs_of_queries(step)
    known = np.isfinite(step.values_T[pair_E])
    query_E, pair_E = query_E[known], pair_E[known]
    columns_E, values_E = _columns(step)[pair_E], step.values_T[pair_E]
    return _Targets.of(query_E, columns_E, values_E, np.nan, len(step.doc_rows_D))


def _contrastive(loss: InfoNCE, step: _Share) -> _Targets:
    """1 for positives, NaN for what is no negative, else 0."""
    positive_T = step.labels_T > 0 if loss.positive == "judged" else _teachers_first(step)
    query_E, pair_E = _pairs_of_queries(step)
    out_E = (positive_T | (step.labels_T != 0))[pair_E]  # NaN, what is neither, among them
    if loss.own_share is not None:
        values_E = step.values_T[pair_E]
        known = np.isfinite(values_E)
        highest_Q = np.full(len(step.query_rows_Q), -np.inf)
        np.maximum.at(highest_Q, query_E[known], values_E[known])
        out_E |= known & (values_E > loss.own_share * highest_Q[query_E])
    query, column = _documents_with(
        step,
        np.concatenate([query_E[out_E], step.out_places]),
        np.concatenate([step.texts_T[pair_E[out_E]], step.out_texts]),
    )
    positives = (step.place_T[positive_T], _columns(step)[positive_T])
    values = np.repeat(np.array([np.nan, 1.0], dtype=np.float32), [len(query), len(positives[0])])
    return _Targets.of(
        np.concatenate([query, positives[0]]),
        np.concatenate([column, positives[1]]),
        values,
        0.0,
        len(step.doc_rows_D),
    )


def _teachers_first(step: _Share) -> Array:
    """[T] whether a pair has the teacher's highest value of its group; of equal ones the first."""
    known = np.flatnonzero(np.isfinite(step.values_T))
    order = known[np.lexsort((known, -step.values_T[known], step.place_T[known]))]
    first_T = np.zeros(len(step.values_T), dtype=bool)
    first_T[order[np.unique(step.place_T[order], return_index=True)[1]]] = True
    return first_T


def _columns(step: _Share) -> Array:
    """[T] the place of a pair's document among the D."""
    order = np.argsort(step.doc_rows_D)
    return order[np.searchsorted(step.doc_rows_D, step.rows_T, sorter=order)]


def _pairs_of_queries(step: _Share) -> tuple[Array, Array]:
    """(place among the Q, pair): for each group of a query the pairs of all its groups."""
    _, number_Q, often = np.unique(step.query_rows_Q, return_inverse=True, return_counts=True)
    by_number = np.argsort(number_Q, kind="stable")
    starts = np.cumsum([0, *often[:-1]])
    number_T = number_Q[step.place_T]
    pair_E, within_E = cells(often[number_T].tolist())
    return by_number[starts[number_T[pair_E]] + within_E], pair_E


def _documents_with(step: _Share, places: Array, texts: Array) -> tuple[Array, Array]:
    """(place among the Q, column) of all documents that have the text beside that place."""
    order = np.argsort(step.doc_texts_D, kind="stable")
    in_order = step.doc_texts_D[order]
    starts, ends = (np.searchsorted(in_order, texts, side) for side in ("left", "right"))
    which, within = cells((ends - starts).tolist())
    return places[which], order[starts[which] + within]
