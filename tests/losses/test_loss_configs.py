"""What a loss asks of its groups, and what is read from and refused in its config."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from loss_cases import LOSSES, weighted, written
from pydantic import TypeAdapter

from raypipe.config import Config, ConfigError, to_yaml
from raypipe.losses import AnyLoss
from raypipe.losses.base import Loss
from raypipe.losses.combination import WeightedSum
from raypipe.losses.listwise import KL, InfoNCE, ListMLE, ListNet
from raypipe.losses.pairwise import Hinge, RankNet
from raypipe.losses.pointwise import BCE, MSE
from raypipe.losses.preference import MarginMSE, PairKL
from raypipe.losses.rank_based import AdrMSE, ApproxNDCG, Lambda
from raypipe.recipe.reading import override, parse_yaml, validate


@pytest.mark.parametrize(
    ("loss", "uses", "needs_positive", "teacher_kinds"),
    [
        (BCE(), "labels", False, set()),
        (MSE(), "teacher", False, {"score"}),
        (RankNet(), "labels", True, {"score", "rank"}),
        (RankNet(targets="teacher"), "teacher", False, {"score", "rank"}),
        (Hinge(), "labels", True, {"score", "rank"}),
        (Hinge(targets="teacher"), "teacher", False, {"score", "rank"}),
        (MarginMSE(), "teacher", True, {"score"}),
        (MarginMSE(pairs="all"), "teacher", False, {"score"}),
        (PairKL(), "teacher", False, {"score"}),
        (InfoNCE(), "labels", True, set()),
        (InfoNCE(over="step"), "labels", True, set()),
        (InfoNCE(over="step", positive="teacher_top"), "teacher", False, {"score", "rank"}),
        (InfoNCE(over="step", own_share=0.6), "teacher", True, {"score"}),
        (KL(over="step"), "teacher", False, {"score"}),
        (ListNet(), "teacher", False, {"score"}),
        (KL(), "teacher", False, {"score"}),
        (ListMLE(), "labels", True, {"score", "rank"}),
        (ListMLE(targets="teacher"), "teacher", False, {"score", "rank"}),
        (AdrMSE(), "teacher", False, {"score", "rank"}),
        (ApproxNDCG(), "labels", True, {"score"}),
        (ApproxNDCG(targets="teacher"), "teacher", False, {"score"}),
        (Lambda(), "labels", True, {"score"}),
        (Lambda(targets="teacher"), "teacher", False, {"score"}),
        (weighted(a=(1.0, InfoNCE()), b=(1.0, BCE())), "labels", True, set()),
        (weighted(a=(1.0, BCE())), "labels", False, set()),
        (weighted(a=(1.0, KL()), b=(1.0, AdrMSE())), "teacher", False, {"score"}),
        (weighted(a=(1.0, KL()), b=(1.0, InfoNCE())), "teacher", True, {"score"}),
        (weighted(a=(1.0, AdrMSE()), b=(1.0, ApproxNDCG())), "teacher", True, {"score", "rank"}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else repr(value),
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
        ({"type": "listnet", "temperature": 0}, r"loss\.temperature: .*greater than 0"),
        ({"type": "kl", "teacher_temperature": 0}, r"loss\.teacher_temperature: .*greater than 0"),
        ({"type": "pair_kl", "teacher_temperature": -1}, r"teacher_temperature: .*greater than 0"),
        ({"type": "adr_mse", "temperature": 0}, r"loss\.temperature: .*greater than 0"),
        ({"type": "approx_ndcg", "temperature": 0}, r"loss\.temperature: .*greater than 0"),
        ({"type": "approx_ndcg", "gain": "linar"}, r"loss\.gain: .*did you mean 'linear'"),
        ({"type": "lambda", "gain": "expo"}, r"loss\.gain: .*valid: exponential, linear"),
        ({"type": "hinge", "margin": 0}, r"loss\.margin: .*greater than 0"),
        ({"type": "margin_mse", "scale": 0.0}, r"loss\.scale: .*greater than 0"),
        ({"type": "margin_mse", "scale": math.inf}, r"loss\.scale: .*finite"),
        ({"type": "margin_mse", "pairs": "al"}, r"loss\.pairs: .*did you mean 'all'"),
        ({"type": "ranknet", "targets": "label"}, r"loss\.targets: .*did you mean 'labels'"),
        ({"type": "ranknet", "weights": "rank"}, r"loss\.weights: unknown value 'rank'"),
        ({"type": "ranknet", "temperature": 1.0}, r"unknown key 'temperature'"),
        ({"type": "mse", "targets": "labels"}, r"unknown key 'targets'"),
        ({"type": "rank_net"}, r"loss\.type: .*did you mean 'ranknet'"),
        ({"type": "weighted_sum"}, r"loss\.terms: "),
        ({"type": "weighted_sum", "terms": {}}, r"loss\.terms: .*at least 1 item"),
        (
            {"type": "weighted_sum", "terms": {"a": {"loss": {"type": "kl"}, "weight": 0}}},
            r"loss\.terms\.a\.weight: .*greater than 0",
        ),
        (
            {"type": "weighted_sum", "terms": {"a": {"loss": {"type": "kl", "temperature": 0}}}},
            r"loss\.terms\.a\.loss\.temperature: .*greater than 0",
        ),
        (
            {"type": "weighted_sum", "terms": {"a": {"loss": {"type": "weighted_sum"}}}},
            r"loss\.terms\.a\.loss\.type: unknown value 'weighted_sum'",
        ),
    ],
)
def test_wrong_fields_are_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Stage, {"loss": tree}, "test")


def test_a_term_is_set_by_its_dotted_key() -> None:
    tree: dict[str, Any] = {
        "loss": {
            "type": "weighted_sum",
            "terms": {"cadet": {"loss": {"type": "infonce"}}, "kl": {"loss": {"type": "kl"}}},
        }
    }
    for key, wanted in [
        ("loss.terms.cadet.weight", 0.1),
        ("loss.terms.cadet.loss.temperature", 0.01),
        ("loss.terms.kl.loss.type", "listnet"),
    ]:
        tree = override(Stage, tree, key, wanted)
    expected = weighted(cadet=(0.1, InfoNCE(temperature=0.01)), kl=(1.0, ListNet()))
    assert validate(Stage, tree, "test").loss == expected


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_recipe_reads_back_as_the_same_loss(loss: Loss) -> None:
    assert validate(Stage, parse_yaml(to_yaml(Stage(loss=loss))), "test").loss == loss


def test_every_loss_is_a_choice_with_its_own_name() -> None:
    choices = get_args(get_args(AnyLoss)[0])
    assert set(choices) == written()
    for choice in choices:
        tag = choice.model_fields["type"].default
        tree: dict[str, Any] = {"type": tag}
        if choice is WeightedSum:
            tree["terms"] = {"one": {"loss": {"type": "kl"}}}
        assert type(TypeAdapter(AnyLoss).validate_python(tree)) is choice
    names = {choice.model_fields["type"].default for choice in choices}
    table = (
        "bce mse hinge ranknet margin_mse pair_kl infonce listnet kl adr_mse approx_ndcg lambda "
        "listmle weighted_sum"
    )
    assert names == set(table.split(" "))


def test_a_share_of_the_highest_value_refuses_values_off_the_scale() -> None:
    loss = InfoNCE(over="step", own_share=0.6)
    assert loss.refuses("teacher", 0.0, 1.0) is None and loss.refuses("labels", 0.0, 3.0) is None
    for low, high in ((-0.1, 1.0), (0.0, 1.01)):
        problem = loss.refuses("teacher", low, high)
        assert problem is not None and f"found {low:.6g} to {high:.6g}; scale them" in problem
    assert InfoNCE(over="step").refuses("teacher", -5.0, 5.0) is None
