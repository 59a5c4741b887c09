"""Every loss against numbers worked by hand, a plain double loop, and the properties it promises.

Shapes: Q queries of the batch, D documents per group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from raypipe.config import Config, ConfigError, parse_yaml, to_yaml, validate
from raypipe.losses import AnyLoss, InfoNCE, Loss, MarginMSE, RankNet

LOSSES = [
    RankNet(),
    RankNet(targets="teacher"),
    MarginMSE(),
    MarginMSE(scale=2.5),
    MarginMSE(pairs="all", scale=0.5),
    InfoNCE(),
    InfoNCE(temperature=0.25),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
quick = settings(deadline=None, max_examples=40, database=None)

GARBAGE = [math.nan, math.inf, -math.inf, 1e30, -7.0]


@dataclass(frozen=True)
class Group:
    """One query in plain Python; a document is (score, label, teacher value, usable)."""

    docs: list[tuple[float, float, float, bool]]


def tensors(loss: Loss, groups: list[Group], pad: int = 0, fill: float = 0.0) -> dict[str, Tensor]:
    """The batch the training loop would hand over, with `fill` in whatever is masked."""
    depth = max(len(g.docs) for g in groups) + pad
    column = 1 if loss.uses == "labels" else 2
    empty = (fill, fill, fill, False)
    rows = [g.docs + [empty] * (depth - len(g.docs)) for g in groups]
    usable = torch.tensor([[d[3] for d in row] for row in rows])
    scores = torch.tensor([[d[0] if d[3] else fill for d in row] for row in rows])
    targets = [[d[column] if d[3] else fill for d in row] for row in rows]
    positive = [[d[1] == 1.0 if d[3] else fill != 0.0 for d in row] for row in rows]
    return {
        "scores_QD": scores.requires_grad_(),
        "targets_QD": torch.tensor(targets, dtype=torch.float64),
        "mask_QD": usable,
        "positive_QD": torch.tensor(positive),
    }


def value(loss: Loss, groups: list[Group], **how: Any) -> float:
    return loss(**tensors(loss, groups, **how)).item()


def gradient(loss: Loss, groups: list[Group], **how: Any) -> Tensor:
    batch = tensors(loss, groups, **how)
    loss(**batch).backward()
    grad = batch["scores_QD"].grad
    assert grad is not None
    return grad


def one(scores: list[float], labels: list[float], teacher: list[float]) -> list[Group]:
    return [Group([(*doc, True) for doc in zip(scores, labels, teacher, strict=True)])]


def naive(loss: Loss, groups: list[Group]) -> float:
    """The definition, one document and one pair at a time, in float64."""
    total = 0.0
    for group in groups:
        docs = [d for d in group.docs if d[3]]
        terms: list[float] = []
        for s_i, y_i, t_i, _ in docs:
            if isinstance(loss, InfoNCE):
                if y_i == 1.0:
                    own = math.exp(s_i / loss.temperature)
                    rest = sum(math.exp(s / loss.temperature) for s, y, _, _ in docs if y == 0.0)
                    terms.append(-math.log(own / (own + rest)))
                continue
            for s_j, y_j, t_j, _ in docs:
                if isinstance(loss, RankNet):
                    above = y_i > y_j if loss.targets == "labels" else t_i > t_j
                    if above:
                        terms.append(math.log(1 + math.exp(-(s_i - s_j))))
                elif isinstance(loss, MarginMSE):
                    above = t_i > t_j if loss.pairs == "all" else y_i == 1.0 and y_j == 0.0
                    if above:
                        terms.append(((s_i - s_j) - loss.scale * (t_i - t_j)) ** 2)
        total += sum(terms) / len(terms) if terms else 0.0
    return total / len(groups)


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=2e-5, abs_tol=1e-5)


SCORE = st.floats(-8, 8, width=32)
TEACHER = st.one_of(st.integers(-80, 80), st.integers(-3, 3)).map(lambda n: n / 4)
"""With ties, and coarse enough that a constant added to it keeps the order."""
DOC = st.tuples(SCORE, st.sampled_from([0.0, 1.0]), TEACHER, st.sampled_from([True, True, False]))
ANY_GROUP = st.lists(DOC, min_size=1, max_size=6).map(Group)
"""May lack a positive, a pair, or any usable document."""


@st.composite
def full_group(draw: st.DrawFn) -> Group:
    """A group that carries every loss: a usable positive above a usable negative, and more."""
    top = draw(TEACHER)
    docs = [
        (draw(SCORE), 1.0, top + 1, True),
        (draw(SCORE), 0.0, top, True),
        *draw(st.lists(DOC, max_size=4)),
    ]
    return Group(draw(st.permutations(docs)))


FULL_BATCH = st.lists(full_group(), min_size=1, max_size=4)


# Worked by hand, as in the docstrings


def test_ranknet_hand_worked() -> None:
    scores = [math.log(3), 0.0, math.log(2)]
    for targets in ("labels", "teacher"):
        loss = RankNet(targets=targets)
        got = loss(torch.tensor([scores]), torch.tensor([[3.0, 2.0, 1.0]]), torch.ones(1, 3) > 0)
        assert close(got.item(), math.log(20 / 3) / 3)
    # As a label: one positive, two pairs that are right by ln 3 and ln 3/2.
    labels = one(scores, [1.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert close(value(RankNet(), labels), math.log(4 / 3 * 5 / 3) / 2)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (MarginMSE(), 5.0),
        (MarginMSE(scale=0.5), 1.625),
        (MarginMSE(pairs="all"), 26 / 3),
        (MarginMSE(pairs="all", scale=0.5), 9.5 / 3),
    ],
    ids=repr,
)
def test_margin_mse_hand_worked(loss: MarginMSE, expected: float) -> None:
    assert close(value(loss, one([2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [5.0, 1.0, 4.0])), expected)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, math.log(3) / 2), (0.5, math.log(27 / 16) / 2)]
)
def test_infonce_hand_worked(temperature: float, expected: float) -> None:
    group = one([math.log(4), math.log(2), 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0] * 4)
    assert close(value(InfoNCE(temperature=temperature), group), expected)


# Against the definition


@every_loss
@quick
@given(groups=st.lists(ANY_GROUP, min_size=1, max_size=4), fill=st.sampled_from(GARBAGE))
def test_agrees_with_double_loop(loss: Loss, groups: list[Group], fill: float) -> None:
    assert close(value(loss, groups, fill=fill), naive(loss, groups))


@every_loss
@quick
@given(groups=st.lists(ANY_GROUP, min_size=1, max_size=3), data=st.data())
def test_gradient_is_the_slope_of_the_definition(
    loss: Loss, groups: list[Group], data: st.DataObject
) -> None:
    q = data.draw(st.integers(0, len(groups) - 1))
    d = data.draw(st.integers(0, len(groups[q].docs) - 1))

    def moved(by: float) -> float:
        docs = list(groups[q].docs)
        docs[d] = (docs[d][0] + by, *docs[d][1:])
        return naive(loss, [*groups[:q], replace(groups[q], docs=docs), *groups[q + 1 :]])

    slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert math.isclose(gradient(loss, groups)[q, d].item(), slope, rel_tol=1e-3, abs_tol=1e-4)


# What every loss promises


@every_loss
@quick
@given(groups=FULL_BATCH, data=st.data())
def test_document_order_changes_nothing(
    loss: Loss, groups: list[Group], data: st.DataObject
) -> None:
    shuffled = [Group(data.draw(st.permutations(g.docs))) for g in groups]
    assert close(value(loss, groups), value(loss, shuffled))


@every_loss
@quick
@given(groups=FULL_BATCH, pad=st.integers(1, 4), fill=st.sampled_from(GARBAGE))
def test_padding_changes_neither_value_nor_gradient(
    loss: Loss, groups: list[Group], pad: int, fill: float
) -> None:
    assert close(value(loss, groups), value(loss, groups, pad=pad, fill=fill))
    plain, padded = gradient(loss, groups), gradient(loss, groups, pad=pad, fill=fill)
    assert torch.allclose(plain, padded[:, : plain.shape[1]], rtol=1e-4, atol=1e-6)
    mask = tensors(loss, groups, pad=pad)["mask_QD"]
    assert (padded[~mask] == 0).all()


@every_loss
@quick
@given(groups=FULL_BATCH, shift=st.integers(-50, 50))
def test_a_constant_added_to_the_scores_changes_nothing(
    loss: Loss, groups: list[Group], shift: int
) -> None:
    moved = [Group([(s + shift, y, t, m) for s, y, t, m in g.docs]) for g in groups]
    before, after = value(loss, groups), value(loss, moved)
    assert math.isclose(before, after, rel_tol=1e-3, abs_tol=1e-3)


@every_loss
@quick
@given(groups=FULL_BATCH, shift=st.integers(-50, 50))
def test_a_constant_added_to_the_teacher_changes_nothing(
    loss: Loss, groups: list[Group], shift: int
) -> None:
    moved = [Group([(s, y, t * 4 + shift, m) for s, y, t, m in g.docs]) for g in groups]
    four = loss.replace(scale=loss.scale / 4) if isinstance(loss, MarginMSE) else loss
    assert math.isclose(value(loss, groups), value(four, moved), rel_tol=1e-3, abs_tol=1e-3)


@every_loss
@quick
@given(groups=st.lists(full_group(), min_size=2, max_size=5))
def test_ragged_groups_weigh_each_query_once(loss: Loss, groups: list[Group]) -> None:
    alone = [value(loss, [group]) for group in groups]
    assert close(value(loss, groups), sum(alone) / len(alone))


@every_loss
@quick
@given(groups=st.lists(full_group(), min_size=2, max_size=6).filter(lambda g: len(g) % 2 == 0))
def test_halves_of_a_batch_average_to_the_batch(loss: Loss, groups: list[Group]) -> None:
    half = len(groups) // 2
    first, second = groups[:half], groups[half:]
    assert close(value(loss, groups), (value(loss, first) + value(loss, second)) / 2)
    whole = gradient(loss, groups)
    for rows, part in ((whole[:half], first), (whole[half:], second)):
        grad = gradient(loss, part)
        assert torch.allclose(rows[:, : grad.shape[1]], grad / 2, rtol=1e-4, atol=1e-6)


@every_loss
@pytest.mark.parametrize(
    "docs",
    [
        [(3.0, 0.0, 1.0, True), (1.0, 0.0, 1.0, True)],  # neither a positive nor a teacher's pair
        [(3.0, 1.0, 1.0, True), (1.0, 1.0, 1.0, True)],  # no negative
        [(3.0, 1.0, 2.0, True)],  # one document
        [(3.0, 1.0, 2.0, True), (1.0, 0.0, 1.0, False)],  # no usable negative
        [(3.0, 1.0, 2.0, False), (1.0, 0.0, 1.0, True)],  # no usable positive
        [(3.0, 1.0, 2.0, False), (1.0, 0.0, 1.0, False)],  # nothing usable
    ],
)
def test_a_query_that_cannot_carry_it_adds_nothing_and_counts(
    loss: Loss, docs: list[tuple[float, float, float, bool]]
) -> None:
    good = one([0.5, 1.0], [1.0, 0.0], [2.0, 1.0])[0]
    bad = Group(docs)
    assert value(loss, [bad], fill=math.nan) == 0.0
    assert value(loss, [good]) > 0.1
    assert close(value(loss, [good, bad], fill=math.nan), value(loss, [good]) / 2)
    with torch.autograd.set_detect_anomaly(True):  # no NaN inside the backward pass either
        grad = gradient(loss, [good, bad], fill=math.nan)
    assert (grad[1] == 0).all()
    assert (grad[0] != 0).all()


@every_loss
def test_bfloat16_scores_are_computed_in_float32(loss: Loss) -> None:
    batch = tensors(loss, one([0.3, -1.7, 2.9], [1.0, 0.0, 0.0], [3.1, 0.2, -4.4]))
    half = batch["scores_QD"].detach().bfloat16()
    got = loss(**{**batch, "scores_QD": half})
    assert got.dtype == torch.float32
    assert got.item() == loss(**{**batch, "scores_QD": half.float()}).item()


@every_loss
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_scores_stay_finite_and_point_the_right_way(loss: Loss, size: float) -> None:
    wrong = one([-size, size], [1.0, 0.0], [1.0, 0.0])
    assert size < value(loss, wrong) < math.inf
    grad = gradient(loss, wrong)
    assert -math.inf < grad[0, 0] < 0 < grad[0, 1] < math.inf


@every_loss
def test_shapes_that_would_broadcast_are_refused(loss: Loss) -> None:
    batch = tensors(loss, one([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]))
    for name in ("targets_QD", "mask_QD", "positive_QD"):
        with pytest.raises(AssertionError, match="differ"):
            loss(**{**batch, name: batch[name][:, :1]})


# What single losses promise


@pytest.mark.parametrize("loss", [RankNet(), InfoNCE(), InfoNCE(temperature=2.0)], ids=repr)
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
    assert value(loss, one(scores, labels, values)) == 0.0
    assert (gradient(loss, one(scores, labels, values)) == 0).all()

    low = one([scores[0] - 1, *scores[1:]], labels, values)
    high = one([scores[0] + 1, *scores[1:]], labels, values)
    assert gradient(loss, low)[0, 0] < 0 < gradient(loss, high)[0, 0]
    assert value(loss, low) == value(loss, high) > 0


@quick
@given(groups=FULL_BATCH)
def test_ranknet_sees_only_the_order_of_the_teacher(groups: list[Group]) -> None:
    loss = RankNet(targets="teacher")
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


@quick
@given(groups=FULL_BATCH, labels=st.lists(st.booleans(), min_size=6, max_size=6))
def test_margin_mse_over_all_pairs_never_sees_the_labels(
    groups: list[Group], labels: list[bool]
) -> None:
    loss = MarginMSE(pairs="all")
    batch = tensors(loss, groups)
    other = torch.tensor(labels)[: batch["mask_QD"].shape[1]].expand_as(batch["mask_QD"])
    without = {k: v for k, v in batch.items() if k != "positive_QD"}
    expected = naive(loss, groups)
    assert close(loss(**without).item(), expected)
    assert close(loss(**without, positive_QD=other).item(), expected)


def test_margin_mse_over_positives_refuses_to_guess_them() -> None:
    batch = tensors(MarginMSE(), one([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]))
    del batch["positive_QD"]
    with pytest.raises(ValueError, match=r"positive_QD, found None; pass it or set pairs=all"):
        MarginMSE()(**batch)


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
def test_infonce_temperature_divides(groups: list[Group], temperature: float) -> None:
    divided = [Group([(s / temperature, y, t, m) for s, y, t, m in g.docs]) for g in groups]
    assume(abs(value(InfoNCE(), groups) - value(InfoNCE(), divided)) > 1e-3)
    assert close(value(InfoNCE(temperature=temperature), groups), value(InfoNCE(), divided))


# Config


@pytest.mark.parametrize(
    ("loss", "uses", "needs_positive", "teacher_kinds"),
    [
        (RankNet(), "labels", True, {"score", "rank"}),
        (RankNet(targets="teacher"), "teacher", False, {"score", "rank"}),
        (MarginMSE(), "teacher", True, {"score"}),
        (MarginMSE(pairs="all"), "teacher", False, {"score"}),
        (InfoNCE(), "labels", True, set()),
    ],
    ids=repr,
)
def test_what_a_loss_asks_of_its_groups(
    loss: Loss, uses: str, needs_positive: bool, teacher_kinds: set[str]
) -> None:
    assert (loss.uses, loss.needs_positive) == (uses, needs_positive)
    assert loss.teacher_kinds == teacher_kinds


class Stage(Config):
    loss: AnyLoss


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"type": "infonce", "temperature": 0}, r"loss\.temperature: .*greater than 0, found 0"),
        ({"type": "infonce", "temperature": -1.0}, r"loss\.temperature: .*greater than 0"),
        ({"type": "infonce", "temperature": math.inf}, r"loss\.temperature: .*finite"),
        ({"type": "margin_mse", "scale": 0.0}, r"loss\.scale: .*greater than 0"),
        ({"type": "margin_mse", "scale": math.inf}, r"loss\.scale: .*finite"),
        ({"type": "margin_mse", "pairs": "al"}, r"loss\.pairs: .*did you mean 'all'"),
        ({"type": "ranknet", "targets": "label"}, r"loss\.targets: .*did you mean 'labels'"),
        ({"type": "ranknet", "temperature": 1.0}, r"unknown key 'temperature'"),
        ({"type": "rank_net"}, r"loss\.type: .*did you mean 'ranknet'"),
    ],
)
def test_wrong_fields_are_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Stage, {"loss": tree}, "test")


@every_loss
def test_a_recipe_reads_back_as_the_same_loss(loss: Loss) -> None:
    assert validate(Stage, parse_yaml(to_yaml(Stage(loss=loss))), "test").loss == loss


def test_every_loss_is_a_choice_with_its_own_name() -> None:
    choices = get_args(get_args(AnyLoss)[0])
    written = [c for c in Loss.__subclasses__() if c.__module__.startswith("raypipe.")]
    assert set(choices) == set(written)
    for choice in choices:
        tag = choice.model_fields["type"].default
        assert type(TypeAdapter(AnyLoss).validate_python({"type": tag})) is choice
