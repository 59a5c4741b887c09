"""Every loss against numbers worked by hand, plain loops, and the properties it promises.

Losses of a family share their generated groups: making these takes longer than the maths.
Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from loss_cases import (
    ANY_GROUP,
    FAMILIES,
    FULL_BATCH,
    GARBAGE,
    LOSSES,
    Doc,
    Group,
    close,
    full_group,
    gains_from_teacher,
    gradient,
    naive,
    one_group,
    quick,
    tensors,
    terms_of,
    value,
    weighted,
    written,
)

from raypipe.losses.base import Known, Loss
from raypipe.losses.combination import Term, WeightedSum
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Lambda

every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)

# Worked by hand, as in the docstrings

LN2, LN3 = math.log(2), math.log(3)


@pytest.mark.parametrize(
    ("loss", "scores", "targets", "expected"),
    [
        (BCE(), [LN3, 0, -LN3], [1, 0, 0], math.log(32 / 9) / 3),
        (MSE(), [2, 1, 0], [5, 1, 4], 25 / 3),
        (RankNet(), [LN3, 0, LN2], [3, 2, 1], math.log(20 / 3) / 3),
        (RankNet(targets="teacher"), [LN3, 0, LN2], [3, 2, 1], math.log(20 / 3) / 3),
        (RankNet(), [LN3, 0, LN2], [1, 0, 0], math.log(4 / 3 * 5 / 3) / 2),
        (
            RankNet(weights="reciprocal_rank"),
            [LN3, 0, LN2],
            [3, 2, 1],
            (math.log(4 / 3) / 3 + math.log(5 / 3) / 4 + math.log(3) / 5) / 3,
        ),
        (RankNet(weights="reciprocal_rank"), [0, 0, 0], [1, 0, 0], LN2 / (1 + 2.5)),
        (Hinge(), [2, 1.5, 0], [1, 0, 0], 0.25),
        (Hinge(margin=2), [2, 1.5, 0], [1, 0, 0], 0.75),
        (MarginMSE(), [2, 1, 0], [5, 1, 4], 5.0),
        (MarginMSE(scale=0.5), [2, 1, 0], [5, 1, 4], 1.625),
        (MarginMSE(pairs="all"), [2, 1, 0], [5, 1, 4], 26 / 3),
        (MarginMSE(pairs="all", scale=0.5), [2, 1, 0], [5, 1, 4], 9.5 / 3),
        (PairKL(), [0, 0, 0], [LN3, 0, 0], 2 / 3 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))),
        (PairKL(teacher_temperature=0.5), [0, 0, 0], [LN3, 0, 0], 0.24538),
        (InfoNCE(), [math.log(4), LN2, 0, 0], [1, 1, 0, 0], LN3 / 2),
        (InfoNCE(temperature=0.5), [math.log(4), LN2, 0, 0], [1, 1, 0, 0], math.log(27 / 16) / 2),
        (ListNet(), [0, LN3], [LN3, 0], 0.75 * math.log(4) + 0.25 * math.log(4 / 3)),
        (ListNet(temperature=0.5), [0, LN3], [LN3, 0], 1.27643),
        (KL(), [0, LN3], [LN3, 0], LN3 / 2),
        (KL(teacher_temperature=0.5), [0, LN3], [LN3, 0], 0.95135),
        (KL(temperature=0.5), [0, LN3], [LN3, 0], 1.19094),
        (ListMLE(), [LN3, LN2, 0], [3, 2, 1], LN3),
        (ListMLE(targets="teacher"), [LN3, LN2, 0], [-1, -2, -3], LN3),
        (ListMLE(), [LN3, LN2, 0], [1, 1, 0], LN2),
        (ListMLE(), [0, 0, 0, 0], [4, 3, 2, 1], math.log(24)),
        (AdrMSE(), [0, LN3], [2, 1], 9 / 16 * (1 + 1 / math.log2(3)) / 2),
        (AdrMSE(temperature=0.5), [0, LN3], [-1, -2], 0.66053),
        (ApproxNDCG(temperature=1), [0, LN3], [2, 1], 0.15423),
        (ApproxNDCG(temperature=1, gain="exponential"), [0, LN3], [2, 1], 0.19846),
        (ApproxNDCG(), [0, LN3 / 10], [1, 0], 1 - 1 / math.log2(11 / 4)),
        (Lambda(), [0, LN3], [2, 1], 0.19447),
        (Lambda(gain="exponential"), [0, LN3], [2, 1], 0.28182),
        (weighted(a=(0.1, InfoNCE()), b=(1.0, KL())), [0, LN3], [LN3, 0], 0.68794),
    ],
    ids=repr,
)
def test_hand_worked(
    loss: Loss, scores: list[float], targets: list[float], expected: float
) -> None:
    """The first document is the positive where targets are the teacher's."""
    got = loss(
        torch.tensor([scores], dtype=torch.float32),
        torch.tensor([targets], dtype=torch.float64),
        torch.ones(1, len(scores)) > 0,
        Known((torch.arange(len(scores)) == 0).unsqueeze(0).double()),
    )
    assert got.shape == ()
    assert math.isclose(got.item(), expected, abs_tol=6e-6)


