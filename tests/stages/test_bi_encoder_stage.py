"""A bi-encoder in this process, from groups to lists: trained, selected, opened by others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from beir_recipe import DATA, read_recipe
from card_facts import blocks
from chunks_here import builder_here
from stages_here import trains_here

from raypipe.candidates.dense.source import Dense
from raypipe.commands.export import export
from raypipe.commands.result import record_best
from raypipe.datasets.steps import Collection, Queries
from raypipe.models.backbone import Backbone
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.trials import expand
from raypipe.stages.stage import history
from raypipe.sweep.best import Best
from raypipe.sweep.derived import retrieved_rows
from raypipe.sweep.plan import Plan
from raypipe.sweep.table_rows import baseline_runs
from raypipe.tracking import save_pyfunc

RECIPE = (
    "name: retriever\n"
    + DATA
    + """\
candidates: {{type: dense, backbone: "{backbone}", max_length: 32, depth: 20}}
groups:
  negatives: {{type: random_window, count: 3, low: 1, high: 20}}
model:
  {{type: bi_encoder, backbone: "{backbone}", max_length: 24, query_length: 12, hidden_dropout: 0.0,
    query_prefix: "draft ", doc_prefix: "verified "}}
stages:
  contrastive:
    {{loss: {{type: infonce}}, lr: 3.0e-3, queries_per_step: 6, steps: 18, validations: 3}}
  again:
    {{loss: {{type: infonce}}, lr: 1.0e-3, queries_per_step: 6, steps: 3, validations: 1}}
