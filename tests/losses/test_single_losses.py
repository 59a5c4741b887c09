"""What single losses promise, beyond what all of them do."""

from __future__ import annotations

import math

import ir_measures
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from loss_cases import (
    FULL_BATCH,
    SCORE,
    TEACHER,
    Group,
    binary_kl,
    close,
    gradient,
    naive,
    one_group,
    quick,
    tensors,
    value,
    weighted,
)
from pydantic import TypeAdapter

from raypipe.losses import AnyLoss
from raypipe.losses.base import Known, Loss
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL, pairwise_kl
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Lambda
from raypipe.recipe.reading import validate

# Gradients


@pytest.mark.parametrize(
    "loss",
    [
        BCE(),
        RankNet(),
        RankNet(weights="reciprocal_rank"),
        InfoNCE(),
        InfoNCE(temperature=2.0),
        ListMLE(),
        Lambda(),
        Lambda(gain="exponential"),
        weighted(points=(0.5, BCE()), swaps=(2.0, Lambda())),
    ],
    ids=repr,
)
@quick
@given(groups=FULL_BATCH)
def test_a_label_loss_pulls_positives_up_and_negatives_down(
    loss: Loss, groups: list[Group]
) -> None:
    grad = gradient(loss, groups)
    for q, group in enumerate(groups):
        for d, (_, label, _, usable) in enumerate(group.docs):
            if usable:
                assert (grad[q, d] < 0) if label == 1.0 else (grad[q, d] > 0)


@quick
@given(groups=FULL_BATCH)
def test_hinge_pulls_exactly_the_pairs_that_are_too_close(groups: list[Group]) -> None:
    grad = gradient(Hinge(), groups)
    for q, group in enumerate(groups):
        docs = [(d, s, y) for d, (s, y, _, usable) in enumerate(group.docs) if usable]
        assume(all(abs(a - b - 1) > 1e-5 for _, a, _ in docs for _, b, _ in docs))
        for d, s, y in docs:
            short = [x for _, x, z in docs if z != y and (s - x if y else x - s) < 1]
            assert (grad[q, d] != 0) == bool(short)
            assert grad[q, d] <= 0 if y else grad[q, d] >= 0


@pytest.mark.parametrize("loss", [BCE(), MSE()], ids=repr)
def test_pointwise_scores_mean_something_of_their_own(loss: Loss) -> None:
    here, there = one_group([1.0, 0.0], [1, 0], [1, 0]), one_group([6.0, 5.0], [1, 0], [1, 0])
    assert value(loss, there) > value(loss, here) + 1


# Where the student agrees with the teacher

WHOLE = st.integers(-50, 50).map(float)


@pytest.mark.parametrize("pairs", ["positive_negative", "all"])
@quick
@given(
    teacher=st.lists(WHOLE, min_size=1, max_size=5),
    scale=st.sampled_from([0.5, 1.0, 2.0]),
    shift=WHOLE,
)
def test_margin_mse_is_zero_exactly_at_the_teachers_margins(
    pairs: str, teacher: list[float], scale: float, shift: float
) -> None:
    loss = validate(MarginMSE, {"pairs": pairs, "scale": scale}, "test")
    values = [51.0, *teacher]
    labels = [1.0] + [0.0] * len(teacher)
    scores = [t * scale + shift for t in values]
    assert value(loss, one_group(scores, labels, values)) == 0.0
    assert (gradient(loss, one_group(scores, labels, values)) == 0).all()

    low = one_group([scores[0] - 1, *scores[1:]], labels, values)
    high = one_group([scores[0] + 1, *scores[1:]], labels, values)
    assert gradient(loss, low)[0, 0] < 0 < gradient(loss, high)[0, 0]
    assert value(loss, low) == value(loss, high) > 0


