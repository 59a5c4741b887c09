"""The distilled classifier, part by part and without a cluster; test_export.py has the whole."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from families import CUT, DOCS, FAMILIES, QUERIES, folder_of, spread, store_of

from raypipe.commands import plain_form
from raypipe.inference.pairs import Template
from raypipe.inference.token_reader import TokenReader
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.plain_head import plain_classifier
from raypipe.models.tokenizer import load_tokenizer
from raypipe.records import CANDIDATES, QRELS
from raypipe.stages.validation import Validation
from raypipe.train.group_reader import GroupReader

STAGE = SimpleNamespace(
    seed=1, truncation=CUT, precision="fp32", positive_relevance=1, selection="nDCG@10"
)


def head_of(family: str) -> torch.nn.Module:
    folder = folder_of(family)
    model = CrossEncoder(backbone=str(folder), head="similarity").load(
        folder, 1, training=False, device="cpu"
    )
    spread(model)
    return model


def inputs_of(family: str) -> dict:
    store = store_of(family)
    folders = {"query_tokens": "queries", "doc_tokens": "docs", "groups": "groups"}
    return {
        name: SimpleNamespace(local=partial(store.joinpath, folder))
        for name, folder in folders.items()
    }


def scorer_of(family: str, model: torch.nn.Module):
    return plain_form._scorer(STAGE, Template.of(load_tokenizer(folder_of(family))), "cpu", model)


def lists_of(family: str) -> Validation:
    """Every query with all documents; document i is relevant for query i."""
    store, docs = store_of(family), [f"d{i}" for i in range(DOCS)]
    rows = [
        {"query_id": f"q{i}", "doc_ids": docs, "ranks": range(1, DOCS + 1), "scores": [0.0] * DOCS,
         "sources": [""] * DOCS}
        for i in range(QUERIES)
    ]  # fmt: skip
    qrels = [{"query_id": f"q{i}", "doc_id": f"d{i}", "relevance": 1} for i in range(QUERIES)]
    return Validation(
        pa.Table.from_pylist(rows, schema=CANDIDATES),
        pa.Table.from_pylist(qrels, schema=QRELS),
        list(range(QUERIES)),
        [list(range(DOCS))] * QUERIES,
        TokenReader(store / "queries"),
        TokenReader(store / "docs"),
        ["nDCG@10"],
        1,
        DOCS,
    )


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_classifier_has_the_encoder_and_gives_the_mean(family, tmp_path):
    """Of every family; saved, it opens as one of its family's own, by no other code."""
    head = head_of(family)
    head.config.raypipe = {"truncation": {"type": "longest_first", "max_length": 24}}
    plain = plain_classifier(head, 1, 7.5).eval()
    encoder = plain.base_model.state_dict()
    for name, value in head.encoder.state_dict().items():
        assert torch.equal(encoder[name], value)
    inputs = load_tokenizer(folder_of(family))(["ba"], ["du"], return_tensors="pt")
    with torch.no_grad():
        assert float(plain(**inputs).logits[0, 0]) == pytest.approx(7.5, abs=3)
    save(plain, tmp_path, folder_of(family), 24)
    again = CrossEncoder(backbone=str(tmp_path)).load(tmp_path, 1, training=False, device="cpu")
    assert type(again).__name__ == f"{type(head.encoder).__name__.removesuffix('Model')}" + (
        "ForSequenceClassification"
    )
    assert again.config.raypipe == head.config.raypipe
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, plain(**inputs).logits)


def test_groups_get_the_heads_scores(tmp_path):
    score = scorer_of("bert", head_of("bert"))
    seconds = plain_form._score_groups(inputs_of("bert"), STAGE, score, tmp_path)
    assert seconds > 0
    given, scored = GroupReader(store_of("bert") / "groups"), GroupReader(tmp_path)
    assert len(scored) == len(given)
    before = {given[row][0]: given[row] for row in range(len(given))}
    queries, docs = (TokenReader(store_of("bert") / name) for name in ("queries", "docs"))
    for row in range(len(scored)):
        query, members, relevance, values = scored[row]
        assert np.array_equal(members, before[query][1])
        assert np.array_equal(relevance, before[query][2])
        pairs = [(queries[query], docs[int(doc)]) for doc in members]
        np.testing.assert_allclose(values, score(pairs), atol=1e-4)


def test_no_more_groups_than_the_time_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_form, "MOST_MINUTES", 0.0)
    monkeypatch.setattr(plain_form, "_CHUNK", 4)
    score = scorer_of("bert", head_of("bert"))
    plain_form._score_groups(inputs_of("bert"), STAGE, score, tmp_path)
    assert len(GroupReader(tmp_path)) == 4
    settings = plain_form._settings(GroupReader(tmp_path), 0.1)
    assert (settings.steps, settings.queries_per_step) == (1, 4)


def test_steps_fit_into_the_time():
    groups, seconds = [None] * 3200, 0.1
    bound = 60 * plain_form.MOST_MINUTES / (seconds * plain_form._COST * 16)
    assert plain_form._settings(groups, seconds).steps == int(bound)
    assert bound < plain_form.MOST_EPOCHS * 200
    assert plain_form._settings(groups, seconds / 1000).steps == plain_form.MOST_EPOCHS * 200


def test_training_brings_the_two_orders_together(tmp_path):
    head = head_of("bert")
    score = scorer_of("bert", head)
    plain_form._score_groups(inputs_of("bert"), STAGE, score, tmp_path)
    groups = GroupReader(tmp_path)
    values = groups.values(len(groups))[1]
    plain = plain_classifier(head, 1, float(values.mean()))
    settings = plain_form._settings(groups, 1e-6).replace(steps=150, lr=3e-3)
    lists = lists_of("bert")
    fresh = plain_form._compared(lists, score, scorer_of("bert", plain.eval()))
    plain_form._fit(plain, settings, groups, inputs_of("bert"), STAGE, score.template)
    taught = plain_form._compared(lists, score, scorer_of("bert", plain.eval()))
    own = plain_form._compared(lists, score, score)
    assert own.agreement == pytest.approx(1.0) and own.lost("nDCG@10") == 0
    assert taught.agreement > fresh.agreement + 0.2
    assert taught.head == fresh.head and taught.classifier != fresh.classifier
    queries, docs = (TokenReader(store_of("bert") / name) for name in ("queries", "docs"))
    pairs = [(queries[g[0]], docs[int(d)]) for g in map(groups.__getitem__, range(len(groups)))
             for d in g[1]]  # fmt: skip
    error = float(np.mean((scorer_of("bert", plain)(pairs) - values) ** 2))
    assert error < 0.2 * float(values.var())


def test_the_first_lists_are_judged_alone():
    lists = lists_of("bert")
    two = lists.first(2)
    assert set(two.qrels["query_id"].to_pylist()) == {"q0", "q1"}
    order = {f"q{i}": [float(doc == i) for doc in range(DOCS)] for i in range(2)}
    assert two.measured(order) == {"nDCG@10": 1.0}
    assert lists.first(99).first_stage() == lists.first_stage()
