"""What each term over the step reads: by hand, query by query, with copies and unlike masks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import batcher_of
from tiny_training import write_data

from raypipe.losses.combination import StepTerm
from raypipe.losses.listwise import KL, InfoNCE
from raypipe.train import step_terms
from raypipe.train.batches import Targets
from raypipe.train.step_terms import step_losses
from raypipe.train.step_texts import StepTexts

NONE = math.nan
GROUPS = [
    # query, documents, relevance (2 is positive, 1 neither), the teacher's values
    (0, [0, 60, 3], [2, 0, 0], [1.0, 0.7, 0.2]),
    (1, [1, 61, 5, 7], [2, 0, 0, 0], [0.4, 0.9, NONE, 0.5]),
    (0, [2, 9], [2, 0], [0.8, 0.1]),  # the first query's second group
    (2, [60, 4, 11, 12], [2, 1, 0, 0], [0.6, 0.6, 0.3, 0.1]),
    (3, [13, 14], [2, 0], [NONE, NONE]),
]
COPIES = {11: 0, 12: 61, 5: 9}
"""A document, and the one whose text it has."""
JUDGED = {1: [4]}
"""What is relevant for a query by its judgements, and in none of its groups."""
LOSSES = {
    "judged": InfoNCE(over="step", temperature=0.5),
    "teacher": InfoNCE(over="step", positive="teacher_top"),
    "share": InfoNCE(over="step", own_share=0.6, temperature=2.0),
    "teacher, share": InfoNCE(over="step", positive="teacher_top", own_share=0.5),
    "kl": KL(over="step", teacher_temperature=0.3, temperature=0.5),
}


@dataclass(frozen=True)
class Few:
    """A reader of a few groups."""

    groups: list
    compared: None = None

    def __getitem__(self, row: int):
        query, docs, relevance, teacher = self.groups[row]
        return query, np.array(docs), np.array(relevance), np.array(teacher)

    def weights(self, rows) -> None:
        return None


def texts() -> StepTexts:
    numbers = np.arange(1000, 1120, dtype=np.uint64)
    for copy, original in COPIES.items():
        numbers[copy] = numbers[original]
    kept = [(query, numbers[doc]) for query, docs in JUDGED.items() for doc in docs]
    queries, out = zip(*kept, strict=True)
    return StepTexts(numbers, np.array(queries), np.array(out, dtype=np.uint64))


@pytest.fixture(scope="module")
def batcher(tmp_path_factory, beir_folder, tiny_backbone):
    folder: Path = write_data(tmp_path_factory.mktemp("groups"), beir_folder, tiny_backbone)
    made = batcher_of(folder, tiny_backbone, 100_000)
    targets = Targets("labels", "score", 2)
    # scores of -1 to 1: in the softmax of -20 to 20 a few documents would decide
    return replace(made, groups=Few(GROUPS), texts=texts(), targets=targets, temperature=1.0)


def vectors_of(blocks, seed: int = 0) -> list[torch.Tensor]:
    """Unit vectors by chance, one for every text of a query or a document."""
    rng = np.random.default_rng(seed)
    drawn = {kind: rng.normal(size=(120, 6)) for kind in ("query", "doc")}
    found = []
    for block in blocks:
        pairing, places = block.pairing, block.cells_T[0]
        vectors = np.zeros((block.passages, 6))
        vectors[pairing.query_T] = drawn["query"][pairing.query_rows_Q[places]]
        vectors[pairing.doc_T] = drawn["doc"][pairing.doc_rows_T]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        found.append(torch.tensor(vectors, dtype=torch.float32, requires_grad=True))
    return found


def by_hand(loss, scores) -> tuple[list[float], int]:
    """(loss of every group, documents masked), in plain loops.

    Args:
        scores: of a query with a document.
    """
    same = lambda doc: COPIES.get(doc, doc)  # noqa: E731
    docs = sorted({doc for _, own, *_ in GROUPS for doc in own})
    losses, masked = [], 0
    for query, own, relevance, teacher in GROUPS:
        mine = [group for group in GROUPS if group[0] == query]
        value = {d: v for _, ds, _, vs in mine for d, v in zip(ds, vs, strict=True) if v == v}
        if isinstance(loss, KL):
            losses.append(divergence(loss, value, lambda d, q=query: scores(q, d)))
            continue
        positives = [d for d, grade in zip(own, relevance, strict=True) if grade == 2]
        known = [v for v in teacher if v == v]
        if loss.positive == "teacher_top":
            positives = own[teacher.index(max(known)) :][:1] if known else []
        out = {same(d) for _, ds, grades, _ in mine for d, g in zip(ds, grades, strict=True) if g}
        out |= {same(d) for d in JUDGED.get(query, [])}
        if loss.positive == "teacher_top":
            out |= {same(ds[vs.index(max(vs))]) for _, ds, _, vs in mine if max(vs) == max(vs)}
            out |= {same(d) for d in positives}
        if loss.own_share is not None and value:
            out |= {same(d) for d, v in value.items() if v > loss.own_share * max(value.values())}
        negatives = [d for d in docs if same(d) not in out]
        masked += len(docs) - len(negatives) - len(positives)
        e = {d: math.exp(scores(query, d) / loss.temperature) for d in docs}
        rest = sum(e[d] for d in negatives)
        parts = [-math.log(e[p] / (e[p] + rest)) for p in positives]
        losses.append(sum(parts) / len(parts) if parts else 0.0)
    return losses, masked


def divergence(loss, value: dict[int, float], score) -> float:
    p = {d: math.exp(v / loss.teacher_temperature) for d, v in value.items()}
    q = {d: math.exp(score(d) / loss.temperature) for d in value}
    of_p, of_q = sum(p.values()), sum(q.values())
    return sum(p[d] / of_p * math.log(p[d] / of_p / (q[d] / of_q)) for d in value)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("budget", [100_000, 40])
def test_every_term_has_its_own_targets_and_mask(batcher, name, budget):
    loss = LOSSES[name]
    blocks = list(replace(batcher, budget=budget).blocks([*range(len(GROUPS))]))
    assert len(blocks) == (1 if budget > 1000 else len(GROUPS))
    vectors = vectors_of(blocks)
    known = {}
    for block, found in zip(blocks, vectors, strict=True):
        for pair, place in enumerate(block.cells_T[0]):
            known["q", int(block.pairing.query_rows_Q[place])] = found[block.pairing.query_T[pair]]
            known["d", int(block.pairing.doc_rows_T[pair])] = found[block.pairing.doc_T[pair]]

    def scores(query: int, doc: int) -> float:
        return float((known["q", query] @ known["d", doc]).detach())

    expected, masked = by_hand(loss, scores)
    result = step_losses([StepTerm(loss, 0.3)], blocks, vectors)
    np.testing.assert_allclose(result.all_Q.detach(), 0.3 * np.array(expected), rtol=2e-5)
    assert torch.equal(result.own_Q, result.all_Q)
    assert result.masked == masked
    assert (masked > 0) == (not isinstance(loss, KL))


def test_terms_add_up(batcher):
    (block,) = batcher.blocks([0, 1, 2, 3])
    terms = [StepTerm(loss, weight) for weight, loss in enumerate(LOSSES.values(), start=1)]
    (vectors,) = vectors_of([block])
    alone = [step_losses([term], [block], [vectors]) for term in terms]
    together = step_losses(terms, [block], [vectors])
    torch.testing.assert_close(together.all_Q, sum(one.all_Q for one in alone))
    assert together.masked == sum(one.masked for one in alone)


@pytest.mark.parametrize("alive", [1, 25, 40])
def test_blocks_of_queries_change_nothing(batcher, monkeypatch, alive):
    (block,) = batcher.blocks([*range(len(GROUPS))])
    terms = [StepTerm(loss) for loss in LOSSES.values()]
    (vectors,) = vectors_of([block])
    whole = step_losses(terms, [block], [vectors]).all_Q
    (gradient,) = torch.autograd.grad(whole.sum(), vectors)
    monkeypatch.setattr(step_terms, "CELLS", alive)
    parted = step_losses(terms, [block], [vectors]).all_Q
    torch.testing.assert_close(parted, whole, rtol=1e-6, atol=1e-6)
    (again,) = torch.autograd.grad(parted.sum(), vectors)
    torch.testing.assert_close(again, gradient, rtol=1e-5, atol=1e-6)


def test_without_texts_documents_are_masked_by_id(batcher):
    (block,) = replace(batcher, texts=None).blocks([0, 2, 3])
    terms = [StepTerm(LOSSES["judged"])]
    # the first query's positives 0 and 2 in each other's group, and the fourth's document 4
    assert step_losses(terms, [block], vectors_of([block])).masked == 3
    (block,) = batcher.blocks([0, 2, 3])
    # its copy 11 too, twice
    assert step_losses(terms, [block], vectors_of([block])).masked == 5


def test_ranks_of_a_teacher_count_down(batcher):
    ranked = replace(batcher, targets=Targets("labels", "rank", 2))
    rows = [(q, docs, rel, [1 + i for i in range(len(docs))]) for q, docs, rel, _ in GROUPS]
    (block,) = replace(ranked, groups=Few(rows)).blocks([0, 1])
    assert block.pairing.values_T.tolist() == [-1, -2, -3, -1, -2, -3, -4]
    found = [
        step_losses([StepTerm(InfoNCE(over="step", positive=which))], [block], vectors_of([block]))
        for which in ("judged", "teacher_top")
    ]
    torch.testing.assert_close(found[0].all_Q, found[1].all_Q)  # the first ones are positives


def test_a_step_of_one_document_is_refused(batcher):
    one = Few([(0, [5], [2], [1.0]), (1, [5], [0], [1.0])])
    blocks = list(replace(batcher, groups=one, budget=1).blocks([0, 1]))
    with pytest.raises(ValueError, match=r"over=step: .* one document together.*queries_per_step"):
        step_losses([StepTerm(LOSSES["judged"])], blocks, vectors_of(blocks))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_vectors_that_are_not_finite_are_an_error(batcher, number):
    blocks = list(batcher.blocks([0, 1]))
    vectors = [found.detach().clone() for found in vectors_of(blocks)]
    vectors[0][3, 1] = number
    with pytest.raises(
        FloatingPointError, match=r"vectors of 1 of the step's \d+ texts .*lower lr"
    ):
        step_losses([StepTerm(LOSSES["judged"])], blocks, vectors)
