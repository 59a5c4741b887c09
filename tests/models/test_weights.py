"""Folders that are not the model they should be: nothing is filled in at random unsaid."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from families import FAMILIES, folder_of, model_of
from safetensors.torch import load_file, save_file

from raypipe.config import ConfigError
from raypipe.models.cross_encoder import CrossEncoder, save

every_family = pytest.mark.parametrize("family", FAMILIES)


def load(folder: Path, **fields):
    config = CrossEncoder(backbone="some/name", **fields)
    return config.load(folder, 1, training=False, device="cpu")


def edited(folder: Path, target: Path, change) -> Path:
    """A copy whose tensors went through `change`."""
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return target


def with_config(folder: Path, target: Path, **fields) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **fields}))
    return target


def without(part: str):
    return lambda tensors: {k: v for k, v in tensors.items() if part not in k}


@pytest.fixture
def checkpoint(tmp_path):
    """family -> a cross-encoder as a stage leaves it."""

    def of(family: str) -> Path:
        folder = tmp_path / "stage"
        save(model_of(family), folder, folder_of(family), 24)
        return folder

    return of


# --- weights that are not there ------------------------------------------------------------------


@every_family
def test_a_layer_that_is_missing_is_an_error_that_lists_it(family, tmp_path):
    layer = "layers.1." if family == "modernbert" else "layer.1."
    folder = edited(folder_of(family), tmp_path / "cut", without(layer))
    with pytest.raises(ConfigError) as caught:
        load(folder)
    text = str(caught.value)
    assert text.startswith(f"model.backbone some/name, read from {folder}: expected all weights")
    assert layer in text and "are missing and would be random" in text
    assert "classifier" not in text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


@every_family
def test_embeddings_that_are_missing(family, tmp_path):
    tables = ("word_embeddings", "tok_embeddings")
    folder = edited(
        folder_of(family),
        tmp_path / "cut",
        lambda t: {k: v for k, v in t.items() if not any(name in k for name in tables)},
    )
    with pytest.raises(ConfigError, match=r"1 are missing .*(word|tok)_embeddings\.weight; save"):
        load(folder)


@every_family
def test_a_missing_head_is_fresh_in_a_backbone_and_an_error_in_a_checkpoint(
    family, tmp_path, checkpoint
):
    assert load(folder_of(family)) is not None
    stage = edited(checkpoint(family), tmp_path / "cut", without("classifier."))
    with pytest.raises(ConfigError, match=r"trained cross-encoder, \d are missing .*classifier\."):
        load(stage)


def test_a_masked_language_model_has_no_pooler(tmp_path):
    from transformers import AutoModelForMaskedLM

    folder = tmp_path / "mlm"
    shutil.copytree(folder_of("bert"), folder)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    assert not any("pooler" in name for name in load_file(folder / "model.safetensors"))
    one, two = load(folder).state_dict(), load(folder_of("bert")).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(v, two[k]) for k, v in one.items() if ".layer." in k)


@every_family
def test_layers_beyond_the_configuration(family, tmp_path):
    depth = json.loads((folder_of(family) / "config.json").read_text())["num_hidden_layers"]
    fields = {"num_hidden_layers": depth - 1}
    if family == "modernbert":
        fields["layer_types"] = ["full_attention"]
    folder = with_config(folder_of(family), tmp_path / "shallow", **fields)
    with pytest.raises(ConfigError, match=r"layers that config\.json does not have.*keep_layers"):
        load(folder)
    assert load(folder, keep_layers=1).config.num_hidden_layers == 1


# --- weights of another shape --------------------------------------------------------------------


@every_family
def test_another_width(family, tmp_path):
    folder = with_config(folder_of(family), tmp_path / "wide", intermediate_size=96)
    with pytest.raises(ConfigError, match=r"other shapes: .* is \d+x32, not \d+x32|is 48x24, not"):
        load(folder)


@every_family
def test_a_head_with_two_outputs(family, tmp_path, checkpoint):
    def widened(tensors):
        last = "classifier.out_proj." if "classifier.out_proj.bias" in tensors else "classifier."
        return tensors | {
            f"{last}{n}": torch.cat([tensors[f"{last}{n}"]] * 2) for n in ("weight", "bias")
        }

    folder = edited(checkpoint(family), tmp_path / "two", widened)
    with pytest.raises(ConfigError, match=r"weight is 2x\d\d, not 1x\d\d; a head with several out"):
        load(folder)


# --- another architecture ------------------------------------------------------------------------

SMALL = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
OTHERS = [
    ("T5Config", "T5ForConditionalGeneration", {"d_model": 16, "d_kv": 8, "d_ff": 16}),
    ("LlamaConfig", "LlamaForCausalLM", {"intermediate_size": 16}),
    ("GPT2Config", "GPT2Model", {"n_embd": 16, "n_layer": 1, "n_head": 2}),
    ("BertConfig", "BertLMHeadModel", {"is_decoder": True, "intermediate_size": 16}),
]


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")).save(
        str(folder / "tokenizer.json")
    )


@pytest.mark.parametrize(("config", "model", "fields"), OTHERS, ids=[one[1] for one in OTHERS])
def test_another_architecture(config, model, fields, tmp_path):
    import transformers

    made = getattr(transformers, config)(**{**SMALL, **fields})
    getattr(transformers, model)(made).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    expected = rf"read from .*: expected an encoder such as BERT, .* found {model} \(model_type "
    with pytest.raises(ConfigError, match=expected):
        load(tmp_path)
    with pytest.raises(ConfigError, match=rf"model.backbone {tmp_path}: .* found {model} "):
        CrossEncoder(backbone=str(tmp_path)).check()


def test_an_encoder_without_a_classifier_in_transformers(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    with pytest.raises(ConfigError, match=r"found Wav2Vec2Config \(model_type wav2vec2\): no "):
        load(tmp_path)


def test_an_unknown_architecture(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bort9000"}))
    with pytest.raises(ConfigError, match=r"cannot read its config\.json: .*bort9000"):
        load(tmp_path)


def test_the_log_level_comes_back_after_an_error(tmp_path):
    from transformers.utils import logging

    folder = edited(folder_of("bert"), tmp_path / "cut", without("layer.1."))
    logging.set_verbosity_info()
    try:
        with pytest.raises(ConfigError):
            load(folder)
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity_warning()


# --- checked before work -------------------------------------------------------------------------


@every_family
def test_every_family_passes_the_check(family):
    CrossEncoder(backbone=str(folder_of(family)), keep_layers=1).check()


def test_depth_that_is_no_number(tmp_path):
    from transformers import FunnelConfig, FunnelModel

    config = FunnelConfig(
        vocab_size=150, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8, d_inner=16
    )
    FunnelModel(config).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder_of("bert") / name, tmp_path)
    CrossEncoder(backbone=str(tmp_path)).check()
    with pytest.raises(ConfigError, match=r"keep_layers=1 needs .* funnel has none"):
        CrossEncoder(backbone=str(tmp_path), keep_layers=1).check()


# --- memory --------------------------------------------------------------------------------------


@every_family
def test_weights_lie_where_matrix_products_want_them(family):
    """In the mapped file they begin anywhere, and the last bit of a product depends on where."""
    places = {value.data_ptr() % 64 for value in load(folder_of(family)).parameters()}
    assert places == {0}
