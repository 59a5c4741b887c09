"""What the steps of teachers put into their digests: artifacts on disk depend on it."""

from __future__ import annotations

from typing import Any

import pytest
from hub_models import as_if_on_the_hub
from pydantic import TypeAdapter

from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.inference.lists import Lists
from raypipe.models.backbone import Backbone
from raypipe.storage.artifacts import Step
from raypipe.teachers import Teacher

SETS = QuerySet(dataset="pydoc:numpy", split="test")
LISTS = Lists(Backbone("first/stage"), None, Collection(SETS), Queries(SETS, False), 10)
A = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
B = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
HTTP = {"type": "http", "url": "http://h:1/v1", "model": "m"}
ENGINE = {
    **{"type": "http", "model": "m", "temperature": 0.0, "top_logprobs": 20},
    **{"extra_body": {}, "context_tokens": 4096, "tokenizer": None},
}
TASK = {"version": 1, "instruction": None, "queries_per_chunk": None}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """Files `a` and `b` in the working directory; every model is on the hub."""
    as_if_on_the_hub(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / name).write_text(name)


def first(**teacher: Any) -> Step:
    config: Any = TypeAdapter(Teacher).validate_python(teacher)
    step: Step = config.scores(LISTS, "fp32")
    return step


@pytest.mark.parametrize("column", ["rank", "score"])
def test_run_file(column):
    step = first(type="run_file", paths=["a", "b"], column=column)
    assert step.spec() == {"format": "run_file", "values": column, "files": [A, B]}
    assert list(step.inputs()) == ["collection", "queries"]


@pytest.mark.parametrize("unparsable", ["drop", "keep"])
def test_rankgpt(unparsable):
    step = first(type="rankgpt", lists="a", permutations="b", unparsable=unparsable)
    files = {"format": "rankgpt", "values": "rank", "files": [A, B]}
    assert step.spec() == {**files, "unparsable": unparsable}
    assert list(step.inputs()) == ["collection", "queries"]


@pytest.mark.parametrize(
    ("format_", "more"),
    [
        ("mono_scores", {}),
        ("ensemble_scores", {}),
        ("duo_scores", {"aggregation": "mean"}),
        ("duo_scores", {"aggregation": "sum"}),
    ],
)
def test_published_scores(format_, more):
    step = first(type=format_, paths=["a"], **more)
    shared = {"format": format_, "values": "score", "files": [A], "depth": 10}
    assert step.spec() == {**shared, **more}
    assert step.name == f"{format_}-stage"
    assert list(step.inputs()) == ["candidates", "collection", "queries"]


def test_cross_encoder():
    budgets = {"type": "budgets", "query": 9, "doc": 8}
    step = first(type="cross_encoder", backbone="b", truncation=budgets)
    truncation = {"class": "Budgets", "version": 1, **budgets}
    assert step.spec() == {"depth": 10, "truncation": truncation, "precision": "fp32"}
    models = ["weights", "query_tokens", "doc_tokens"]
    assert list(step.inputs()) == ["candidates", "collection", "queries", *models]


@pytest.mark.parametrize(
    ("type_", "weight"), [("bi_encoder", {}), ("fusion", {"first_stage_weight": 0.25})]
)
def test_bi_encoder(type_, weight):
    step = first(type=type_, backbone="b", max_length=99, doc_prefix="p: ", **weight)
    assert step.spec() == {"depth": 10, "first_stage_weight": 0.0, **weight}
    assert step.name == f"{type_}-stage"
    assert step.inputs()["doc_vectors"].spec() == {
        **{"class": "BiEncoder", "version": 1, "pooling": "auto", "normalize": True},
        **{"max_length": 99, "prefix": "p: ", "precision": "fp32"},
    }


def test_ensemble():
    teachers = {
        "x": {"type": "run_file", "paths": ["a"]},
        "y": {"type": "mono_scores", "paths": ["b"]},
    }
    step = first(type="ensemble", teachers=teachers, weights={"y": 0.5}, normalise="min_max")
    members = {"x": ["rank", 1.0], "y": ["score", 0.5]}
    assert step.spec() == {"members": members, "normalise": "min_max"}
    inputs = step.inputs()
    assert list(inputs) == ["candidates", "member_x", "member_y"]
    assert inputs["member_y"].spec()["files"] == [B]


@pytest.mark.parametrize(
    ("type_", "own"),
    [
        (
            "listwise",
            {"prompt": "rank_zephyr", "window": 5, "stride": 2, "passes": 1},
        ),
        ("pairwise", {"neighbours": 5, "both_orders": True}),
        ("pointwise", {}),
    ],
)
def test_llm(type_, own):
    step = first(type=f"{type_}_llm", engine=HTTP, depth=6, max_failed=0.5, **own)
    assert step.spec() == {
        "task": {"class": type_.capitalize(), **TASK, **own},
        "depth": 6,
        "engine": ENGINE,
        "precision": None,
        **({"scale": "log-odds"} if type_ == "pointwise" else {}),
    }
    assert step.name == f"{type_}-m-stage"
    assert first(type=f"{type_}_llm", engine=HTTP).spec()["depth"] == 10
    named = first(type=f"{type_}_llm", engine={**HTTP, "revision": "2026-01"})
    assert named.spec()["engine"] == {**ENGINE, "revision": "2026-01"}