# Against the definition


@every_family
@quick
@given(groups=st.lists(ANY_GROUP, min_size=1, max_size=4), fill=st.sampled_from(GARBAGE))
def test_agrees_with_the_plain_loop(family: list[Loss], groups: list[Group], fill: float) -> None:
    for loss in family:
        assert close(value(loss, groups, fill=fill), naive(loss, groups))


def at_a_kink(loss: Loss, group: Group) -> bool:
    """Some pair stands where the slope of hinge jumps."""
    scores = [d[0] for d in group.docs]
    gaps = [
        abs(abs(a - b) - loss.margin) for a in scores for b in scores if hasattr(loss, "margin")
    ]
    return min(gaps, default=1.0) < 1e-4


@every_family
@quick
@given(groups=st.lists(ANY_GROUP, min_size=1, max_size=3), data=st.data())
def test_gradient_is_the_slope_of_the_definition(
    family: list[Loss], groups: list[Group], data: st.DataObject
) -> None:
    q = data.draw(st.integers(0, len(groups) - 1))
    d = data.draw(st.integers(0, len(groups[q].docs) - 1))

    def moved(loss: Loss, by: float) -> float:
        docs = list(groups[q].docs)
        docs[d] = (docs[d][0] + by, *docs[d][1:])
        after = [*groups[:q], replace(groups[q], docs=docs), *groups[q + 1 :]]
        return naive(loss, after, ranked_as=groups)

    for loss in family:
        assume(not at_a_kink(loss, groups[q]))
        slope = (moved(loss, 1e-5) - moved(loss, -1e-5)) / 2e-5
        assert math.isclose(gradient(loss, groups)[q, d].item(), slope, rel_tol=1e-3, abs_tol=1e-4)


# What every loss promises


@every_family
@quick
@given(groups=FULL_BATCH, data=st.data())
def test_document_order_changes_nothing(
    family: list[Loss], groups: list[Group], data: st.DataObject
) -> None:
    shuffled = [Group(data.draw(st.permutations(g.docs))) for g in groups]
    for loss in family:
        assert close(value(loss, groups), value(loss, shuffled))


@every_family
@quick
@given(groups=FULL_BATCH, pad=st.integers(1, 4), fill=st.sampled_from(GARBAGE))
def test_padding_changes_neither_value_nor_gradient(
    family: list[Loss], groups: list[Group], pad: int, fill: float
) -> None:
    for loss in family:
        assert close(value(loss, groups), value(loss, groups, pad=pad, fill=fill))
        plain, padded = gradient(loss, groups), gradient(loss, groups, pad=pad, fill=fill)
        assert torch.allclose(plain, padded[:, : plain.shape[1]], rtol=1e-4, atol=1e-6)
        mask = tensors(loss, groups, pad=pad)["mask_QD"]
        assert (padded[~mask] == 0).all()


