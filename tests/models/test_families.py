"""Every backbone family: pairs as its tokenizer gives them, trained, saved, opened elsewhere."""

from __future__ import annotations

import copy
import json
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from families import (
    CUT,
    DOC_TEXTS,
    FAMILIES,
    QUERY_TEXTS,
    batcher_of,
    fit,
    folder_of,
    model_of,
    store_of,
    write_arrow,
)

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import LongestFirst, MaxP, Truncation
from raypipe.losses.listwise import InfoNCE
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.tokenizer import load_tokenizer

every_family = pytest.mark.parametrize("family", FAMILIES)
ODD = ["[SEP] ki </s>", "Ärger, naïve — 7 °C", "x", "  two\n\nlines\t", "<s>[CLS][MASK]<mask>"]
PAIRS = [
    *[(q, d) for q in QUERY_TEXTS[:3] for d in DOC_TEXTS[:5]],
    *[(a, b) for a in ODD for b in [*ODD, " ".join(DOC_TEXTS[:3])]],
    (" ".join(QUERY_TEXTS), " ".join(DOC_TEXTS[:4])),
    (" ".join(QUERY_TEXTS), DOC_TEXTS[0]),
]


def assembled(folder: Path, tokenizer, pairs: list[tuple[str, str]], length: int):
    """From a token store, as scoring and training read it."""
    sides = []
    for number, texts in enumerate(zip(*pairs, strict=True)):
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        write_arrow(folder / str(number), token_table(rows, len(tokenizer)))
        sides.append(TokenReader(folder / str(number)))
    template, truncation = Template.of(tokenizer), LongestFirst(max_length=length)
    cut = []
    for row in range(len(pairs)):
        query, doc = sides[0][row], sides[1][row]
        n_query, n_doc = truncation.cut(len(query), len(doc), template.n_special)
        cut.append((query[:n_query], doc[:n_doc]))
    return template.pad(cut)


@every_family
@pytest.mark.parametrize("length", [8, 17, 24, 60, 512])
def test_pairs_equal_the_tokenizers(family, length, tmp_path):
    tokenizer = load_tokenizer(folder_of(family))
    queries, docs = map(list, zip(*PAIRS, strict=True))
    expected = tokenizer(
        queries,
        docs,
        truncation="longest_first",
        max_length=length,
        padding=True,
        return_tensors="np",
    )
    found = assembled(tmp_path, tokenizer, PAIRS, length)
    assert set(found) == set(expected)
    assert ("token_type_ids" in found) == (family not in ("roberta", "modernbert"))
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    longest = int(found["attention_mask"].sum(1).max())
    assert longest == length or length == 512
    assert found["attention_mask"].min() == 0 or length == 8  # there is padding to compare


@every_family
def test_tokenizers_are_of_the_family(family):
    template = Template.of(load_tokenizer(folder_of(family)))
    found = (template.before, template.between, template.after, template.pad_id)
    assert (
        found
        == {
            "bert": ((2,), (3,), (3,), 0),
            "roberta": ((0,), (2, 2), (2,), 1),
            "electra": ((2,), (3,), (3,), 0),
            "deberta_v3": ((1,), (2,), (2,), 0),
            "modernbert": ((1,), (2,), (2,), 3),
            "minilm": ((2,), (3,), (3,), 0),
        }[family]
    )


def load(folder: Path, **fields):
    config = CrossEncoder(backbone=str(folder), **fields)
    return config.load(folder, 99, training=False, device="cpu")