evaluation: {{depth: 10, validation_depth: 10, retrieval: 100, measures: [nDCG@10, R@100]}}
precision: fp32
resources: {{cpus_per_worker: 1}}
storage: {folder}/storage
"""
)


@pytest.fixture
def experiment(tmp_path, beir_folder, tiny_backbone) -> Experiment:
    return read_recipe(RECIPE, tmp_path, beir_folder, tiny_backbone)


def texts(folder: Path, name: str) -> dict[str, str]:
    rows = map(json.loads, (folder / f"{name}.jsonl").open())
    return {row["_id"]: row["text"] for row in rows}


@pytest.fixture
def with_copies(tmp_path, beir_folder) -> Path:
    """The collection, and of every relevant document a copy in capitals."""
    folder = shutil.copytree(beir_folder, tmp_path / "copied")
    docs = texts(beir_folder, "corpus")
    lines = [
        json.dumps({"_id": f"c{doc_id}", "title": "", "text": text.upper()})
        for doc_id, text in docs.items()
        if doc_id < "d060"
    ]
    with (folder / "corpus.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def test_a_loss_over_the_step_knows_copies_of_relevant_documents(
    tmp_path, with_copies, tiny_backbone, monkeypatch
):
    terms = (
        "{own: {loss: {type: infonce}}, first: {weight: 0.2, loss: {type: infonce, over: step, "
        "positive: teacher_top}}, order: {loss: {type: kl, over: step}}}"
    )
    loss = f"stages.contrastive.loss={{type: weighted_sum, terms: {terms}}}"
    overrides = [
        loss,
        "teacher={type: list_scores}",
        "order=contrastive",
        "evaluation.retrieval=null",
    ]
    words = [*overrides, "groups.negatives.high=12"]
    experiment = read_recipe(RECIPE, tmp_path, with_copies, tiny_backbone, words)
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    checkpoint = builder.get(experiment.trained())
    rows = [row for row in history(checkpoint) if "loss" in row]
    assert len(rows) == 18 and all(row["texts"] < 2 * row["pairs"] for row in rows)
    for name in ("texts", "masked"):
        assert checkpoint.counts[name] == sum(row[name] for row in rows) > 0
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])


def test_what_trains_ranks_and_opens_elsewhere(experiment, beir_folder, monkeypatch, tmp_path):
    builder = trains_here(builder_here(experiment.store(), monkeypatch), monkeypatch)
    first, last = experiment.trained().chain()
    checkpoint = builder.get(first)
    rows = history(checkpoint)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 18 and np.mean(losses[-4:]) < 0.9 * np.mean(losses[:4])
    validated = [row["val/nDCG@10"] for row in rows if "val/nDCG@10" in row]
    assert len(validated) == 4  # the start's vectors rank too
    assert checkpoint.counts["best"]["nDCG@10"] == max(validated) > validated[0]

    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint.local()), device="cpu")
    assert model.prompts == {"query": "draft ", "document": "verified "}
    docs, queries = texts(beir_folder, "corpus"), texts(beir_folder, "queries")

    # a row ranks the first stage's lists as the folder does elsewhere
    ranked = builder.get(experiment.run_of(first)).table().to_pylist()
    assert len(ranked) == 12
    for row in ranked:
        head = row["doc_ids"][: experiment.depth()]
        query = model.encode_query([queries[row["query_id"]]])
        cosines = (query @ model.encode_document([docs[doc_id] for doc_id in head]).T)[0]
        np.testing.assert_allclose(row["scores"][: len(head)], cosines / 0.05, atol=2e-4)
        assert row["scores"][: len(head)] == sorted(row["scores"][: len(head)], reverse=True)

    # the folder alone retrieves with the lengths and prefixes that it was trained with
    source = Dense(backbone=str(checkpoint.local()), depth=100)
    source.check()
    test = experiment.query_set("test")
    found = builder.get(source.candidates(Collection(test), Queries(test, False), "fp32"))
    derived = next(row for row in retrieved_rows(Plan.of(expand(experiment))))
    assert derived.name == "contrastive -> again, retrieving"
    own = builder.get(experiment.retrieved(first))
    assert own.table().drop_columns("sources") == found.table().drop_columns("sources")
    assert own.table()["scores"] != builder.get(experiment.retrieved(None)).table()["scores"]
    everything = model.encode_document(list(docs.values()))
    for row in found.table().to_pylist():
        cosines = (model.encode_query([queries[row["query_id"]]]) @ everything.T)[0]
        np.testing.assert_allclose(row["scores"], np.sort(cosines)[::-1][:100], atol=1e-5)

    # and its row is judged as every other
    (baseline,) = [run for name, _, run in baseline_runs(experiment) if "retrieving" in name]
    for step in (derived.run("test"), baseline("test"), experiment.first_stage("test")):
        means = builder.get(experiment.metrics(step)).counts["means"]
        assert means.keys() == {"nDCG@10", "R@100"} and means["R@100"] > 0.3

    # the next stage goes on from the first one's weights
    second = builder.get(last)
    assert second.counts["best"]["nDCG@10"] >= checkpoint.counts["best"]["nDCG@10"]
    assert (second.local() / "modules.json").is_file()

    # the registry takes it as a retriever
    (trial,), sent = expand(experiment), []
    relay = SimpleNamespace(send=lambda kind, *rest: sent.append((kind, *rest)))
    builder.get(Plan.of([trial]).metrics(trial))
    builder.get(experiment.metrics(experiment.first_stage("test")))
    said = record_best(Best(trial, Plan.of([trial])), builder, relay, "run")
    assert [kind for kind, *_ in sent] == ["tag", "log_text", "log_model"]
    _, run, folder, name, registered, *_ = sent[2]
    assert (run, folder, name) == ("run", str(second.local()), "retriever")
    assert registered == (None if said else experiment.name)

    # and gives the vectors of sentence-transformers, queries cut at their own length
    save_pyfunc(tmp_path / "logged", second.local())
    logged = mlflow.pyfunc.load_model(str(tmp_path / "logged"))
    theirs = SentenceTransformer(str(second.local()), device="cpu")
    long = " ".join(docs.values())
    table = pd.DataFrame(
        {"text": [long, long, "a b"], "side": ["query", "document", "query"]}, index=[7, 8, 9]
    )
    given = logged.predict(table)
    expected = [theirs.encode_document(long), theirs.encode_query("a b")]
    np.testing.assert_allclose(list(given["vector"][[8, 9]]), expected, atol=1e-6)
    theirs.max_seq_length = 12
    np.testing.assert_allclose(given["vector"][7], theirs.encode_query(long), atol=1e-6)
    assert logged.predict(table[["text"]])["vector"][7] == given["vector"][8]
    with pytest.raises(Exception, match="expected query or document, found 'left'"):
        logged.predict(table.assign(side="left"))
    opened = Dense(backbone=str(tmp_path / "logged" / "artifacts" / "checkpoint"), depth=100)
    opened.check()
    assert opened.longest_query(Backbone(opened.backbone).published) == 12

    # what is handed out is the checkpoint with a card whose code gives its scores
    export(trial, builder, tmp_path / "out", say=pytest.fail)
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert "1_Pooling/config.json" in files and not files & {"trainer.json", "history.jsonl"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.replace(str(tmp_path), "") == sent[1][2].replace(str(tmp_path), "")
    assert 'Prompts: `"draft "` before queries, `"verified "` before documents.' in card
    assert "| test, retrieving |" in card and "`tiny-bert`" in card
    monkeypatch.chdir(tmp_path / "out")
    space: dict = {}
    for code in blocks(card):
        exec(code, space)
    theirs = SentenceTransformer(str(second.local()), device="cpu")
    query, found = space["query"], space["documents"]
    expected = (theirs.encode_query([query]) @ theirs.encode_document(found).T)[0]
    np.testing.assert_allclose(space["scores"], expected, atol=1e-6)
