"""Losses on what the loop hands over: grades, positives, documents that are neither, comparisons.

Shapes: Q queries, D documents per group.
"""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import token_table
from raypipe.inference.truncation import LongestFirst
from raypipe.losses.base import Loss
from raypipe.losses.combination import Term, WeightedSum
from raypipe.losses.listwise import KL, InfoNCE
from raypipe.losses.pairwise import RankNet
from raypipe.losses.pointwise import BCE
from raypipe.losses.preference import MarginMSE, PairKL
from raypipe.losses.rank_based import ApproxNDCG, Lambda
from raypipe.records import GROUPS, PAIRWISE_GROUPS
from raypipe.stages.worker import _batcher
from raypipe.train.batches import Block
from raypipe.train.gradients import loss_of
from raypipe.train.group_reader import GroupReader
from raypipe.train.settings import TrainingSettings

TEMPLATE = Template((1,), (2,), (2,), None, pad_id=0, pad_type=0)
RELEVANCE = [[3, 2, 0, 0], [2, 0, 0]]


def write(folder: Path, table: pa.Table) -> Path:
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    return folder


def batch(
    folder: Path,
    loss: Loss,
    relevance: list[list[int]],
    threshold: int = 1,
    compared: list[dict[tuple[int, int], float]] | None = None,
) -> Block:
    """All groups as one block, the way a worker cuts them; the teacher prefers later documents.

    Args:
        compared: per group (first, second) to the probability of a pairwise teacher.
    """
    rows = [
        _comparisons(compared[q] if compared else {})
        | {
            "query_index": q,
            "doc_indices": range(len(grades)),
            "relevance": grades,
            "teacher_values": [float(place) for place in range(len(grades))],
            "ranks": range(1, len(grades) + 1),
        }
        for q, grades in enumerate(relevance)
    ]
    schema = GROUPS if compared is None else PAIRWISE_GROUPS
    groups = write(folder / "groups", pa.Table.from_pylist(rows, schema=schema))
    texts = write(folder / "texts", token_table([[7, 8]] * 9, 100))
    stored = types.SimpleNamespace(local=lambda: texts)
    stage = types.SimpleNamespace(
        model=None,
        config=TrainingSettings(loss=loss),
        truncation=LongestFirst(max_length=16),
        teacher_kind="score",
        positive_relevance=threshold,
        has_dropout=False,
    )
    inputs = {"query_tokens": stored, "doc_tokens": stored}
    batcher = _batcher(stage, inputs, GroupReader(groups), TEMPLATE, 1 << 20)
    (block,) = batcher.blocks([*range(len(relevance))])
    return block


def _comparisons(pairs: dict[tuple[int, int], float]) -> dict[str, list]:
    first, second = [i for i, _ in pairs], [j for _, j in pairs]
    return {"first": first, "second": second, "probabilities": [*pairs.values()]}


def weighted(*losses: Loss) -> WeightedSum:
    return WeightedSum(terms={f"t{i}": Term(loss=loss) for i, loss in enumerate(losses)})


def scores(block: Block) -> torch.Tensor:
    rng = np.random.default_rng(5)
    return torch.tensor(rng.normal(size=block.mask_QD.shape))


@pytest.mark.parametrize(
    "terms",
    [(ApproxNDCG(), Lambda()), (ApproxNDCG(), RankNet(), BCE()), (RankNet(), BCE())],
    ids=lambda terms: " + ".join(term.type for term in terms),
)
def test_every_term_sees_the_labels_that_it_would_see_alone(tmp_path, terms):
    block = batch(tmp_path / "sum", weighted(*terms), RELEVANCE)
    summed = loss_of(weighted(*terms), scores(block), block)
    alone = 0.0
    for number, term in enumerate(terms):
        own = batch(tmp_path / str(number), term, RELEVANCE)
        alone += loss_of(term, scores(own), own)
    assert float(summed) == pytest.approx(float(alone), rel=1e-6)
    binary = [[min(y, 1) for y in grades] for grades in RELEVANCE]
    plain = batch(tmp_path / "binary", weighted(*terms), binary)
    graded = any(term.graded for term in terms)
    assert (float(loss_of(weighted(*terms), scores(plain), plain)) != float(summed)) == graded


NEITHER = 1
"""The document of relevance 1 where 2 is needed: neither positive nor negative."""


def slope(loss: Loss, block: Block) -> torch.Tensor:
    at = scores(block).requires_grad_()
    loss_of(loss, at, block).backward()
    assert at.grad is not None
    return at.grad[0]


@pytest.mark.parametrize(
    "term", [BCE(), InfoNCE(), RankNet(), ApproxNDCG(), Lambda()], ids=lambda term: term.type
)
def test_a_document_that_is_neither_is_in_no_label_term(tmp_path, term):
    """It is taught by the teacher alone, and the label term is what it is without it."""
    both = weighted(term, KL())
    block = batch(tmp_path / "sum", both, [[3, 1, 0, 0]], threshold=2)
    assert block.mask_QD.all()
    taught = slope(KL(), block)
    label_slope = slope(both, block) - taught
    assert label_slope[NEITHER].abs() < 1e-7 < taught[NEITHER].abs()
    alone = slope(term, batch(tmp_path / "alone", term, [[3, 1, 0, 0]], threshold=2))
    torch.testing.assert_close(label_slope, alone, rtol=1e-4, atol=1e-6)
    assert (alone[[0, 2, 3]] != 0).all()


def test_margin_mse_pairs_positives_with_negatives(tmp_path):
    block = batch(tmp_path / "labelled", MarginMSE(), [[3, 1, 0, 0]], threshold=2)
    assert slope(MarginMSE(), block)[NEITHER] == 0
    assert (slope(MarginMSE(), block)[[0, 2, 3]] != 0).all()
    assert slope(MarginMSE(pairs="all"), block)[NEITHER] != 0


def test_comparisons_reach_the_loss(tmp_path):
    """Of each group its own, in the direction that they were made; other losses do not see them."""
    pairs: list[dict] = [{(0, 1): 0.9, (3, 2): 0.2}, {(1, 0): 0.6}]
    block = batch(tmp_path / "pairs", PairKL(), RELEVANCE, compared=pairs)
    expected = np.full((2, 4, 4), np.nan)
    expected[0, 0, 1], expected[0, 3, 2], expected[1, 1, 0] = 0.9, 0.2, 0.6
    np.testing.assert_array_equal(block.preferences_QDD, expected)
    s = scores(block)
    terms = []
    for q, compared in enumerate(pairs):
        divergences = []
        for (i, j), p in compared.items():
            preference = 1 / (1 + np.exp(float(s[q, j] - s[q, i])))
            divergences.append(
                p * np.log(p / preference) + (1 - p) * np.log((1 - p) / (1 - preference))
            )
        terms.append(np.mean(divergences))
    assert loss_of(PairKL(), s, block).item() == pytest.approx(np.mean(terms), rel=1e-5)
    plain = batch(tmp_path / "plain", KL(), RELEVANCE)
    assert plain.preferences_QDD is None
    assert loss_of(KL(), s, plain).item() == loss_of(KL(), s, block).item()
    assert loss_of(PairKL(), s, plain).item() != loss_of(PairKL(), s, block).item()
    labels = batch(tmp_path / "labels", BCE(), RELEVANCE, compared=pairs)
    assert labels.preferences_QDD is None
