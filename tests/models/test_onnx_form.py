"""model.onnx and its tokenizer.json, run by the lines of the card: onnxruntime and tokenizers."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from card_facts import FACTS, blocks
from families import DOC_TEXTS, FAMILIES, QUERY_TEXTS, folder_of, spread
from tokenizers import Tokenizer

from raypipe.config import ConfigError
from raypipe.models import onnx_form
from raypipe.models.card import card
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.onnx_form import MODEL_FILE, write_onnx
from raypipe.models.tokenizer import load_tokenizer

LIMIT = 24
PAIRS = list(zip(QUERY_TEXTS, DOC_TEXTS, strict=False))
KINDS = [("bert", "similarity"), ("roberta", "similarity"), ("electra", "classifier")]
"""Token types, a separator, and a family's own head; the other families take a minute each."""
TRICKS = "ki [SEP] ne </s> lo <s> [CLS] du [PAD] ma <pad> [MASK]"
"""Every family's special tokens, which are text in a text."""


def model_of(family: str, head: str) -> torch.nn.Module:
    folder = folder_of(family)
    model = CrossEncoder(backbone=str(folder), head=head).load(
        folder, 1, training=False, device="cpu"
    )
    spread(model)
    return model


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def written(request, tmp_path_factory) -> tuple[Path, torch.nn.Module, str]:
    (family, head), folder = request.param, tmp_path_factory.mktemp("onnx")
    model = model_of(family, head)
    difference = write_onnx(model, folder_of(family), folder, LIMIT, PAIRS)
    assert 0 <= difference <= 1e-4
    facts = replace(FACTS, form="onnx", head=head)
    card(facts).save(folder / "README.md")
    return folder, model, family


def test_the_cards_lines_give_the_models_scores(written, monkeypatch):
    """One pair and many, short and cut, and special tokens as text: any batch, any length."""
    folder, model, family = written
    monkeypatch.chdir(folder)
    example, code = blocks((folder / "README.md").read_text("utf-8"))
    space: dict = {}
    exec(example, space)
    tokenizer = load_tokenizer(folder_of(family))
    seen = set()
    for documents in (["du"], DOC_TEXTS[:3], [TRICKS, "ba"], DOC_TEXTS * 2):
        space |= {"query": QUERY_TEXTS[1], "documents": documents}
        exec(code, space)
        limits = {"truncation": True, "max_length": LIMIT, "padding": True}
        queries = [QUERY_TEXTS[1]] * len(documents)
        inputs = tokenizer(queries, documents, return_tensors="pt", **limits)
        with torch.inference_mode():
            expected = model(**inputs).logits[:, 0].numpy()
        np.testing.assert_allclose(space["scores"], expected, rtol=0, atol=1e-4)
        seen.add(tuple(inputs["input_ids"].shape))
    assert len({batch for batch, _ in seen}) > 2 and len({length for _, length in seen}) > 2
    assert np.ptp(space["scores"]) > 0.001


def test_both_axes_are_free_and_the_score_is_float32(written):
    files = {path.name for path in written[0].iterdir()}
    assert files == {MODEL_FILE, "tokenizer.json", "README.md"}
    session = onnxruntime.InferenceSession(str(written[0] / MODEL_FILE))
    assert {tuple(entry.shape) for entry in session.get_inputs()} == {("batch", "length")}
    (score,) = session.get_outputs()
    assert (score.name, score.shape, score.type) == ("score", ["batch"], "tensor(float)")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_tokenizer_gives_the_models_inputs(family, tmp_path):
    own = load_tokenizer(folder_of(family))
    onnx_form._write_tokenizer(own, tmp_path / "tokenizer.json", LIMIT)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    pairs = [*PAIRS, (TRICKS, "ba"), ("ba", TRICKS), ("du", DOC_TEXTS[0] * 9)]
    found = tokenizer.encode_batch(pairs)
    queries, docs = (list(side) for side in zip(*pairs, strict=True))
    expected = own(
        queries, docs, truncation=True, max_length=LIMIT, padding=True, return_token_type_ids=True
    )
    assert [pair.ids for pair in found] == expected["input_ids"]
    assert [pair.attention_mask for pair in found] == expected["attention_mask"]
    if "token_type_ids" in own.model_input_names:
        assert [pair.type_ids for pair in found] == expected["token_type_ids"]


def test_no_torch_is_needed(written, tmp_path):
    folder = written[0]
    code = "".join(blocks((folder / "README.md").read_text("utf-8")))
    absent = "import sys\nsys.modules['torch'] = sys.modules['transformers'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{absent}{code}print(len(scores))"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    assert done.stdout == "2\n"


def test_a_file_with_other_scores_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_form, "_export", lambda *given: None)
    monkeypatch.setattr(onnx_form, "_scores", lambda path, inputs: np.full(len(PAIRS), np.nan))
    with pytest.raises(ConfigError, match=r"^--form onnx: expected the model's scores to 0.0001, "):
        write_onnx(model_of("bert", "similarity"), folder_of("bert"), tmp_path, LIMIT, PAIRS)


def test_a_model_that_torch_cannot_express_is_refused(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, input_ids, **rest):
            raise RuntimeError("no such operator\nsecond line")

    with pytest.raises(
        ConfigError, match=r"^--form onnx: torch cannot express this model in ONNX \("
    ):
        write_onnx(Odd(), folder_of("bert"), tmp_path, LIMIT, PAIRS)