@every_family
@quick
@given(groups=FULL_BATCH, shift=st.integers(-50, 50).filter(bool))
def test_a_constant_added_to_the_scores_changes_nothing(
    family: list[Loss], groups: list[Group], shift: int
) -> None:
    """Pointwise losses apart: their scores mean something of their own."""
    # Coarse scores: in float32 tiny differences become ties, and ties have ranks of their own.
    coarse = [Group([(round(s * 64) / 64, *rest) for s, *rest in g.docs]) for g in groups]
    moved = [Group([(s + shift, *rest) for s, *rest in g.docs]) for g in coarse]
    for loss in family:
        before, after = value(loss, coarse), value(loss, moved)
        if not any(isinstance(t, BCE | MSE) for t in terms_of(loss)):
            assert math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-3)


def on_quarter_scale(loss: Loss) -> Loss | None:
    """The loss that sees values 4 times as large, moved, as `loss` sees them; None: there is none.

    Every order loss and every label loss is its own.
    """
    if isinstance(loss, WeightedSum):
        terms = {n: (t.weight, on_quarter_scale(t.loss)) for n, t in loss.terms.items()}
        return loss.replace(terms={n: Term(weight=w, loss=t) for n, (w, t) in terms.items()})
    if isinstance(loss, MSE) or gains_from_teacher(loss):
        return None
    if isinstance(loss, MarginMSE):
        return loss.replace(scale=loss.scale / 4)
    if isinstance(loss, ListNet):
        return loss.replace(temperature=loss.temperature * 4)
    if isinstance(loss, PairKL | KL):
        return loss.replace(teacher_temperature=loss.teacher_temperature * 4)
    return loss


@every_family
@quick
@given(groups=FULL_BATCH, shift=st.integers(-50, 50))
def test_a_constant_added_to_the_teacher_changes_nothing(
    family: list[Loss], groups: list[Group], shift: int
) -> None:
    moved = [Group([(s, y, t * 4 + shift, m) for s, y, t, m in g.docs]) for g in groups]
    for loss in family:
        if four := on_quarter_scale(loss):
            assert math.isclose(value(loss, groups), value(four, moved), rel_tol=1e-3, abs_tol=1e-3)


@every_family
@quick
@given(groups=st.lists(full_group(), min_size=2, max_size=5))
def test_ragged_groups_weigh_each_query_once(family: list[Loss], groups: list[Group]) -> None:
    for loss in family:
        alone = [value(loss, [group]) for group in groups]
        assert close(value(loss, groups), sum(alone) / len(alone))


@every_family
@quick
@given(groups=st.lists(full_group(), min_size=2, max_size=6).filter(lambda g: len(g) % 2 == 0))
def test_halves_of_a_batch_average_to_the_batch(family: list[Loss], groups: list[Group]) -> None:
    half = len(groups) // 2
    first, second = groups[:half], groups[half:]
    for loss in family:
        assert close(value(loss, groups), (value(loss, first) + value(loss, second)) / 2)
        whole = gradient(loss, groups)
        for rows, part in ((whole[:half], first), (whole[half:], second)):
            grad = gradient(loss, part)
            assert torch.allclose(rows[:, : grad.shape[1]], grad / 2, rtol=1e-4, atol=1e-6)


NOTHING_USABLE = [(3.0, 1.0, 2.0, False), (1.0, 0.0, 1.0, False)]
ONE_DOCUMENT = [
    [(3.0, 1.0, 2.0, True)],
    [(3.0, 1.0, 2.0, True), (1.0, 0.0, 1.0, False)],  # no usable negative
    [(3.0, 1.0, 2.0, False), (1.0, 0.0, 3.0, True)],  # no usable positive
]
TIED = [
    [(3.0, 0.0, 1.0, True), (1.0, 0.0, 1.0, True)],  # neither a positive nor a teacher's pair
    [(3.0, 1.0, 1.0, True), (1.0, 1.0, 1.0, True)],  # no negative
]


