"""What the loss tests share: batches, plain definitions in float64, and generated groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from raypipe.losses.base import Known, Loss
from raypipe.losses.combination import Term, WeightedSum
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Lambda


def weighted(**terms: tuple[float, Any]) -> WeightedSum:
    return WeightedSum(terms={n: Term(weight=w, loss=loss) for n, (w, loss) in terms.items()})


FAMILIES: dict[str, list[Loss]] = {
    "pointwise": [BCE(), MSE()],
    "pairwise": [
        RankNet(),
        RankNet(targets="teacher"),
        RankNet(weights="reciprocal_rank"),
        RankNet(targets="teacher", weights="reciprocal_rank"),
        Hinge(),
        Hinge(targets="teacher", margin=2.5),
    ],
    "preference": [
        MarginMSE(),
        MarginMSE(scale=2.5),
        MarginMSE(pairs="all", scale=0.5),
        PairKL(),
        PairKL(teacher_temperature=4.0),
    ],
    "listwise": [
        InfoNCE(),
        InfoNCE(temperature=0.25),
        ListNet(),
        ListNet(temperature=4.0),
        KL(),
        KL(teacher_temperature=4.0, temperature=0.5),
        ListMLE(),
        ListMLE(targets="teacher"),
    ],
    "rank_based": [
        AdrMSE(),
        AdrMSE(temperature=0.25),
        ApproxNDCG(),
        ApproxNDCG(gain="exponential", temperature=1.0),
        ApproxNDCG(targets="teacher"),
        ApproxNDCG(targets="teacher", gain="exponential"),
        Lambda(),
        Lambda(targets="teacher"),
        Lambda(targets="teacher", gain="exponential"),
    ],
    "combination": [
        weighted(cadet=(0.1, InfoNCE()), kl=(1.0, KL())),
        weighted(kl=(1.0, KL()), pairs=(3.0, PairKL(teacher_temperature=4.0))),
        weighted(points=(0.5, BCE()), order=(2.0, RankNet(weights="reciprocal_rank"))),
        weighted(margins=(0.1, MarginMSE()), ndcg=(1.0, ApproxNDCG()), swaps=(2.0, Lambda())),
    ],
}
LOSSES = [loss for family in FAMILIES.values() for loss in family]
quick = settings(deadline=None, max_examples=30, database=None)

GARBAGE = [math.nan, math.inf, -math.inf, 1e30, -7.0]

Doc = tuple[float, float, float, bool]
"""(score, label, teacher value, usable)"""


@dataclass(frozen=True)
class Group:
    """One query in plain Python."""

    docs: list[Doc]


def terms_of(loss: Loss) -> list[Loss]:
    """The single losses in it."""
    if isinstance(loss, WeightedSum):
        return [t.loss for t in loss.terms.values()]
    return [loss]


def gains_from_teacher(loss: Loss) -> bool:
    return isinstance(loss, ApproxNDCG | Lambda) and loss.uses == "teacher"


def target(loss: Loss, doc: Doc) -> float:
    """What `loss` fits; gains need targets from 0, exponential ones at most 10."""
    if loss.uses == "labels":
        return doc[1]
    return (doc[2] + 20) / 5 if gains_from_teacher(loss) else doc[2]


# The batch of the training loop


def tensors(loss: Loss, groups: list[Group], pad: int = 0, fill: float = 0.0) -> dict[str, Any]:
    """The batch the training loop would hand over, with `fill` in whatever is masked."""
    depth = max(len(g.docs) for g in groups) + pad
    empty = (fill, fill, fill, False)
    rows = [g.docs + [empty] * (depth - len(g.docs)) for g in groups]
    usable = torch.tensor([[d[3] for d in row] for row in rows])
    scores = torch.tensor([[d[0] if d[3] else fill for d in row] for row in rows])
    targets = [[target(loss, d) if d[3] else fill for d in row] for row in rows]
    labels = [[d[1] if d[3] else fill for d in row] for row in rows]
    return {
        "scores_QD": scores.requires_grad_(),
        "targets_QD": torch.tensor(targets, dtype=torch.float64),
        "mask_QD": usable,
        "known": Known(torch.tensor(labels, dtype=torch.float64)),
    }


def value(loss: Loss, groups: list[Group], **how: Any) -> float:
    return loss(**tensors(loss, groups, **how)).item()


def gradient(loss: Loss, groups: list[Group], **how: Any) -> Tensor:
    batch = tensors(loss, groups, **how)
    loss(**batch).backward()
    grad = batch["scores_QD"].grad
    assert grad is not None
    return grad


def one_group(
    scores: Sequence[float], labels: Sequence[float], teacher: Sequence[float]
) -> list[Group]:
    return [Group([(*doc, True) for doc in zip(scores, labels, teacher, strict=True)])]


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=2e-5, abs_tol=1e-5)


# The definitions, one document and one pair at a time, in float64


def naive(loss: Loss, groups: list[Group], ranked_as: list[Group] | None = None) -> float:
    """The mean over the queries; ranks that carry no gradient are those of `ranked_as`."""
    anchors = groups if ranked_as is None else ranked_as
    total = 0.0
    for group, anchor in zip(groups, anchors, strict=True):
        docs = [d for d in group.docs if d[3]]
        total += _naive(loss, docs, [d[0] for d in anchor.docs if d[3]])
    return total / len(groups)


def _naive(loss: Loss, docs: list[Doc], anchor: list[float]) -> float:
    if isinstance(loss, WeightedSum):
        return sum(t.weight * _naive(t.loss, docs, anchor) for t in loss.terms.values())
    if isinstance(loss, Lambda):
        return _lambda(loss, docs, anchor)
    scores = [d[0] for d in docs]
    targets = [target(loss, d) for d in docs]
    positive = [d[1] == 1.0 for d in docs]
    return DEFINITIONS[type(loss)](loss, scores, targets, positive)


def _mean(terms: list[float]) -> float:
    return sum(terms) / len(terms) if terms else 0.0


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _softmax(values: list[float]) -> list[float]:
    powers = [math.exp(v - max(values)) for v in values]
    return [power / sum(powers) for power in powers]


def _softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def _rank(values: list[float], mine: float) -> float:
    """The mean place of `mine` among `values`, best first."""
    return _mean([n for n, v in enumerate(sorted(values, reverse=True), 1) if v == mine])


def _soft_rank(scores: list[float], i: int, temperature: float) -> float:
    others = [s for j, s in enumerate(scores) if j != i]
    return 1 + sum(_sigmoid((s - scores[i]) / temperature) for s in others)


def _dcg(gains: list[float], ranks: list[float]) -> float:
    return sum(g / math.log2(1 + r) for g, r in zip(gains, ranks, strict=True))


def _gains(loss: ApproxNDCG | Lambda, targets: list[float]) -> tuple[list[float], float]:
    gains = [2**t - 1 if loss.gain == "exponential" else t for t in targets]
    return gains, _dcg(sorted(gains, reverse=True), [n + 1.0 for n in range(len(gains))])


Values = list[float]
Labels = list[bool]


def _bce(loss: BCE, s: Values, t: Values, positive: Labels) -> float:
    probability = [_sigmoid(x) for x in s]
    return _mean([-math.log(p if y else 1 - p) for p, y in zip(probability, positive, strict=True)])


def _mse(loss: MSE, s: Values, t: Values, positive: Labels) -> float:
    return _mean([(a - b) ** 2 for a, b in zip(s, t, strict=True)])


def _ordered(t: Values) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(t)) for j in range(len(t)) if t[i] > t[j]]


def _ranknet(loss: RankNet, s: Values, t: Values, positive: Labels) -> float:
    terms = []
    for i, j in _ordered(t):
        even = loss.weights == "none"
        weight = 1 if even else 1 / (_rank(t, t[i]) + _rank(t, t[j]))
        terms.append(weight * math.log(1 + math.exp(-(s[i] - s[j]))))
    return _mean(terms)


def _hinge(loss: Hinge, s: Values, t: Values, positive: Labels) -> float:
    return _mean([max(0.0, loss.margin - (s[i] - s[j])) for i, j in _ordered(t)])


def _margin_mse(loss: MarginMSE, s: Values, t: Values, positive: Labels) -> float:
    pairs = _ordered(t) if loss.pairs == "all" else _ordered([float(p) for p in positive])
    return _mean([((s[i] - s[j]) - loss.scale * (t[i] - t[j])) ** 2 for i, j in pairs])


def binary_kl(p: float, q: float) -> float:
    both = [(p, q), (1 - p, 1 - q)]
    return sum(a * math.log(a / b) for a, b in both if a > 0)


def _pair_kl(loss: PairKL, s: Values, t: Values, positive: Labels) -> float:
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
    teacher = [_sigmoid((t[i] - t[j]) / loss.teacher_temperature) for i, j in pairs]
    student = [_sigmoid(s[i] - s[j]) for i, j in pairs]
    return _mean([binary_kl(p, q) for p, q in zip(teacher, student, strict=True)])


def _infonce(loss: InfoNCE, s: Values, t: Values, positive: Labels) -> float:
    power = [math.exp(x / loss.temperature) for x in s]
    rest = sum(e for e, y in zip(power, positive, strict=True) if not y)
    return _mean([-math.log(e / (e + rest)) for e, y in zip(power, positive, strict=True) if y])


def _listnet(loss: ListNet, s: Values, t: Values, positive: Labels) -> float:
    p, q = _softmax([x / loss.temperature for x in t]) if t else [], _softmax(s) if s else []
    return -sum(a * math.log(b) for a, b in zip(p, q, strict=True))


def _kl(loss: KL, s: Values, t: Values, positive: Labels) -> float:
    if not s:
        return 0.0
    p = _softmax([x / loss.teacher_temperature for x in t])
    q = _softmax([x / loss.temperature for x in s])
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _listmle(loss: ListMLE, s: Values, t: Values, positive: Labels) -> float:
    total = 0.0
    for i in range(len(s)):
        below = sum(math.exp(s[j]) for j in range(len(s)) if t[j] < t[i])
        total -= math.log(math.exp(s[i]) / (math.exp(s[i]) + below))
    return total


def _adr_mse(loss: AdrMSE, s: Values, t: Values, positive: Labels) -> float:
    terms = []
    for i in range(len(s)):
        rank = _rank(t, t[i])
        terms.append((_soft_rank(s, i, loss.temperature) - rank) ** 2 / math.log2(rank + 1))
    return _mean(terms)


def _approx_ndcg(loss: ApproxNDCG, s: Values, t: Values, positive: Labels) -> float:
    if len(set(t)) < 2:
        return 0.0
    gains, ideal = _gains(loss, t)
    return 1 - _dcg(gains, [_soft_rank(s, i, loss.temperature) for i in range(len(s))]) / ideal


def _lambda(loss: Lambda, docs: list[Doc], anchor: list[float]) -> float:
    """Delta nDCG by swapping two ranks and computing nDCG again."""
    targets = [target(loss, d) for d in docs]
    if len(set(targets)) < 2:
        return 0.0
    # Best score first; among equals the lowest target first.
    keys = [(s, -t) for s, t in zip(anchor, targets, strict=True)]
    ranks = [_mean([n for n, k in enumerate(sorted(keys)[::-1], 1) if k == key]) for key in keys]
    gains, ideal = _gains(loss, targets)
    total = 0.0
    for i, j in _ordered(targets):
        swapped = list(ranks)
        swapped[i], swapped[j] = ranks[j], ranks[i]
        delta = abs(_dcg(gains, swapped) - _dcg(gains, ranks)) / ideal
        total += delta * _softplus(-(docs[i][0] - docs[j][0]))
    return total


DEFINITIONS: dict[type[Loss], Callable[..., float]] = {
    BCE: _bce,
    MSE: _mse,
    RankNet: _ranknet,
    Hinge: _hinge,
    MarginMSE: _margin_mse,
    PairKL: _pair_kl,
    InfoNCE: _infonce,
    ListNet: _listnet,
    KL: _kl,
    ListMLE: _listmle,
    AdrMSE: _adr_mse,
    ApproxNDCG: _approx_ndcg,
}


# Generated groups

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


def written(kind: type[Loss] = Loss) -> set[type[Loss]]:
    """Every loss that a recipe can name: the leaves below `Loss`, bases left out."""
    below = [c for c in kind.__subclasses__() if c.__module__.startswith("raypipe.")]
    return {leaf for c in below for leaf in (written(c) or {c})}