@pytest.mark.parametrize(
    ("loss", "slope", "may_shift"),
    [
        (MSE(), 1.0, False),
        (PairKL(), 1.0, True),
        (PairKL(teacher_temperature=4.0), 0.25, True),
        (ListNet(), 1.0, True),
        (ListNet(temperature=4.0), 0.25, True),
        (KL(), 1.0, True),
        (KL(teacher_temperature=4.0, temperature=0.5), 0.125, True),
        (weighted(kl=(1.0, KL()), pairs=(3.0, PairKL())), 1.0, True),
    ],
    ids=repr,
)
@quick
@given(
    teacher=st.lists(st.integers(-12, 12).map(lambda n: n / 4), min_size=2, max_size=5),
    shift=st.integers(-5, 5),
    noise=st.lists(st.floats(-1, 1), min_size=5, max_size=5),
)
def test_is_least_where_the_student_agrees_with_the_teacher(
    loss: Loss,
    slope: float,
    may_shift: bool,
    teacher: list[float],
    shift: int,
    noise: list[float],
) -> None:
    nothing = [0.0] * len(teacher)
    agreed = [t * slope + (shift if may_shift else 0) for t in teacher]
    best = one_group(agreed, nothing, teacher)
    assert gradient(loss, best).abs().max() < 1e-5
    entropy = naive(loss, one_group([t / 4 if slope < 1 else t for t in teacher], nothing, teacher))
    assert close(value(loss, best), entropy if isinstance(loss, ListNet) else 0.0)
    near = [s + n for s, n in zip(agreed, noise, strict=False)]
    assert value(loss, one_group(near, nothing, teacher)) >= value(loss, best) - 1e-6


@pytest.mark.parametrize(
    "loss",
    [AdrMSE(), ApproxNDCG(targets="teacher"), ApproxNDCG(targets="teacher", gain="exponential")],
    ids=repr,
)
@quick
@given(order=st.permutations([1.0, 2.0, 3.0, 4.0, 5.0]), other=st.permutations([1, 2, 3, 4, 5]))
def test_rank_losses_near_zero_in_the_teachers_order_alone(
    loss: Loss, order: list[float], other: list[int]
) -> None:
    nothing = [0.0] * 5
    assert abs(value(loss, one_group([20 * t for t in order], nothing, order))) < 1e-5
    assume(list(order) != list(other))
    assert value(loss, one_group([20.0 * t for t in other], nothing, order)) > 1e-4


def test_adr_mse_of_an_undecided_student_and_teacher_is_zero() -> None:
    """Equal scores have the mean rank, and so have the documents that the teacher ties."""
    assert value(AdrMSE(), one_group([3.0] * 4, [0.0] * 4, [7.0] * 4)) == 0.0
    assert value(AdrMSE(), one_group([9.0, 3, 3, -9], [0.0] * 4, [2.0, 1, 1, 0])) < 1e-3


def test_adr_mse_minds_the_top_more() -> None:
    top = one_group([40.0, 60.0, 20.0, 0.0], [0.0] * 4, [3.0, 2.0, 1.0, 0.0])
    bottom = one_group([60.0, 40.0, 0.0, 20.0], [0.0] * 4, [3.0, 2.0, 1.0, 0.0])
    assert close(value(AdrMSE(), top), (1 / math.log2(2) + 1 / math.log2(3)) / 4)
    assert close(value(AdrMSE(), bottom), (1 / math.log2(4) + 1 / math.log2(5)) / 4)


# Orders and ranks


@pytest.mark.parametrize(
    "loss",
    [
        RankNet(targets="teacher"),
        RankNet(targets="teacher", weights="reciprocal_rank"),
        Hinge(targets="teacher"),
        ListMLE(targets="teacher"),
        AdrMSE(),
    ],
    ids=repr,
)
@quick
@given(groups=FULL_BATCH)
def test_an_order_loss_sees_only_the_order_of_the_teacher(loss: Loss, groups: list[Group]) -> None:
    assert "rank" in loss.teacher_kinds
    ranked = []
    for group in groups:
        order = sorted({t for _, _, t, usable in group.docs if usable}, reverse=True)
        # A teacher of ranks arrives negated: -1 is the best.
        docs = [(s, y, -1.0 - order.index(t) if m else t, m) for s, y, t, m in group.docs]
        ranked.append(Group(docs))
    assert close(value(loss, groups), value(loss, ranked))


def test_ranknet_orders_float64_targets_as_given() -> None:
    scores, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2) > 0
    targets = torch.tensor([[1.0 + 1e-12, 1.0]], dtype=torch.float64)
    got = RankNet(targets="teacher")(scores, targets, mask).item()
    assert close(got, math.log(1 + math.e))


def test_ranknet_weights_are_of_the_targets_ranks_not_of_the_students() -> None:
    loss = RankNet(targets="teacher", weights="reciprocal_rank")
    got = value(loss, one_group([0.0, 1.0, 3.0], [0.0] * 3, [3.0, 2.0, 1.0]))
    terms = [math.log1p(math.exp(m)) / total for m, total in [(1, 1 + 2), (3, 1 + 3), (2, 2 + 3)]]
    assert close(got, sum(terms) / 3)
    students = [
        math.log1p(math.exp(m)) / total for m, total in [(1, 3 + 2), (3, 3 + 1), (2, 2 + 1)]
    ]
    assert not close(got, sum(students) / 3)


