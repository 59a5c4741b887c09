"""Bi-encoders as strangers have them: sentence-transformers' vectors, or a refusal by name.

Every row of the tables is an input that no other test tries.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edited_models import Change, edited, refused, weights
from families import DOC_TEXTS, QUERY_TEXTS, folder_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as m

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import TextEncoder
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.sentence_modules import folder_reader
from raypipe.models.tokenizer import load_tokenizer

TEXTS = [*QUERY_TEXTS[:2], *DOC_TEXTS[:3], "bama"]
WIDTH, LENGTH = 32, 20


@functools.cache
def saved(kind: str) -> Path:
    """What sentence-transformers saved, once per kind of modules."""
    folder = folder_of("bert").parent / f"hostile-{kind}"
    more = {
        "cls": [m.Pooling(WIDTH, pooling_mode="cls")],
        "mean": [m.Pooling(WIDTH, pooling_mode="mean"), m.Normalize()],
        "dense": [m.Pooling(WIDTH, pooling_mode="mean"), m.Dense(WIDTH, 16)],
        "two norms": [
            m.Pooling(WIDTH, pooling_mode=("weightedmean", "max")),
            m.Normalize(),
            m.Dense(2 * WIDTH, 24, activation_function=torch.nn.SiLU()),
            m.LayerNorm(24),
            m.Normalize(),
        ],
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformer = m.Transformer(str(folder_of("bert")), max_seq_length=LENGTH)
        model = SentenceTransformer(modules=[transformer, *more], device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


@pytest.fixture
def bi_encoder(tmp_path) -> Callable[[str], Path]:
    return lambda kind: Path(shutil.copytree(saved(kind), tmp_path / "model"))


def stored(folder: Path) -> Path:
    """The files that go into the store, elsewhere."""
    target = folder.with_name("stored")
    for name in Backbone(str(folder)).spec()["files"]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, target / name)
    return target


def vectors(folder: Path) -> np.ndarray:
    """By raypipe, with the queries' prefix before the first two, of the files in the store."""
    config = BiEncoder(backbone=str(folder))
    config.check()
    folder = stored(folder)
    read, tokenizer = folder_reader(folder), load_tokenizer(folder)
    query, doc = config.prefixes(read)
    template = Template.of(tokenizer, pair=False)
    model, longest = config.load(folder, "cpu"), config.longest(read)
    encode = TextEncoder(model, template, longest, 200, "fp32", "cpu", prefixed=True)
    texts = [(query if i < 2 else doc) + text for i, text in enumerate(TEXTS)]
    return encode([np.array(r) for r in tokenizer(texts, add_special_tokens=False)["input_ids"]])


def theirs(folder: Path) -> np.ndarray:
    """Text by text: with padding on the left, their vectors depend on the batch."""
    model = SentenceTransformer(str(folder), device="cpu")
    queries = [model.encode_query(text) for text in TEXTS[:2]]
    return np.stack([*queries, *(model.encode_document(text) for text in TEXTS[2:])])


