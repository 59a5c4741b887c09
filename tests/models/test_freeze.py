"""Freezing, gradient checkpointing and compilation: the same for every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import FAMILIES, batcher_of, fit, folder_of, model_of
from torch import nn

from raypipe.config import ConfigError
from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.freeze import compiled, enable_gradient_checkpointing, freeze
from raypipe.train.optim import build_optimizer
from raypipe.train.settings import TrainingSettings

every_family = pytest.mark.parametrize("family", FAMILIES)
NOTHING = {"embeddings": False, "position_embeddings": False, "layers": 0}


def frozen(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if not value.requires_grad}


def size(model: nn.Module, names: set[str]) -> int:
    return sum(value.numel() for name, value in model.named_parameters() if name in names)


def is_embedding(name: str) -> bool:
    return ".embeddings." in name or ".embeddings_project." in name


def is_layer(name: str, number: int) -> bool:
    return f".layer.{number}." in name or f".layers.{number}." in name


@every_family
def test_nothing_is_frozen_unless_asked_for(family):
    model = model_of(family)
    assert freeze(model, **NOTHING) == 0 and not frozen(model)


@every_family
def test_embeddings(family):
    model = model_of(family)
    count = freeze(model, **{**NOTHING, "embeddings": True})
    expected = {name for name, _ in model.named_parameters() if is_embedding(name)}
    assert frozen(model) == expected and len(expected) >= 2
    assert count == size(model, expected) > 0


@every_family
def test_position_embeddings_are_frozen_where_there_are_any(family):
    model = model_of(family)
    count = freeze(model, **{**NOTHING, "position_embeddings": True})
    width = {"electra": 16, "minilm": 24, "deberta_v3": 0, "modernbert": 0}.get(family, 32)
    assert count == 130 * width
    names = {f"{model.base_model_prefix}.embeddings.position_embeddings.weight"} if width else set()
    assert frozen(model) == names


@every_family
@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_layers(family, layers):
    model = model_of(family)
    count = freeze(model, **{**NOTHING, "layers": layers})
    expected = {
        name
        for name, _ in model.named_parameters()
        if any(is_layer(name, number) for number in range(layers))
    }
    assert frozen(model) == expected and len(expected) >= 5 * layers
    assert count == size(model, expected)


@every_family
def test_what_is_named_twice_counts_once(family):
    model = model_of(family)
    every = {"embeddings": True, "position_embeddings": True, "layers": 1}
    count = freeze(model, **every)
    assert count == size(model, frozen(model)) == freeze(model, **every)


@every_family
def test_more_layers_than_there_are(family):
    model = model_of(family)
    depth = model.config.num_hidden_layers
    expected = rf"first 9 layers: {model.config.model_type} here has {depth}; .* at most {depth}"
    with pytest.raises(ConfigError, match=expected):
        freeze(model, **{**NOTHING, "layers": 9})
    assert not frozen(model)


def test_layers_that_share_their_weights():
    from transformers import AlbertConfig, AlbertForSequenceClassification

    config = AlbertConfig(
        vocab_size=50,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1,
    )
    model = AlbertForSequenceClassification(config)
    with pytest.raises(ConfigError, match=r"albert has no list of 3 layers .* freeze 0 layers"):
        freeze(model, **{**NOTHING, "layers": 1})
    assert freeze(model, **{**NOTHING, "embeddings": True}) > 0


@every_family
def test_frozen_weights_are_in_no_optimizer_and_stay_as_they_are(family):
    model = model_of(family)
    freeze(model, embeddings=True, position_embeddings=True, layers=1)
    held = frozen(model)
    optimizer = build_optimizer(model, TrainingSettings(loss=InfoNCE()))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for n, p in model.named_parameters() if n not in held}
    fit(model, family, InfoNCE(), steps=2, lr=5e-3)
    before = model_of(family).state_dict()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in held)
    assert any(not torch.equal(after[n], before[n]) for n in after if is_layer(n, 1))


# --- gradient checkpointing ----------------------------------------------------------------------


def dropping(family: str, dropout: float) -> nn.Module:
    config = CrossEncoder(backbone=family, hidden_dropout=dropout, attention_dropout=dropout)
    return config.load(folder_of(family), 1, training=True, device="cpu")


def gradients(model: nn.Module, family: str) -> dict[str, torch.Tensor]:
    _, inputs = next(batcher_of(family, "labels").blocks([0, 1, 2])).batches[0]
    torch.manual_seed(11)
    model(**{name: torch.from_numpy(a) for name, a in inputs.items()}).logits.sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def count_forwards(model: nn.Module) -> list[int]:
    """Grows whenever the first layer runs; DeBERTa projects its positions with the same matrix."""
    calls: list[int] = []
    layers = next(m for m in model.modules() if isinstance(m, nn.ModuleList))
    inner = next(m for m in layers[0].modules() if isinstance(m, nn.Linear))
    inner.register_forward_hook(lambda *_: calls.append(1))
    return calls


@every_family
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("frozen_embeddings", [False, True])
def test_recomputed_activations_give_the_same_gradients(family, dropout, frozen_embeddings):
    plain, saving = dropping(family, dropout), dropping(family, dropout)
    for model in (plain, saving):
        freeze(model, **{**NOTHING, "embeddings": frozen_embeddings})
    enable_gradient_checkpointing(saving)
    calls = {name: count_forwards(m) for name, m in (("plain", plain), ("saving", saving))}
    expected, found = gradients(plain, family), gradients(saving, family)
    assert len(calls["saving"]) == 2 * len(calls["plain"]) > 0
    assert expected.keys() == found.keys() and len(found) > 10
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert max(float(value.abs().max()) for value in expected.values()) > 0


# --- compilation ---------------------------------------------------------------------------------


@every_family
def test_a_compiled_model_keeps_its_names_and_gradients(family):
    plain, fast = model_of(family), model_of(family)
    assert compiled(fast, backend="eager") is fast
    expected, found = gradients(plain, family), gradients(fast, family)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_compiling_reaches_the_compiler_with_dynamic_shapes(monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(inputs)
        return graph.forward

    model = compiled(model_of("bert"), backend=backend)
    for length in (9, 12, 17):
        model(input_ids=torch.arange(5, 5 + length)[None])
    assert 1 <= len(graphs) <= 2  # one for all lengths, and at most one before they are dynamic


def test_a_compiled_model_drops_out_what_it_does_uncompiled(monkeypatch):
    """Inductor takes a minute to start: what it is told is enough here."""
    told = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: told.append(options))
    compiled(nn.Linear(2, 2))
    assert told[0]["backend"] == "inductor" and told[0]["options"] == {"fallback_random": True}


def test_a_compiled_model_is_saved_as_any(tmp_path: Path):
    from raypipe.models.cross_encoder import save

    model = compiled(model_of("bert"), backend="eager").eval()
    ids = torch.arange(5, 14)[None]
    score = model(input_ids=ids).logits
    save(model, tmp_path / "saved", folder_of("bert"), 24)
    again = CrossEncoder(backbone="saved").load(tmp_path / "saved", 1, training=False, device="cpu")
    torch.testing.assert_close(again(input_ids=ids).logits, score, rtol=0, atol=1e-6)


def test_deberta_has_one_attention_kernel():
    from raypipe.models.attention import attention_kernel

    assert attention_kernel("cuda", "deberta-v2") == "eager"
    assert (attention_kernel("cuda", "modernbert"), attention_kernel("cpu")) == ("sdpa", "eager")