@quick
@given(groups=FULL_BATCH, labels=st.lists(st.booleans(), min_size=6, max_size=6))
def test_margin_mse_over_all_pairs_never_sees_the_labels(
    groups: list[Group], labels: list[bool]
) -> None:
    loss = MarginMSE(pairs="all")
    batch = tensors(loss, groups)
    other = torch.tensor(labels)[: batch["mask_QD"].shape[1]].expand_as(batch["mask_QD"])
    without = {k: v for k, v in batch.items() if k != "known"}
    expected = naive(loss, groups)
    assert close(loss(**without).item(), expected)
    assert close(loss(**without, known=Known(other.double())).item(), expected)


def test_margin_mse_over_positives_refuses_to_guess_them() -> None:
    batch = tensors(MarginMSE(), one_group([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]))
    del batch["known"]
    with pytest.raises(ValueError, match=r"known labels, found None; pass them or set pairs=all"):
        MarginMSE()(**batch)


# Probabilities of pairs


def test_pairwise_kl_takes_a_teacher_that_contradicts_itself() -> None:
    scores = torch.tensor([[math.log(3), 0.0, 5.0], [1.0, 2.0, 3.0]], requires_grad=True)
    p = torch.full((2, 3, 3), math.nan, dtype=torch.float64)
    p[0, 0, 1], p[0, 1, 0] = 0.9, 0.4  # not 1 in sum
    p[0, 0, 2] = 1.0  # asked one way round
    got = pairwise_kl(scores, p, p.isfinite())
    q = 1 / (1 + math.exp(5 - math.log(3)))
    expected = (binary_kl(0.9, 0.75) + binary_kl(0.4, 0.25) + binary_kl(1.0, q)) / 3
    assert close(got[0].item(), expected)
    assert got[1].item() == 0.0
    got.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert (scores.grad[1] == 0).all()


def compared(**pairs: float) -> torch.Tensor:
    """Probabilities of one query's three documents by pair, such as p01=0.9."""
    p = torch.full((1, 3, 3), math.nan, dtype=torch.float64)
    for pair, probability in pairs.items():
        p[0, int(pair[1]), int(pair[2])] = probability
    return p


def test_pair_kl_takes_what_a_pairwise_teacher_said() -> None:
    """Worked by hand in the docstring; the values of documents do not count then."""
    batch = tensors(PairKL(), one_group([0.0] * 3, [1.0, 0.0, 0.0], [5.0, -7.0, 2.0]))
    labels = batch["known"].labels_QD
    preferences = compared(p01=3 / 4, p12=9 / 10)
    known = Known(labels, preferences)
    first, second = binary_kl(0.75, 0.5), binary_kl(0.9, 0.5)
    assert close(first, 0.13081) and close(second, 0.36806)
    assert close(PairKL()(**{**batch, "known": known}).item(), (first + second) / 2)
    squared = [p * p / (p * p + (1 - p) * (1 - p)) for p in (0.75, 0.9)]
    surer = PairKL(teacher_temperature=0.5)(**{**batch, "known": known}).item()
    assert close(surer, sum(binary_kl(p, 0.5) for p in squared) / 2)
    certain = Known(labels, compared(p20=1.0, p21=0.0))
    assert close(PairKL()(**{**batch, "known": certain}).item(), math.log(2))
    both = weighted(a=(1.0, KL()), b=(3.0, PairKL()))
    assert both.compares and not weighted(a=(1.0, KL())).compares
    expected = KL()(**batch) + 3 * PairKL()(**{**batch, "known": known})
    assert close(both(**{**batch, "known": known}).item(), expected.item())


def test_pair_kl_leaves_out_what_is_masked_and_what_was_not_compared() -> None:
    docs = [(1.0, 1.0, 0.0, True), (0.0, 0.0, 0.0, True), (3.0, 0.0, 0.0, False)]
    batch = tensors(PairKL(), [Group(docs)])
    preferences = compared(p01=0.9, p02=0.1, p21=0.5)
    batch["known"] = Known(batch["known"].labels_QD, preferences)
    loss = PairKL()(**batch)
    assert close(loss.item(), binary_kl(0.9, 1 / (1 + math.exp(-1))))
    loss.backward()
    grad = batch["scores_QD"].grad
    assert grad.isfinite().all() and (grad[0, :2] != 0).all() and grad[0, 2] == 0
    nothing = {**batch, "known": Known(batch["known"].labels_QD, compared())}
    assert PairKL()(**nothing).item() == 0.0
    narrow = Known(batch["known"].labels_QD, preferences[:, :1])
    with pytest.raises(AssertionError, match="preferences, mask differ"):
        PairKL()(**{**batch, "known": narrow})