def is_carried(loss: Loss, docs: list[Doc]) -> bool:
    """A single document has a score to fit; documents that tie have a common value to fit."""
    alone = isinstance(loss, BCE | MSE)
    together = alone or isinstance(loss, PairKL | ListNet | KL | AdrMSE)
    return (docs in ONE_DOCUMENT and alone) or (docs in TIED and together)


@every_loss
@pytest.mark.parametrize("docs", [NOTHING_USABLE, *ONE_DOCUMENT, *TIED])
def test_a_query_that_cannot_carry_it_adds_nothing_and_counts(loss: Loss, docs: list[Doc]) -> None:
    good = one_group([0.5, 1.5], [1.0, 0.0], [2.0, 1.0])[0]
    bad = Group(docs)
    assert value(loss, [good]) > 0.001
    with torch.autograd.set_detect_anomaly(True):  # no NaN inside the backward pass either
        grad = gradient(loss, [good, bad], fill=math.nan)
    assert (grad[0] != 0).all()
    alone = value(loss, [bad], fill=math.nan)
    assert close(value(loss, [good, bad], fill=math.nan), (value(loss, [good]) + alone) / 2)
    if any(is_carried(term, docs) for term in terms_of(loss)):
        assert alone > 0
        assert (grad[1] != 0).any()
    else:
        assert alone == 0.0
        assert (grad[1] == 0).all()


@every_loss
def test_bfloat16_scores_are_computed_in_float32(loss: Loss) -> None:
    batch = tensors(loss, one_group([0.3, -1.7, 2.9], [1.0, 0.0, 0.0], [3.1, 0.2, -4.4]))
    half = batch["scores_QD"].detach().bfloat16()
    got = loss(**{**batch, "scores_QD": half})
    assert got.dtype == torch.float32
    assert got.item() == loss(**{**batch, "scores_QD": half.float()}).item()


@every_loss
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_scores_stay_finite_and_point_the_right_way(loss: Loss, size: float) -> None:
    wrong = one_group([-size, size], [1.0, 0.0], [1.0, 0.0])
    right = one_group([size, -size], [1.0, 0.0], [1.0, 0.0])
    bounded = isinstance(loss, AdrMSE | ApproxNDCG)  # and flat, as their docstrings say
    assert (0 if bounded else size / 1000) < value(loss, wrong) < math.inf
    grad = gradient(loss, wrong)
    assert -math.inf < grad[0, 0] <= 0 <= grad[0, 1] < math.inf
    assert bounded or (grad != 0).all()
    assert -1e-5 < value(loss, right) < math.inf
    assert gradient(loss, right).isfinite().all()


@every_loss
def test_shapes_that_would_broadcast_are_refused(loss: Loss) -> None:
    batch = tensors(loss, one_group([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]))
    narrow = {name: batch[name][:, :1] for name in ("targets_QD", "mask_QD")}
    narrow["known"] = Known(batch["known"].labels_QD[:, :1])
    for name, part in narrow.items():
        with pytest.raises(AssertionError, match="differ"):
            loss(**{**batch, name: part})


def test_every_class_has_a_case_here() -> None:
    assert {type(loss) for loss in LOSSES} == written()


def test_queries_count_by_their_weights():
    scores, targets = torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    mask, loss = torch.ones(2, 2, dtype=torch.bool), InfoNCE()
    first, second = loss.each(scores, targets, mask).tolist()
    weights = torch.tensor([0.5, 3.0], dtype=torch.float64)
    known = Known(targets.double(), weights_Q=weights)
    assert loss(scores, targets, mask, known).item() == pytest.approx(
        (0.5 * first + 3.0 * second) / 2
    )
