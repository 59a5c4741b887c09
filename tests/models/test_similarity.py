"""The similarity head: by hand, the same scores wherever it is opened, and who must not open it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from families import FAMILIES, folder_of, spread
from side_by_side import printed, side_by_side

from raypipe.config import ConfigError
from raypipe.inference.tokens import load_tokenizer
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.freeze import freeze
from raypipe.models.sentence_modules import averages_tokens, folder_reader

QUERIES = ["ba ma du?", "ki ne", "lo ri zu to pra"]
DOCS = ["Yes, ba ma ki lo ne.", "du du ri", "zu"]


def load(folder: Path, seed: int = 1, *, training: bool = False, **fields) -> torch.nn.Module:
    config = CrossEncoder(backbone=str(folder), **fields)
    return config.load(folder, seed, training=training, device="cpu")


def scores(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    tokenizer = load_tokenizer(folder)
    inputs = tokenizer(QUERIES, DOCS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[:, 0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A saved model whose scores differ."""
    source = folder_of("bert")
    model = load(source, head="similarity")
    spread(model)
    with torch.no_grad():
        model.classifier.weight.fill_(7.5)
    folder = tmp_path_factory.mktemp("similarity") / "checkpoint"
    save(model, folder, source, 24)
    return folder


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_by_hand(family):
    """Each pair alone, its states averaged by the tokenizer's own account of who is who."""
    folder = folder_of(family)
    model = load(folder, head="similarity")
    tokenizer = load_tokenizer(folder)
    expected = []
    for query, doc in zip(QUERIES, DOCS, strict=True):
        pair = tokenizer(query, doc, return_tensors="pt")
        sides = pair.sequence_ids(0)
        first = sides.index(1)  # the marks between both belong to the query
        inputs = {name: pair[name] for name in tokenizer.model_input_names if name in pair}
        with torch.no_grad():
            states = model.encoder(**inputs).last_hidden_state[0]
        cosine = torch.cosine_similarity(states[:first].mean(0), states[first:].mean(0), dim=0)
        expected.append(20 * float(cosine))
    assert scores(model, folder).tolist() == pytest.approx(expected, abs=1e-4)


def test_nothing_is_drawn_at_random():
    folder = folder_of("bert")
    models = [load(folder, seed, head="similarity") for seed in (1, 2)]
    assert torch.equal(*(scores(model, folder) for model in models))


def test_scores_are_float32_under_autocast():
    folder = folder_of("bert")
    model = load(folder, head="similarity")
    with torch.autocast("cpu", torch.bfloat16):
        assert scores(model, folder).dtype == torch.float32


def test_a_saved_head_scores_the_same_and_keeps_its_settings(checkpoint):
    model = load(checkpoint, hidden_dropout=0.25, keep_layers=1, training=True)
    assert model.config.of_backbone().hidden_dropout_prob == 0.25
    assert len(model.encoder.encoder.layer) == model.config.num_hidden_layers == 1
    assert freeze(load(checkpoint), embeddings=True, position_embeddings=True, layers=1) > 0
    model = load(checkpoint)
    again = checkpoint.with_name("again")
    save(model, again, checkpoint, 24)
    assert torch.equal(scores(load(again), again), scores(model, checkpoint))
    assert "/" not in (again / "config.json").read_text()  # no path of this machine


def test_every_way_to_open_it_gives_its_scores_and_a_plain_loader_fails(checkpoint, tmp_path):
    """`python tests/helpers/side_by_side.py` prints the same for a real sentence encoder."""
    found, refused = side_by_side(checkpoint, list(zip(QUERIES, DOCS, strict=True)), 24, tmp_path)
    assert refused == {"transformers", "sentence-transformers", "plain"}
    expected = scores(load(checkpoint), checkpoint).tolist()
    print(printed(found))
    for way, values in found.items():
        tolerance = 1e-4 if way == "onnxruntime" else 1e-5
        assert values == pytest.approx(expected, abs=tolerance), way
    assert len(found) == 5 and max(expected) - min(expected) > 0.1


def test_its_pyfunc_runs_no_code_of_the_folder(checkpoint, tmp_path):
    import mlflow

    from raypipe.tracking import save_pyfunc

    trap = tmp_path / "trap"
    shutil.copytree(checkpoint, trap)
    (trap / "raypipe_similarity.py").write_text("raise SystemExit('the code of the folder ran')")
    save_pyfunc(tmp_path / "model", trap)
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    found = model.predict(pd.DataFrame({"query": QUERIES, "text": DOCS}))["score"].tolist()
    assert found == pytest.approx(scores(load(trap), trap).tolist(), abs=1e-5)


def test_auto_is_similarity_for_a_sentence_encoder_that_averages(tmp_path):
    folder = tmp_path / "encoder"
    shutil.copytree(folder_of("bert"), folder)
    assert CrossEncoder(backbone=str(folder)).resolved_head == "classifier"
    assert "head" not in CrossEncoder(backbone=str(folder)).semantic()
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    listed = [{"type": f"sentence_transformers.models.{t}", "path": p} for p, t in modules]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    for pooling, head in {
        '{"pooling_mode_mean_tokens": true}': "similarity",
        '{"pooling_mode": "mean"}': "similarity",
        '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}': "classifier",
    }.items():
        (folder / "1_Pooling" / "config.json").write_text(pooling)
        model = CrossEncoder(backbone=str(folder))
        assert model.resolved_head == head
        assert model.semantic().get("head", "classifier") == head
        assert (load(folder).config.model_type == "raypipe_similarity") == (head == "similarity")
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    assert CrossEncoder(backbone=str(folder), head="classifier").resolved_head == "classifier"
    assert load(folder, head="classifier").config.model_type == "bert"


def test_a_trained_head_stays_what_it_is(checkpoint, tmp_path):
    assert CrossEncoder(backbone=str(checkpoint)).resolved_head == "similarity"
    assert not averages_tokens(folder_reader(checkpoint))
    with pytest.raises(ConfigError, match=r"model.head=classifier: .* with the head similarity"):
        CrossEncoder(backbone=str(checkpoint), head="classifier").check()
    plain = tmp_path / "plain"
    save(load(folder_of("bert"), head="classifier"), plain, folder_of("bert"), 24)
    with pytest.raises(ConfigError, match=r"model.head=similarity: .* with the head classifier"):
        CrossEncoder(backbone=str(plain), head="similarity").check()


def test_dropout_below_the_head_counts(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    model = CrossEncoder(backbone=str(checkpoint), hidden_dropout=0.0)
    assert not model.has_dropout(config)
    assert model.replace(hidden_dropout=0.1).has_dropout(config)


class _NoMark:
    """A tokenizer that joins query and document without a special token."""

    model_input_names = ("input_ids",)

    def __call__(self, query, doc, return_token_type_ids):
        return _Joined({"input_ids": [5, 6], "token_type_ids": [0, 0]})


class _Joined(dict):
    def sequence_ids(self, number):
        return [0, 1]


def test_a_tokenizer_without_a_mark_is_refused():
    from raypipe.models.weights import separator_of

    with pytest.raises(ConfigError, match=r"x: model.head=similarity needs a token that marks"):
        separator_of(_NoMark(), "x")