DENSE, POOLING = "2_Dense/config.json", "1_Pooling/config.json"
OWN = "config_sentence_transformers.json"
SAME: dict[str, tuple[str, Change]] = {
    "two norms around Dense and LayerNorm": ("two norms", lambda folder: None),
    "a default prompt of another task": (
        "mean", edited(OWN, prompts={"task": "ba du "}, default_prompt_name="task"),
    ),
    "a default prompt that is the queries'": (
        "mean", edited(OWN, prompts={"query": "ki "}, default_prompt_name="query"),
    ),
    "prompts that are null and empty": ("mean", edited(OWN, prompts={"query": "", "document": ""})),
    "a prompt of passages beside one of queries": (
        "mean", edited(OWN, prompts={"query": "ki ", "passage": "ba du "}),
    ),
    "Dense with Softmax": ("dense", edited(DENSE, activation_function=(
        "torch.nn.modules.activation.Softmax"))),
    "Dense with LogSigmoid": ("dense", edited(DENSE, activation_function=(
        "torch.nn.modules.activation.LogSigmoid"))),
    "pooling with a width that is not true": ("mean", edited(POOLING, embedding_dimension=99)),
    "no own length": ("mean", edited("sentence_bert_config.json", max_seq_length=None)),
    "padding on the left, first token": (
        "cls", edited("tokenizer_config.json", padding_side="left"),
    ),
    "half precision": ("mean", weights(lambda name, value: value.half())),
    "double precision": ("dense", weights(lambda name, value: value.double())),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
@pytest.mark.filterwarnings("ignore:.*compares these vectors by cosine:UserWarning")
def test_vectors(case, bi_encoder):
    kind, change = SAME[case]
    folder = bi_encoder(kind)
    change(folder)
    expected = theirs(folder)
    half = 2e-3 if case == "half precision" else 3e-6  # theirs computes in float16 then
    atol = half * np.abs(expected).max()
    np.testing.assert_allclose(vectors(folder), expected, rtol=0, atol=atol)


def moved(number: int, path: str) -> Change:
    def move(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        (folder / listed[number]["path"]).rename(folder / path)
        listed[number]["path"] = path
        (folder / "modules.json").write_text(json.dumps(listed))

    return move


def activation(name: str) -> Change:
    return edited(DENSE, activation_function=f"torch.nn.modules.{name}")


OTHERS: dict[str, tuple[str, Change, str]] = {
    "pooling in a folder of another name": (
        "cls", moved(1, "pool"), "a Pooling without 1_Pooling/config.json in pool",
    ),
    "Dense in a folder of another name": (
        "dense", moved(2, "proj"), "a Dense in a folder that is not named N_Dense, in proj",
    ),
    "pooling without a file": (
        "cls", lambda f: (f / POOLING).unlink(), "a Pooling without 1_Pooling/config.json",
    ),
    "pooling in a file that is a list": (
        "cls", lambda f: (f / POOLING).write_text("[]"), "a Pooling without 1_Pooling/config.json",
    ),
    "pooling of no kind": ("cls", edited(POOLING, pooling_mode=[]), "pooling of no kind"),
    "pooling of a number": ("cls", edited(POOLING, pooling_mode=3), "pooling of no kind"),
    "cut vectors": ("mean", edited(OWN, truncate_dim=8), "vectors cut to truncate_dim=8"),
    "vectors compared by distance": (
        "mean", edited(OWN, similarity_fn_name="euclidean"), "compared by euclidean distance",
    ),
    "vectors compared by another distance": (
        "mean", edited(OWN, similarity_fn_name="manhattan"), "compared by manhattan distance",
    ),
    "prompts in a list": ("mean", edited(OWN, prompts=["a"]), r"['a'] as prompts, which are"),
    "prompts that are numbers": ("mean", edited(OWN, prompts={"query": 3}), "{'query': 3} as prom"),
    "an activation with weights": ("dense", activation("activation.PReLU"), "activation.PReLU"),
    "an activation with arguments": ("dense", activation("activation.Threshold"), "Threshold"),
    "an activation that is a container": ("dense", activation("container.Sequential"), "Sequent"),
    "long texts cut at their beginning": (
        "mean", edited("tokenizer_config.json", truncation_side="left"), "keeps the end of a long",
    ),
    "quantised weights": (
        "mean", edited("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        "found quantised ones (gptq, quantization_config in its config.json)",
    ),
    "config.json of more layers than there are weights": (
        "mean", edited("config.json", num_hidden_layers=3), "16 are missing and would be random",
    ),
    "weights of more layers than config.json has": (
        "mean", edited("config.json", num_hidden_layers=1), "the file has layers that config.json",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_bi_encoders_refused(case, bi_encoder):
    kind, change, message = OTHERS[case]
    folder = bi_encoder(kind)
    change(folder)
    said = refused(BiEncoder(backbone=str(folder)).check)
    assert message in said and str(folder) in said


def test_vectors_whose_cosine_is_not_their_product_are_said(bi_encoder):
    folder = bi_encoder("cls")
    with pytest.warns(UserWarning, match="vectors by cosine, raypipe by product.*normalize=true"):
        BiEncoder(backbone=str(folder)).check()
    edited(OWN, similarity_fn_name="dot")(folder)
    for fields in ({}, {"normalize": False}):
        BiEncoder(backbone=str(folder), **fields).check()