def our_scores(model, folder: Path, pairs, precision: str = "fp32", cut: Truncation = CUT):
    tokenizer = load_tokenizer(folder)
    score = PairScorer(
        model.eval(),
        Template.of(tokenizer),
        cut,
        200,
        precision,
        "cpu",
    )
    sides = [
        tokenizer(list(side), add_special_tokens=False)["input_ids"]
        for side in zip(*pairs, strict=True)
    ]
    return score([(np.array(q), np.array(d)) for q, d in zip(*sides, strict=True)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """family -> (the model after a dozen steps on one batch, losses, the folder it is saved in)."""
    done = {}

    def of(family: str):
        if family not in done:
            model = model_of(family)
            outcome = fit(model, family, InfoNCE(), steps=12, lr=5e-3)
            losses = [row["loss"] for row in outcome.history if "loss" in row]
            folder = tmp_path_factory.mktemp(family) / "saved"
            save(model, folder, folder_of(family), CUT.max_length)
            done[family] = (model, losses, folder)
        return done[family]

    return of


@every_family
def test_training_lowers_the_loss_of_one_batch_and_moves_every_weight(family, trained):
    model, losses, _ = trained(family)
    assert losses[-1] < 0.8 * losses[0]
    before = model_of(family).state_dict()
    still = {name for name, value in model.state_dict().items() if torch.equal(value, before[name])}
    # only sums of scores see the last bias, and no segment 1 is in RoBERTa's inputs
    assert not {name for name in still if not name.endswith(("classifier.bias", "out_proj.bias"))}


@every_family
def test_a_saved_model_scores_equally(family, trained):
    model, _, folder = trained(family)
    again = load(folder)
    assert list(again.state_dict()) == list(model.state_dict())
    scores = our_scores(model, folder, PAIRS)
    assert np.array_equal(scores, our_scores(again, folder, PAIRS))
    assert np.ptp(scores) > 0.05
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@every_family
def test_other_loaders_give_the_same_scores(family, trained):
    """Of texts that spell special tokens, too: they stay text."""
    from sentence_transformers import CrossEncoder as TheirCrossEncoder
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from raypipe.tracking.pyfunc import Reranker

    _, _, folder = trained(family)
    ours = our_scores(load(folder), folder, PAIRS)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == CUT.max_length
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    queries, docs = map(list, zip(*PAIRS, strict=True))
    encoded = tokenizer(queries, docs, truncation=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model.eval()(**encoded).logits[:, 0].numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    predicted = TheirCrossEncoder(str(folder), device="cpu").predict(PAIRS)
    np.testing.assert_allclose(ours, predicted, rtol=0, atol=1e-5)
    pyfunc, table = Reranker(), pd.DataFrame({"query": queries, "text": docs})
    pyfunc.load_context(types.SimpleNamespace(artifacts={"checkpoint": str(folder)}))
    np.testing.assert_allclose(ours, pyfunc.predict(None, table)["score"], rtol=0, atol=1e-5)
    passages = {"query": 9, "length": 12, "stride": 8, "max_passages": 3}
    pyfunc.windows = passages
    best = pyfunc.predict(None, table)["score"]
    cut = MaxP(**passages)
    np.testing.assert_allclose(
        our_scores(load(folder), folder, PAIRS, cut=cut), best, rtol=0, atol=1e-5
    )


@every_family
def test_scores_do_not_depend_on_padding(family, trained):
    """ModernBERT's head takes a mean over tokens: those of the padding must not count."""
    model, _, folder = trained(family)
    one_by_one = [our_scores(model, folder, [pair])[0] for pair in PAIRS[:8]]
    np.testing.assert_allclose(our_scores(model, folder, PAIRS)[:8], one_by_one, rtol=0, atol=1e-5)


@every_family
def test_the_head_computes_in_float32_under_bf16(family, trained):
    model, _, folder = trained(family)
    scores = our_scores(model, folder, PAIRS, "bf16")
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert (scores != rounded).mean() > 0.9
    np.testing.assert_allclose(scores, our_scores(model, folder, PAIRS), rtol=0, atol=0.3)


@every_family
def test_a_copy_has_a_head_of_its_own(family):
    """Averages of seeds and kept best weights are made from copies."""
    model = model_of(family).eval()
    twin = copy.deepcopy(model)
    inputs = {
        name: torch.from_numpy(array)
        for name, array in next(batcher_of(family, "labels").blocks([0])).batches[0][1].items()
    }
    before = model(**inputs).logits
    assert torch.equal(before, twin(**inputs).logits)
    with torch.no_grad():
        for name, value in twin.named_parameters():
            if name.startswith("classifier"):
                value.add_(1.0)
    assert torch.equal(before, model(**inputs).logits)
    assert not torch.equal(before, twin(**inputs).logits)


@every_family
def test_keep_layers_is_the_beginning_of_the_whole(family, tmp_path):
    whole, first = load(folder_of(family)), load(folder_of(family), keep_layers=1)
    depth = whole.config.num_hidden_layers
    assert depth > 1 == first.config.num_hidden_layers
    weights, kept = whole.state_dict(), first.state_dict()
    assert set(kept) < set(weights)
    below = f"{whole.base_model_prefix}."
    assert all(torch.equal(v, weights[n]) for n, v in kept.items() if n.startswith(below))
    gone = set(weights) - set(kept)
    assert gone and all(".1." in name or ".2." in name for name in gone)
    save(first, tmp_path / "saved", folder_of(family), CUT.max_length)
    again = load(tmp_path / "saved", keep_layers=1)
    scores = our_scores(first, folder_of(family), PAIRS)
    assert np.array_equal(scores, our_scores(again, tmp_path / "saved", PAIRS))
    assert not np.array_equal(scores, our_scores(whole, folder_of(family), PAIRS))
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["num_hidden_layers"] == 1


@every_family
def test_no_dropout_is_left_when_it_is_set_to_zero(family):
    inputs = next(batcher_of(family, "labels").blocks([0])).batches[0][1]
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}

    def twice(**fields) -> bool:
        model = CrossEncoder(backbone=family, **fields).load(
            folder_of(family), 1, training=True, device="cpu"
        )
        one, two = (model(**tensors).logits for _ in range(2))
        published = json.loads((folder_of(family) / "config.json").read_text())
        assert CrossEncoder(backbone=family, **fields).has_dropout(published) != torch.equal(
            one, two
        )
        return torch.equal(one, two)

    assert twice(hidden_dropout=0.0)
    assert not twice(hidden_dropout=0.3)
    assert not twice(hidden_dropout=0.0, attention_dropout=0.3)


@every_family
def test_stores_hold_what_the_tokenizer_gives(family):
    tokenizer = load_tokenizer(folder_of(family))
    docs = TokenReader(store_of(family) / "docs")
    assert len(docs) == len(DOC_TEXTS)
    for row in (0, 9, 23):
        ids = tokenizer(DOC_TEXTS[row], add_special_tokens=False)["input_ids"]
        assert docs[row].tolist() == ids
        assert tokenizer.unk_token_id not in ids
