"""One small sweep through Ray Tune and Ray Train, looked at from every side; and its second run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from raypipe.artifacts import Builder
from raypipe.config import load
from raypipe.experiment import Experiment, Sweep
from raypipe.resources import Context
from raypipe.sweep.compare import Result
from raypipe.sweep.plan import Plan, Readiness
from raypipe.sweep.search import PlannedSearch
from raypipe.sweep.space import expand
from raypipe.sweep.sweep import run

pytestmark = pytest.mark.ray
TWO = "contrastive -> distil"


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory, write_recipe) -> Path:
    return write_recipe(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def first(cluster, recipe_file) -> Result:
    return run(load(Experiment, recipe_file), say=lambda line: None)


@pytest.fixture(scope="module")
def second(first, recipe_file) -> Result:
    return run(load(Experiment, recipe_file), say=lambda line: None)


@pytest.fixture(scope="module")
def client(recipe_file):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{recipe_file.parent}/mlflow.db")


def by_name(result: Result) -> dict[str, Any]:
    return {row["name"]: row for row in result.summary()["rows"]}


def test_the_table_has_every_kind_of_row(first):
    rows = by_name(first)
    kinds = {name: row["kind"] for name, row in rows.items()}
    assert kinds == {
        "BM25": "first_stage",
        "teacher: bi-encoder + first stage": "teacher",
        "oracle": "oracle",
        "contrastive": "trained",
        TWO: "trained",
    }
    assert rows[TWO]["stages"] == ["contrastive", "distil"]
    assert rows["contrastive"]["pairs"] == 12 * 6 * 4  # steps x queries x documents
    assert rows[TWO]["pairs"] == 12 * 6 * 4 + 4 * 6 * 4
    for measure in ("nDCG@10", "RR@10"):
        best = rows["oracle"]["metrics"][measure]
        assert all(row["metrics"][measure] <= best for row in rows.values())
    # 11 of 12 test queries have a candidate; the draft outranks the relevant document in BM25
    assert rows["oracle"]["metrics"]["RR@10"] == pytest.approx(11 / 12)
    assert rows["contrastive"]["metrics"]["RR@10"] != rows["BM25"]["metrics"]["RR@10"]
    assert rows["contrastive"]["p_holm"]["RR@10"] is None  # the reference itself
    assert 0 <= rows["BM25"]["p_holm"]["RR@10"] <= 1


def test_each_distinct_stage_is_trained_once(first, recipe_file):
    assert first.counts["stages"] == {"distinct": 2, "trained": 2}
    stored = sorted((recipe_file.parent / "storage" / "checkpoint").iterdir())
    assert [path.name.rsplit("-", 1)[0] for path in stored] == [
        "tiny-bert-contrastive",
        "tiny-bert-contrastive-distil",
    ]
    for folder in stored:
        assert len([p for p in folder.iterdir() if p.is_dir()]) == 1  # one attempt each


def test_the_same_command_again_trains_nothing(first, second):
    assert second.counts["stages"] == {"distinct": 2, "trained": 0}
    before, after = by_name(first), by_name(second)
    for name, row in after.items():
        assert row["reused"]
        assert row["metrics"] == before[name]["metrics"]
    assert not before["contrastive"]["reused"]
    assert second.artifacts == first.artifacts
    assert second.tracked_run != first.tracked_run


def test_the_summary_is_what_other_programs_read(first):
    summary = json.loads(json.dumps(first.summary()))
    assert {"tracked_run", "artifacts", "counts", "rows"} <= summary.keys()
    needed = {"backbone", "checkpoint", "collection", "groups", "metrics", "run", "teacher"}
    assert needed <= summary["artifacts"].keys()
    for path in summary["artifacts"].values():
        assert (Path(path) / "manifest.json").is_file()
    assert summary["counts"]["queries/test"]["queries"] == 12
    assert summary["counts"]["candidates/test"]["queries_without_candidates"] == 1
    assert summary["counts"]["groups"]["pairs"] == 36 * 4
    for row in summary["rows"]:
        assert {"name", "kind", "stages", "reused", "metrics"} <= row.keys()


def test_runs_are_tracked_in_three_levels(first, client):
    parent = client.get_run(first.tracked_run)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["stages.contrastive.loss.type"] == "infonce"
    assert {i.dataset.name for i in parent.inputs.dataset_inputs} == {
        "tiny-beir-train",
        "tiny-beir-validation",
        "tiny-beir-test",
    } or len(parent.inputs.dataset_inputs) == 3
    files = {f.path for f in client.list_artifacts(first.tracked_run)}
    assert {"report.md", "report.png", "recipe.yaml", "rows.json"} <= files
    children = _children(client, first.tracked_run)
    assert sorted(child.info.run_name for child in children) == ["contrastive", TWO]
    for child in children:
        row = by_name(first)[child.info.run_name]
        assert child.data.metrics["RR_10"] == pytest.approx(row["metrics"]["RR@10"])
        names = {f.path for f in client.list_artifacts(child.info.run_id)}
        assert {"per_query.parquet", "run.trec"} <= names
        stages = _children(client, child.info.run_id)
        assert {s.info.run_name for s in stages} == set(row["stages"])
        for stage in stages:
            steps = 12 if stage.info.run_name == "contrastive" else 4
            curve = client.get_metric_history(stage.info.run_id, "loss")
            assert sorted(point.step for point in curve) == list(range(1, steps + 1))


def test_the_tracked_model_reranks(first, client, recipe_file):
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{recipe_file.parent}/mlflow.db")
    (output,) = client.get_run(first.tracked_run).outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    import pandas as pd

    frame = pd.DataFrame({"query": ["one", "one"], "text": ["verified thing", "draft"]})
    scores = model.predict(frame)["score"]
    assert len(set(scores)) == 2


def test_metrics_are_those_of_the_stored_run(first):
    (part,) = Path(first.artifacts["run"]).glob("*/part-00000.parquet")
    assert pq.read_table(part).num_rows == 12
    folder = Path(first.artifacts["metrics"])
    (per_query,) = folder.glob("*/per_query.parquet")
    (trec,) = folder.glob("*/run.trec")
    table = pq.read_table(per_query).to_pandas()
    rr = table[table["measure"] == "RR@10"].set_index("query_id")["value"]
    assert len(rr) == 12
    ranks: dict[str, int] = {}
    for line in trec.read_text().splitlines():
        query, _, doc, rank, *_ = line.split()
        if doc == f"d0{query[1:]}":
            ranks[query] = int(rank)
    for query, value in rr.items():
        rank = ranks.get(query, 0)
        assert value == pytest.approx(1 / rank if 0 < rank <= 10 else 0.0)


def test_one_and_two_workers_give_the_same_losses(first, recipe_file, tmp_path):
    experiment = load(Experiment, recipe_file, ["order=[contrastive]"])
    old = Builder(experiment.store()).get(experiment.trained())
    step = experiment.trained()
    builder = Builder(
        experiment.replace(storage=str(tmp_path)).store(),
        Context(experiment.resources.replace(workers=2), "fp32", progress_bars=False),
    )
    new = builder.get(step)
    assert new.counts["workers"] == 2
    losses = [
        [json.loads(line)["loss"] for line in text.splitlines() if "loss" in json.loads(line)]
        for text in ((one.local() / "history.jsonl").read_text() for one in (old, new))
    ]
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_a_failing_trial_does_not_stop_the_others(first, recipe_file):
    """Scores over so small a temperature are infinite, and the loss NaN, which the loop refuses."""
    space = {
        "stages.contrastive.loss": {
            "good": {"type": "infonce"},
            "bad": {"type": "infonce", "temperature": 1e-45},
        },
        "order": {"contrastive": ["contrastive"]},
    }
    experiment = load(Experiment, recipe_file).replace(
        sweep=Sweep(space=space), reference="bad / contrastive"
    )
    experiment = experiment.replace(resources=experiment.resources.replace(worker_failures=0))
    result = run(experiment, say=lambda line: None)
    assert set(result.failed) == {"bad / contrastive"}
    assert "lower lr" in result.failed["bad / contrastive"]
    rows = by_name(result)
    assert rows["good / contrastive"]["metrics"] == by_name(first)["contrastive"]["metrics"]
    assert "bad / contrastive" not in rows
    assert all(p is None for p in rows["BM25"]["p_holm"].values())  # the reference is gone


def test_a_waiting_trial_is_not_suggested(recipe_file):
    plan = Plan.of(expand(load(Experiment, recipe_file, ["seed=77"])))
    committed: set[str] = set()
    search = PlannedSearch(Readiness(plan, lambda step: step.digest in committed, [0, 1]))
    assert search.suggest("a") == {"trial": 0}
    assert search.suggest("b") is None  # its first stage is being trained
    committed.add(plan.chains[0][0].digest)
    assert search.suggest("b") == {"trial": 1}
    assert search.suggest("c") == PlannedSearch.FINISHED


def _children(client: Any, run_id: str) -> list[Any]:
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
