"""Models that failed late, with a library's words: `check` refuses each before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from families import QUERY_TEXTS, folder_of
from safetensors.torch import load_file, save_file

from raypipe.config import ConfigError
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.teachers.bi_encoder import BiEncoderTeacher, Fusion
from raypipe.teachers.cross_encoder import CrossEncoderTeacher


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model without a head, with positions for 130 tokens."""
    shutil.copytree(folder_of("bert"), tmp_path / "model")
    return tmp_path / "model"


def config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def adapter(folder: Path) -> None:
    """As peft leaves it, with the base's config.json beside it."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    few = {f"base_model.{name}": weights[name] for name in list(weights)[:2]}
    save_file(few, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def adapter_beside_a_model(folder: Path) -> None:
    """transformers would load the adapter's base from elsewhere."""
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def other_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.fp16.safetensors")


def own_code(folder: Path) -> None:
    """jina-reranker-v2's form."""
    code = {"AutoModelForSequenceClassification": "modeling_flash.Model"}
    config(folder, model_type="xlm-roberta-flash", auto_map=code)


def own_code_under_a_known_name(folder: Path) -> None:
    """jina-embeddings-v2's form: model_type bert, weights of another architecture."""
    config(folder, auto_map={"AutoModel": "modeling_bert.JinaBertModel"})
    weights = load_file(folder / "model.safetensors")
    renamed = {n.replace("intermediate.dense", "mlp.up"): w for n, w in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


EVERY = [
    (adapter, r"found an adapter \(adapter_config\.json, adapter_model\.safetensors\).*merge"),
    (adapter_beside_a_model, r"found an adapter \(adapter_config\.json\)"),
    (other_name, r"in model\.safetensors in .*, found pytorch_model\.fp16\.safetensors, which"),
    (own_code, r"code of its own \(modeling_flash\.Model, auto_map .*\), which raypipe never runs"),
]


@pytest.mark.parametrize(("change", "message"), EVERY)
def test_every_kind_of_model_is_refused_by_check(folder, change, message):
    config(folder, architectures=["BertForSequenceClassification"], id2label={"0": "x"})
    change(folder)
    for checked in (CrossEncoder, CrossEncoderTeacher, BiEncoder, BiEncoderTeacher):
        with pytest.raises(ConfigError, match=message) as error:
            checked(backbone=str(folder)).check()
        assert str(folder) in str(error.value)


def test_code_under_a_known_name_is_found_in_the_weights(folder):
    own_code_under_a_known_name(folder)
    with pytest.raises(ConfigError, match=r"4 missing.*; the model is another architecture than"):
        BiEncoder(backbone=str(folder)).load(folder, "cpu")


def test_an_adapter_on_the_hub(monkeypatch):
    files = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    backbone = Backbone("some/adapter")
    backbone._memo.update(revision="c0ffee", files=files)
    with pytest.raises(ConfigError, match="whole model in the hub's repository, found an adapter"):
        backbone.check()


@pytest.mark.parametrize("kind", [BiEncoder, BiEncoderTeacher, Fusion])
def test_texts_that_are_longer_than_the_model_reads(folder, kind):
    """512 by the tokenizer's own word, 130 positions."""
    message = r"\.max_length: texts of up to 256 tokens, .* has positions for 130; lower it"
    with pytest.raises(ConfigError, match=message):
        kind(backbone=str(folder)).check()
    kind(backbone=str(folder), max_length=130).check()
    with pytest.raises(ConfigError, match=r"texts of up to 131 tokens"):
        kind(backbone=str(folder), max_length=131).check()


def test_the_models_own_limit_is_the_usual_length(folder):
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 99}))
    encoder = BiEncoder(backbone=str(folder))
    encoder.check()
    read = Backbone(str(folder)).published
    assert encoder.longest(read) == 99
    assert BiEncoder(backbone=str(folder), max_length=120).longest(read) == 120
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    assert encoder.longest(read) == 64


# --- language models as cross-encoders ------------------------------------------------------------


@pytest.fixture
def decoder(tmp_path) -> Path:
    """A causal model with a relevance head, which scores by the last token that is no padding."""
    import transformers
    from tokenizers import processors

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of("modernbert"))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [CLS]", pair="$A [SEP] $B [CLS]",
        special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in ("[CLS]", "[SEP]")],
    )  # fmt: skip
    tokenizer.save_pretrained(tmp_path)
    made = transformers.Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformers.Qwen3ForSequenceClassification(made).save_pretrained(tmp_path)
    return tmp_path


def test_a_language_models_head_scores_padded_pairs_alone(decoder):
    import numpy as np

    from raypipe.inference.pairs import Template
    from raypipe.inference.scoring import PairScorer
    from raypipe.inference.truncation import LongestFirst
    from raypipe.models.tokenizer import load_tokenizer

    teacher = CrossEncoderTeacher(backbone=str(decoder))
    teacher.check()
    tokenizer = load_tokenizer(decoder)
    model = CrossEncoder(backbone=str(decoder)).load(decoder, 0, training=False, device="cpu")
    cut = LongestFirst(max_length=99)
    score = PairScorer(model, Template.of(tokenizer), cut, 10_000, "fp32", "cpu")
    rows = tokenizer(QUERY_TEXTS, add_special_tokens=False)["input_ids"]
    pairs = [(np.array(rows[0]), np.array(row)) for row in rows[1:]]
    alone = [score([pair])[0] for pair in pairs]
    np.testing.assert_allclose(score(pairs), alone, rtol=0, atol=1e-5)
    assert np.ptp(alone) > 1e-4


def other_padding(folder: Path) -> None:
    config(folder, pad_token_id=0)


def no_padding(folder: Path) -> None:
    config(folder, pad_token_id=None)


def tokenizer_without_padding(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in settings.items() if k != "pad_token"}))


def padding_that_ends_pairs(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token": "[CLS]"}))
    config(folder, pad_token_id=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_padding, r"pad_token_id 0 in config\.json and 3 \(\[PAD\]\) in the tokenizer"),
        (no_padding, r"found pad_token_id None in config\.json and 3"),
        (tokenizer_without_padding, r"found pad_token_id 3 in config\.json and None"),
        (padding_that_ends_pairs, r"ends pairs with \[CLS\], which is the padding token too"),
    ],
)
def test_padding_that_such_a_head_would_not_know(decoder, change: Callable, message):
    change(decoder)
    with pytest.raises(ConfigError, match=rf"^teacher\.backbone {decoder}: .*{message}"):
        CrossEncoderTeacher(backbone=str(decoder)).check()
