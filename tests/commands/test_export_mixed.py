"""A mixed model is handed out whole: what its folder scores is what its row was measured on."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pandas as pd
import pytest
from sentence_encoders import as_sentence_encoder

from raypipe.commands import export as exporting
from raypipe.commands.compare import run
from raypipe.datasets.steps import DOCS_FILE, QUERIES_FILE
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.storage.builder import Builder
from raypipe.sweep.best import Best
from raypipe.sweep.derived import derived_rows
from raypipe.sweep.plan import Plan
from raypipe.tables.text_table import TextTable
from raypipe.tracking import save_pyfunc


@pytest.fixture
def sentence_encoder(tiny_backbone, tmp_path) -> Path:
    return as_sentence_encoder(tiny_backbone, tmp_path / "encoder")


def candidates_of(experiment: Experiment, builder: Builder, query_id: str) -> pd.DataFrame:
    """The re-ranked candidates of a test query, with all columns that a mixed model may need."""
    depth = experiment.evaluation.depth
    rows = {row["query_id"]: row for row in _rows(builder, experiment.first_stage("test"))}
    cosine = experiment.untrained_scores("cosine", "test", depth)
    values = {row["query_id"]: row for row in _rows(builder, cosine)}[query_id]
    known = dict(zip(values["doc_ids"], values["values"], strict=True))
    doc_ids = rows[query_id]["doc_ids"][:depth]
    texts = TextTable(builder.get(experiment.collection("test")).local() / DOCS_FILE)
    queries = TextTable(builder.get(experiment.queries("test")).local() / QUERIES_FILE)
    return pd.DataFrame(
        {
            "query": queries.texts([int(queries.rows_of([query_id])[0])])[0],
            "text": texts.texts([int(row) for row in texts.rows_of(doc_ids)]),
            "doc_id": doc_ids,
            "first_stage_score": rows[query_id]["scores"][:depth],
            "cosine": [known[doc_id] for doc_id in doc_ids],
        }
    )


def _rows(builder: Builder, step) -> list[dict]:
    return builder.get(step).table().to_pylist()


@pytest.mark.ray
def test_a_mixed_model_scores_as_its_row(
    mined_recipe, sentence_encoder, unprobed, tmp_path, monkeypatch
):
    given = [f"model.backbone={sentence_encoder}", "order=contrastive", "sweep.space={}"]
    given += ["stages.contrastive.steps=4", "evaluation.untrained=[cosine, fusion]"]
    given += ["evaluation.ensembles=[interpolation]"]
    experiment = load(Experiment, mined_recipe, given)
    said: list[str] = []
    result = run(experiment, said.append)
    assert not result.failed
    assert [line.row.name for line in result.report.lines["test"]] == [
        "BM25",
        "teacher: bi-encoder + first stage",
        "encoder, cosine, untrained",
        "encoder, cosine + BM25, untrained",
        "oracle",
        "contrastive",
        "contrastive + first stage",
        "contrastive + first stage + cosine",
    ]
    builder, (trial,) = Builder(experiment.store()), expand(experiment)
    plan = Plan.of([trial])
    for row in derived_rows(plan, ("interpolation",)):
        best = Best(trial, plan, row)  # whichever validation chose
        monkeypatch.setattr(exporting, "best_of_trial", lambda *_, best=best: best)
        folder = tmp_path / row.name
        exporting.export(trial, builder, folder)
        card = (folder / "README.md").read_text("utf-8")
        assert "| test, model alone |" in card and "`BM25`" in card
        assert ("cosine of the vectors of `encoder`, untrained" in card) == row.mix.is_fused
        save_pyfunc(tmp_path / f"{row.name} model", folder)
        model = mlflow.pyfunc.load_model(str(tmp_path / f"{row.name} model"))
        ranked = {one["query_id"]: one for one in _rows(builder, row.run("test"))}
        for query_id in list(ranked)[:3]:
            pairs = candidates_of(experiment, builder, query_id)
            columns = ["query", "text", *best.interpolation(builder)["columns"]]
            scores = model.predict(pairs[columns])["score"].tolist()
            head = ranked[query_id]["doc_ids"][: len(pairs)]
            expected = dict(zip(head, ranked[query_id]["scores"], strict=False))
            assert dict(zip(pairs["doc_id"], scores, strict=True)) == pytest.approx(
                expected, abs=1e-4
            )