# Contrast and likelihood


@quick
@given(groups=FULL_BATCH, extra=st.tuples(SCORE, TEACHER))
def test_infonce_positives_do_not_compete(groups: list[Group], extra: tuple[float, float]) -> None:
    """Another positive moves the mean by its own term and leaves the other terms as they were."""
    loss = InfoNCE()
    group = groups[0]
    added = (extra[0], 1.0, extra[1], True)
    alone = [d for d in group.docs if d[1] == 0.0] + [added]
    n = sum(d[1] == 1.0 and d[3] for d in group.docs)
    expected = (n * value(loss, [group]) + value(loss, [Group(alone)])) / (n + 1)
    assert close(value(loss, [Group([*group.docs, added])]), expected)


@quick
@given(groups=FULL_BATCH, temperature=st.sampled_from([0.25, 0.5, 2.0]))
def test_temperatures_divide(groups: list[Group], temperature: float) -> None:
    student = [Group([(s / temperature, y, t, m) for s, y, t, m in g.docs]) for g in groups]
    teacher = [Group([(s, y, t / temperature, m) for s, y, t, m in g.docs]) for g in groups]
    for plain, divided, changed in [
        (InfoNCE(), student, InfoNCE(temperature=temperature)),
        (KL(), student, KL(temperature=temperature)),
        (AdrMSE(), student, AdrMSE(temperature=temperature)),
        (ApproxNDCG(temperature=1.0), student, ApproxNDCG(temperature=temperature)),
        (KL(), teacher, KL(teacher_temperature=temperature)),
        (ListNet(), teacher, ListNet(temperature=temperature)),
        (PairKL(), teacher, PairKL(teacher_temperature=temperature)),
    ]:
        assert close(value(changed, groups), value(plain, divided))
    pair = one_group([1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    assert value(InfoNCE(temperature=temperature), pair) != value(InfoNCE(), pair)


@quick
@given(groups=FULL_BATCH)
def test_listmle_over_labels_is_infonce_summed(groups: list[Group]) -> None:
    for group in groups:
        n = sum(d[1] == 1.0 and d[3] for d in group.docs)
        assert close(value(ListMLE(), [group]), n * value(InfoNCE(), [group]))


@quick
@given(scores=st.lists(SCORE, min_size=2, max_size=6))
def test_listmle_without_ties_is_the_published_loss(scores: list[float]) -> None:
    descending = [float(-n) for n in range(len(scores))]
    expected = sum(
        math.log(sum(math.exp(s) for s in scores[i:])) - scores[i] for i in range(len(scores))
    )
    loss = ListMLE(targets="teacher")
    assert close(value(loss, one_group(scores, [0.0] * len(scores), descending)), expected)


# Gains


@pytest.mark.parametrize(("gain", "gains"), [("linear", {}), ("exponential", {1: 1, 2: 3, 3: 7})])
@quick
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=7).filter(lambda y: len(set(y)) > 1),
    data=st.data(),
)
def test_approx_ndcg_nears_the_measure_of_ir_measures(
    gain: str, gains: dict[int, int], labels: list[int], data: st.DataObject
) -> None:
    scores = data.draw(st.permutations([float(n) for n in range(len(labels))]))
    qrels = [ir_measures.Qrel("q", str(d), y) for d, y in enumerate(labels)]
    run = [ir_measures.ScoredDoc("q", str(d), s) for d, s in enumerate(scores)]
    measure = ir_measures.nDCG(gains=gains) if gains else ir_measures.nDCG
    expected = ir_measures.calc_aggregate([measure], qrels, run)[measure]
    loss = validate(ApproxNDCG, {"gain": gain, "temperature": 0.01}, "test")
    assert close(1 - value(loss, one_group(scores, [float(y) for y in labels], labels)), expected)


