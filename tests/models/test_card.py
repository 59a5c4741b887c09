"""Model cards: the text against a golden file, its code blocks against our own scores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_names import markdown_blocks
from card_facts import FACTS, blocks
from huggingface_hub import ModelCard

from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.truncation import Budgets, LongestFirst, MaxP
from raypipe.models.card import GroupFacts, QueryFacts, card, hub_dataset
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.distillation import Distillation, HeadComparison
from raypipe.models.tokenizer import load_tokenizer
from raypipe.tracking.models import write_interpolation

GOLDEN = Path(__file__).parent / "golden" / "card.md"
TRUNCATIONS = [
    LongestFirst(max_length=24),
    Budgets(query=4, doc=12),
    MaxP(query=4, length=8, stride=4, max_passages=3),
]


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_golden_card():
    assert str(card(FACTS)) == GOLDEN.read_text("utf-8")


def test_the_hub_reads_the_metadata(tmp_path):
    card(FACTS).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert data.library_name == "sentence-transformers" and data.pipeline_tag == "text-ranking"
    assert data.base_model == "nreimers/MiniLM-L6-H384-uncased"
    assert data.datasets == ["irds/beir_scifact_train"]
    assert {"cross-encoder", "reranker"} <= set(data.tags)


def test_the_metadata_has_nothing_that_the_hub_cannot_link_to():
    queries = (QueryFacts("train", "pydoc", "train", 9, 9), *FACTS.queries[1:])
    local = card(dataclasses.replace(FACTS, base_model=None, queries=queries))
    assert local.data.to_dict().keys() == {"library_name", "pipeline_tag", "tags"}
    assert "`MiniLM-L6-H384-uncased`" in local.text


def test_no_folder_of_this_machine_is_published():
    text = str(card(FACTS))
    assert "someone" not in text and "own\\|set" in text


@pytest.mark.parametrize(
    ("dataset", "shown"),
    [
        ("beir:/home/someone/set/", "beir:set"),
        ("files:corpus=/a/b c/c.tsv,queries=~/q.tsv,text={x} / {y}",
         "files:corpus=c.tsv,queries=q.tsv,text={x} / {y}"),
        ("trec:collection=/c,topics=/a/t", "trec:collection=c,topics=t"),
        ("beir/scifact/train", "beir/scifact/train"),
    ],
)  # fmt: skip
def test_files_are_named_without_their_folders(dataset, shown):
    queries = [QueryFacts("train", dataset, None, 9, 9)]
    made = card(dataclasses.replace(FACTS, queries=queries))
    assert f"| {shown} |" in made.text.replace("\\", "")
    assert "irds/beir_scifact_train" in str(made.data.datasets) or ":" in dataset


def test_how_texts_were_made_is_said_as_code():
    text = card(dataclasses.replace(FACTS, text="{title} | {my brand}: '{no}'")).text
    code = section(text, "How to load").rpartition("```python\n")[2].partition("```")[0]
    there: dict[str, object] = {}
    exec(code, there)
    assert there["row"] == {"title": "", "my brand": "", "no": ""}
    assert there["text"] == "| : ''"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("beir/scifact/train", "irds/beir_scifact_train"),
        ("msmarco-passage/trec-dl-2019/judged", "irds/msmarco-passage_trec-dl-2019_judged"),
        ("vaswani", "irds/vaswani"),
        ("beir:/data/scifact", None),
        ("pydoc", None),
        ("pydoc:numpy,torch", None),
        ("x" * 92, None),
        ("two words", None),
    ],
)
def test_hub_names_of_data_sets(dataset, name):
    assert hub_dataset(dataset) == name


def test_the_recipe_is_whole_even_with_a_fence_inside():
    recipe = "name: |\n  ```\n  fenced\n  ```\nseed: 1"
    text = section(card(dataclasses.replace(FACTS, recipe=recipe)).text, "Training recipe")
    assert text.strip() == f"````yaml\n{recipe}\n````"


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=lambda one: one.type)
def test_limits_say_what_is_read(truncation):
    facts = dataclasses.replace(
        FACTS, truncation=truncation.model_dump(mode="json"), reads=truncation.reads
    )
    text = section(card(facts).text, "Limits")
    assert truncation.reads in text and "Licence: not stated" in text
    assert ("best passage" in text) == (truncation.type == "max_p")
    assert ("score differently" in text) == (truncation.type == "budgets")


# --- the code blocks ---------------------------------------------------------------------------


CHECKPOINTS = [(truncation, "classifier") for truncation in TRUNCATIONS]
CHECKPOINTS.append((TRUNCATIONS[0], "similarity"))


@pytest.fixture(scope="module", params=CHECKPOINTS, ids=lambda param: f"{param[0].type}-{param[1]}")
def checkpoint(request, tmp_path_factory, tiny_backbone) -> tuple[Path, object]:
    """A checkpoint as a stage writes it, with scores far apart."""
    (truncation, head), folder = request.param, tmp_path_factory.mktemp("card") / "checkpoint"
    model = CrossEncoder(backbone=str(tiny_backbone), head=head).load(
        tiny_backbone, 1, training=False, device="cpu"
    )
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 2:
                value.mul_(12)
    model.config.raypipe = {"truncation": truncation.model_dump(mode="json")}
    save(model, folder, tiny_backbone, truncation.longest)
    facts = dataclasses.replace(
        FACTS, truncation=truncation.model_dump(mode="json"), reads=truncation.reads, head=head
    )
    assert ("trust_remote_code" in card(facts).text) == (head == "similarity")
    card(facts).save(folder / "README.md")
    return folder, truncation


@pytest.fixture(scope="module")
def texts(beir_folder) -> list[str]:
    return [json.loads(line)["text"] for line in (beir_folder / "corpus.jsonl").open()]


def our_scores(folder: Path, truncation, query: str, documents: list[str]) -> np.ndarray:
    tokenizer = load_tokenizer(folder)
    model = CrossEncoder(backbone=str(folder)).load(folder, 0, training=False, device="cpu")
    score = PairScorer(model, Template.of(tokenizer), truncation, 128, "fp32", "cpu")
    ids = tokenizer([query, *documents], add_special_tokens=False)["input_ids"]
    return score([(np.array(ids[0]), np.array(one)) for one in ids[1:]])


def test_the_code_runs_where_the_card_is(checkpoint, texts, monkeypatch):
    folder, truncation = checkpoint
    monkeypatch.chdir(folder)
    files = {path.name for path in folder.iterdir()}
    example, *ways = blocks((folder / "README.md").read_text("utf-8"))
    assert len(ways) == 3
    short = [" ".join(text.split()[:3]) for text in texts[:3]]
    long = [" ".join(texts[9 * i : 9 * i + 9]) for i in (1, 2)]
    for code in ways:
        space: dict[str, Any] = {}
        exec(example, space)
        exec(code, space)
        assert len(space["scores"]) == len(space["documents"]) == 2
        # again with words that the model knows; plain libraries know one kind of cut only
        exact = "mlflow" in code or truncation.type == "longest_first"
        space |= {"query": short[0], "documents": short[1:] + long * exact}
        exec(code, space)
        ours = our_scores(folder, truncation, space["query"], space["documents"])
        assert np.ptp(ours) > 0.01
        np.testing.assert_allclose(space["scores"], ours, rtol=0, atol=1e-5)
    assert {path.name for path in folder.iterdir()} == files


def test_the_code_of_a_mixed_model_runs(tiny_backbone, texts, tmp_path, monkeypatch):
    """The pyfunc mixes itself, other libraries' scores are mixed by the card's lines."""
    model = CrossEncoder(backbone=str(tiny_backbone)).load(
        tiny_backbone, 1, training=False, device="cpu"
    )
    save(model, tmp_path, tiny_backbone, 24)
    mix: dict[str, Any] = {
        **{"weight": 0.3, "scaling": "z", "first_stage": "BM25", "depth": 20, "encoder": "MiniLM"},
        "columns": {"first_stage_score": 0.5, "cosine": 0.5},
    }
    write_interpolation(tmp_path / "config.json", mix)
    facts = dataclasses.replace(FACTS, interpolation=mix)
    card(facts).save(tmp_path / "README.md")
    monkeypatch.chdir(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "z-scores over the first 20 documents" in text and "`BM25`" in text
    assert "cosine of the vectors of `MiniLM`, untrained" in text
    example, transformers, _, pyfunc, mixed = blocks(text)
    space: dict[str, Any] = {}
    exec(example, space)
    given = {"first_stage_score": [4.0, 3.0, 2.0, 1.0], "cosine": [0.1, 0.5, 0.2, 0.7]}
    space |= {"documents": texts[:4], **given}
    exec(transformers, space)
    exec(mixed, space)
    expected = space["mixed"].tolist()
    exec(pyfunc, space)
    assert space["scores"] == pytest.approx(expected, abs=1e-5) and np.ptp(expected) > 0.1
    assert space["best_first"][0] == int(np.argmax(expected))
    del mix["encoder"], mix["columns"]["cosine"]
    assert "cosine" not in section(card(facts).text, "How to load")


def test_names_in_a_card_are_text():
    name = "*a* `b` | <c>\n# d"
    facts = dataclasses.replace(
        FACTS,
        name=name,
        backbone=name,
        stages=(name, "distil"),
        groups=(GroupFacts((name,), 1, 2, "0123456789abcdef"),),
    )
    blocks = markdown_blocks(str(card(facts)).partition("---\n\n")[2])
    shown = " ".join(name.split())
    assert blocks[0] == ("h1", shown, set())
    assert f"from {shown} in 2 stages: {shown} -> distil." in blocks[1][1]
    assert ("td", shown, set()) in blocks and not [tag for tag, *_ in blocks if tag == "h3"]


# --- forms ---------------------------------------------------------------------------------------


def test_a_distilled_classifier_says_what_it_lost():
    sets = {
        "validation": HeadComparison(100, {"nDCG@10": 0.75}, {"nDCG@10": 0.7388}, 0.913),
        "test": HeadComparison(1300, {"nDCG@10": 0.7}, {"nDCG@10": 0.71}, 0.9),
    }
    distillation = Distillation(38_400, 12.34, "nDCG@10", sets)
    assert distillation.metrics["test"] == {"nDCG@10": 0.71}
    assert distillation.metrics["test, similarity head"] == {"nDCG@10": 0.7}
    said = distillation.sentence
    assert "scores of 38,400 pairs in 12.3 minutes, it loses in nDCG@10: 0.0112 on" in said
    assert "validation (0.7500 to 0.7388, 100 queries, Kendall's tau of the orders 0.91)" in said
    assert "-0.0100 on test (0.7000 to 0.7100, 1,300 queries" in said  # it may gain
    text = str(card(dataclasses.replace(FACTS, distillation=distillation)))
    assert said in text and said not in str(card(FACTS))
    assert "trust_remote_code" not in text


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=lambda one: one.type)
def test_an_onnx_card_names_no_other_library(truncation):
    facts = dataclasses.replace(
        FACTS,
        form="onnx",
        head="similarity",
        truncation=truncation.model_dump(mode="json"),
        reads=truncation.reads,
    )
    text = str(card(facts))
    assert card(facts).data.library_name == "onnx"
    for name in ("transformers", "mlflow", "trust_remote_code", "pyfunc"):
        assert name not in text.partition("## Versions")[0], name
    assert truncation.reads in section(text, "Limits") and "encode_special_tokens" in text