@pytest.mark.parametrize("targets", ["labels", "teacher"])
@pytest.mark.parametrize("kind", ["approx_ndcg", "lambda"])
def test_gains_refuse_what_is_no_grade(kind: str, targets: str) -> None:
    def fitted(gain: str, worst: float, best: float) -> float:
        tree = {"type": kind, "gain": gain, "targets": targets}
        loss = TypeAdapter[Loss](AnyLoss).validate_python(tree)
        batch = tensors(
            RankNet(targets=targets), one_group([0.0, 1.0], [best, worst], [best, worst])
        )
        return loss(**batch).item()

    assert 0 < fitted("linear", 0.0, 100.0) < 1
    assert 0 < fitted("exponential", 0.0, 10.0) < 1
    with pytest.raises(ValueError, match=r"targets up to 10, found 10\.5.*; use gain=linear"):
        fitted("exponential", 0.0, 10.5)
    for gain in ("linear", "exponential"):
        with pytest.raises(ValueError, match=r"at least 0, found -2; use .* listmle, ranknet"):
            fitted(gain, -2.0, -1.0)  # what a teacher of ranks hands over


@pytest.mark.parametrize("loss", [ApproxNDCG(), Lambda()], ids=repr)
def test_what_is_masked_gains_nothing(loss: Loss) -> None:
    labels = one_group([0.0, 1.0], [1.0, 0.0], [0.0, 0.0])
    hidden = [Group([*labels[0].docs, (5.0, -3.0, -3.0, False), (5.0, 90.0, 90.0, False)])]
    assert close(value(loss, hidden), value(loss, labels))


@pytest.mark.parametrize("size", [2, 5])
def test_lambda_of_constant_scores_still_learns(size: int) -> None:
    """Among equal scores the positive stands last, the others share the ranks before it."""
    labels = [1.0] + [0.0] * (size - 1)
    grad = gradient(Lambda(), one_group([7.0] * size, labels, labels))
    others = (1 + (size - 1)) / 2
    delta = 1 / math.log2(1 + others) - 1 / math.log2(1 + size)
    assert torch.allclose(grad[0, 1:], torch.tensor(delta / 2), rtol=1e-5)
    assert close(grad[0, 0].item(), -(size - 1) * delta / 2)


# Sums


def test_a_sum_is_its_terms_times_their_weights() -> None:
    groups = one_group([0.3, 1.2, -2.0], [1.0, 0.0, 0.0], [2.0, 0.5, 1.0])
    parts = (0.1, InfoNCE()), (1.0, KL()), (3.0, PairKL())
    both = weighted(a=parts[0], b=parts[1], c=parts[2])
    expected = sum(weight * value(loss, groups) for weight, loss in parts)
    assert close(value(both, groups), expected)
    slopes = [weight * gradient(loss, groups) for weight, loss in parts]
    assert torch.allclose(gradient(both, groups), torch.stack(slopes).sum(0), rtol=1e-4)


def test_only_terms_of_gains_see_grades() -> None:
    graded = one_group([0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [3.0, 1.0, 2.0])
    batch = tensors(ApproxNDCG(), graded)
    positive = torch.tensor([[True, True, False]])
    binary = {**batch, "targets_QD": positive.double()}
    labels = weighted(a=(1.0, RankNet()), b=(1.0, ApproxNDCG()), c=(1.0, Lambda()))
    assert labels.graded and not weighted(a=(1.0, RankNet()), b=(1.0, BCE())).graded
    assert RankNet()(**binary).item() != RankNet()(**batch).item()
    assert Lambda()(**binary).item() != Lambda()(**batch).item()
    expected = RankNet()(**binary) + ApproxNDCG()(**batch) + Lambda()(**batch)
    assert close(labels(**batch).item(), expected.item())
    mixed = weighted(a=(1.0, RankNet()), b=(1.0, MSE()), c=(1.0, Lambda()))
    teacher = tensors(MSE(), graded)
    expected = RankNet()(**binary) + MSE()(**teacher) + Lambda()(**batch)
    assert close(mixed(**teacher).item(), expected.item())


def test_a_document_without_a_teacher_value_is_left_out_of_every_term_of_a_sum() -> None:
    loss = weighted(a=(1.0, BCE()), b=(1.0, MSE()))
    docs = [(1.0, 1.0, 2.0, True), (0.5, 0.0, 0.0, True)]
    unscored = (9.0, 0.0, math.nan, False)
    assert close(value(loss, [Group([*docs, unscored])]), value(loss, [Group(docs)]))


def test_a_sum_refuses_to_guess_positives() -> None:
    loss = weighted(order=(1.0, RankNet()), kl=(1.0, KL()))
    batch = tensors(loss, one_group([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]))
    del batch["known"]
    with pytest.raises(ValueError, match=r"known labels for its term 'order'"):
        loss(**batch)
