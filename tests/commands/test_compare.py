"""A sweep from recipe to report: two trials that share their first stage, on real Ray and MLflow.

Seven starts of Ray Train: three distinct stages, one that fails, one with two workers, one whose
trial is killed and one beside it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from ray.tune.experiment import Trial
from tracked_jobs import own_name

from raypipe.commands.compare import run
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.report.verdict import verdict_sentence
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.resources import Context, Resources
from raypipe.stages.stage import history
from raypipe.storage.builder import Builder
from raypipe.sweep.tracked_report import read_report
from raypipe.tracking.stored_runs import TrackingStore

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("unprobed")]

TRIALS = ["contrastive", "contrastive -> distil"]
KINDS = {"trained": "trial", "derived": "derived"}


@pytest.fixture(scope="module")
def path(swept) -> Path:
    return swept.recipe


@pytest.fixture(scope="module")
def said(swept) -> list[str]:
    return swept.said


@pytest.fixture(scope="module")
def first(swept):
    """The result of the first run of the recipe."""
    return swept.result


@pytest.fixture(scope="module")
def client(first, path):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{path.parent}/mlflow.db")


@pytest.fixture(scope="module")
def tracked(client):
    """All runs below a tracked run, by depth: {name: run}."""
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]

    def children(parent: str, kind: str | None = None) -> list:
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        found = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent]
        return [r for r in found if kind in (None, r.data.tags["raypipe.kind"])]

    return children


def by_name(result) -> dict:
    """The finished lines of the recipe's own test set."""
    return {line.row.name: line for line in result.report.lines["test"]}


def trained(path: Path, *overrides: str):
    """The checkpoint artifact of the recipe's last stage, which must stand."""
    experiment = load(Experiment, path, overrides)
    found = experiment.store().find(experiment.trained())
    assert found is not None
    return found


def test_the_table_has_a_row_of_every_kind(first):
    kinds = {row.name: row.kind for row in first.report.rows}
    assert kinds == {
        "BM25": "first_stage",
        "teacher: bi-encoder + first stage": "teacher",
        "oracle": "oracle",
        **dict.fromkeys(TRIALS, "trained"),
    }
    lines = by_name(first)
    stages = [[stage.name for stage in lines[name].row.stages] for name in TRIALS]
    assert stages == [["contrastive"], ["contrastive", "distil"]]
    assert not any(lines[name].row.reused for name in TRIALS)
    assert first.failed == {}
    for line in lines.values():
        assert line.means["nDCG@10"] <= lines["oracle"].means["nDCG@10"]
        low, high = line.intervals["nDCG@10"]
        assert low <= line.means["nDCG@10"] <= high
    # 11 of 12 test queries have a candidate, and every one of those its relevant document
    assert lines["oracle"].means["RR@10"] == pytest.approx(11 / 12)
    pairs = [lines[name].row.pairs for name in TRIALS]
    assert pairs == [12 * 6 * 4, (12 + 4) * 6 * 4]
    assert lines["contrastive"].versus == {}
    assert 0 <= lines["contrastive -> distil"].versus["contrastive"]["nDCG@10"].p_holm <= 1


def test_controlled_columns_come_from_what_was_trained(first):
    contrastive, distil = by_name(first)["contrastive -> distil"].row.stages
    assert (contrastive.loss, contrastive.lr, contrastive.queries_per_step) == ("infonce", 3e-3, 6)
    assert (contrastive.steps, contrastive.queries, contrastive.pairs) == (12, 72, 288)
    assert contrastive.pairs_per_step == distil.pairs_per_step == 24
    assert contrastive.groups == distil.groups  # one artifact for all stages


def test_each_distinct_stage_is_trained_once(first, path, said):
    assert first.counts["stages"] == {"distinct": 2, "trained": 2}
    store = path.parent / "storage"
    checkpoints = list((store / "checkpoint").iterdir())
    assert len(checkpoints) == 2
    for folder in checkpoints:
        assert (folder / "manifest.json").is_file()
        assert len([p for p in folder.iterdir() if p.is_dir()]) == 1
    assert not list((store / "checkpoint").rglob("train-*"))  # what a stage needed to resume
    assert any("2 distinct stages instead of 3" in line for line in said)


def test_the_summary_is_json_and_names_artifacts_that_stand(first):
    summary = json.loads(json.dumps(first.summary()))
    what = {"tracked_run", "artifacts", "counts", "teachers", "rows", "failed", "report"}
    assert summary.keys() == what
    (quality,) = first.teachers
    assert summary["teachers"][0]["teacher_value"] == quality.teacher_value
    assert summary["report"]["notes"][: len(quality.lines())] == quality.lines()
    lines = first.report.lines["test"]
    assert [row["name"] for row in summary["rows"]] == [line.row.name for line in lines]
    for row, line in zip(summary["rows"], lines, strict=True):
        assert row["metrics"] == line.means and row["kind"] == line.row.kind
    assert summary["report"]["sets"]["test"]["rows"] == summary["rows"]
    chain = {"backbone", "collection", "queries", "candidates", "negatives", "teacher", "groups"}
    assert chain | {"tokens", "checkpoint", "run", "metrics"} <= summary["artifacts"].keys()
    for kind, folder in summary["artifacts"].items():
        assert json.loads((Path(folder) / "manifest.json").read_text())["kind"] == kind
    counts = summary["counts"]
    assert counts["queries/test"]["queries"] == 12
    assert counts["candidates/test"]["queries_without_candidates"] == 1
    assert (counts["groups"]["groups"], counts["groups"]["pairs"]) == (36, 36 * 4)


def test_metrics_are_those_of_the_stored_run(first):
    folder = Path(first.artifacts["metrics"])
    folder /= json.loads((folder / "manifest.json").read_text())["attempt"]
    lines = [line.split() for line in (folder / "run.trec").read_text().splitlines()]
    ranks = {query: int(rank) for query, _, doc, rank, *_ in lines if doc == f"d0{query[1:]}"}
    rows = pq.read_table(folder / "per_query.parquet").to_pylist()
    found = {row["query_id"]: row["value"] for row in rows if row["measure"] == "RR@10"}
    assert len(found) == 12 and found["q59"] == 0
    for query_id, value in found.items():
        rank = ranks.get(query_id, 11)
        assert value == pytest.approx(1 / rank if rank <= 10 else 0)


def test_tracked_runs_are_nested(first, tracked):
    runs = {own_name(run): run for run in tracked(first.tracked_run)}
    kinds = {name: run.data.tags["raypipe.kind"] for name, run in runs.items()}
    assert kinds == {row.name: KINDS.get(row.kind, "baseline") for row in first.report.rows}
    titles = [run.info.run_name for run in runs.values()]
    assert all(re.search(r", \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", title) for title in titles)
    assert runs["contrastive"].info.run_name.startswith("contrastive, seed 1, 20")
    for line in first.report.lines["test"]:
        assert runs[line.row.name].data.metrics["nDCG_10"] == pytest.approx(line.means["nDCG@10"])
    trials = {name: runs[name] for name in TRIALS}
    reused = []
    for name, trial in trials.items():
        assert trial.info.status == "FINISHED"
        assert trial.data.tags["raypipe.kind"] == "trial"
        assert trial.data.tags["mlflow.source.name"] == Path(sys.argv[0]).name
        assert trial.data.params["stages.contrastive.lr"] == "0.003"
        assert trial.data.params["sweep.order"] == name
        assert trial.data.metrics["pairs"] == by_name(first)[name].row.pairs
        assert trial.data.metrics["validation/nDCG_10"] > 0
        stages = {own_name(run): run for run in tracked(trial.info.run_id)}
        assert sorted(stages) == name.split(" -> ")
        for stage in stages.values():
            assert stage.data.tags["raypipe.kind"] == "stage"
            assert stage.data.params["queries_per_step"] == "6"
        reused += [stage.data.metrics["reused"] for stage in stages.values()]
    assert sorted(reused) == [0, 0, 1]  # whoever came second took the first stage


def test_curves_have_steps(first, tracked, client, path):
    by_stage = {
        "contrastive": history(trained(path, "order=contrastive")),
        "distil": history(trained(path, "order=contrastive -> distil")),
    }
    assert [len(rows) for rows in by_stage.values()] == [12 + 2, 4 + 1 + 1]  # with its start
    checked = 0
    for trial in tracked(first.tracked_run, "trial"):
        for stage in tracked(trial.info.run_id):
            rows = by_stage[own_name(stage)]
            for metric, name in (("loss", "loss"), ("val/nDCG_10", "val/nDCG@10")):
                curve = client.get_metric_history(stage.info.run_id, metric)
                expected = [(row["step"], row[name]) for row in rows if name in row]
                assert sorted((p.step, p.value) for p in curve) == expected
                checked += 1
    assert checked == 6


def test_artifacts_and_inputs_of_the_tracked_run(first, tracked, client, tmp_path):
    names = {file.path for file in client.list_artifacts(first.tracked_run)}
    assert {"report.md", "report.html", "report.json", "report.png", "recipe.yaml"} <= names
    fetched = Path(client.download_artifacts(first.tracked_run, "report.md", str(tmp_path)))
    assert all(name in fetched.read_text() for name in ("BM25", "oracle", *TRIALS))
    image = Path(client.download_artifacts(first.tracked_run, "report.png", str(tmp_path)))
    assert image.read_bytes().startswith(b"\x89PNG")
    job = client.get_run(first.tracked_run)
    note = job.data.tags["mlflow.note.content"]
    assert note.startswith(f"**{verdict_sentence(first.report, first.best)}**")
    assert fetched.read_text()[:300] in note and "report.html" in note.splitlines()[-1]
    assert job.info.status == "FINISHED" and job.data.metrics["stages_trained"] == 2
    contexts = [
        tag.value for one in job.inputs.dataset_inputs for tag in one.tags if "context" in tag.key
    ]
    assert sorted(contexts) == ["test", "training", "validation"]
    assert any(name.startswith("system/") for name in job.data.metrics)
    for trial in tracked(first.tracked_run, "trial"):
        files = {file.path for file in client.list_artifacts(trial.info.run_id)}
        assert files == {"per_query.csv", "row.json", "run.txt"}
    for row in tracked(first.tracked_run, "baseline"):
        files = {file.path for file in client.list_artifacts(row.info.run_id)}
        assert files == {"per_query.csv", "row.json", "run.txt"}


def logged_model(first, client):
    """The one of the first job: those that repeat it log the same model again, as their own."""
    run = first.tracked_run
    (logged,) = client.search_logged_models(
        [client.get_run(run).info.experiment_id], f"source_run_id = '{run}'"
    )
    return logged


@pytest.fixture
def mlflow_store(path):
    """MLflow's own default store, for the functions that take no client."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{path.parent}/mlflow.db")
    yield
    mlflow.set_tracking_uri(None)


def test_the_logged_model_scores_like_the_run(first, client, beir_folder, mlflow_store):
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model(f"models:/{logged_model(first, client).model_id}")
    docs, queries = (
        {row["_id"]: row["text"] for row in map(json.loads, (beir_folder / name).open())}
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    folder = Path(first.artifacts["run"])  # of the best trial, as the model is
    manifest = json.loads((folder / "manifest.json").read_text())
    table = pd.read_parquet(folder / manifest["attempt"] / "part-00000.parquet")
    row = table[table.query_id == "q50"].iloc[0]
    frame = pd.DataFrame({"query": queries["q50"], "text": [docs[d] for d in row.doc_ids[:10]]})
    scores = model.predict(frame)["score"]
    np.testing.assert_allclose(scores, row.scores[:10], rtol=0, atol=1e-4)
    assert np.ptp(scores) > 0


def test_a_second_run_trains_nothing(first, path, tracked):
    again = run(load(Experiment, path), lambda line: None)
    assert again.counts["stages"] == {"distinct": 2, "trained": 0}
    assert len(list((path.parent / "storage" / "checkpoint").glob("*/attempt-*"))) == 2
    lines = by_name(again)
    assert all(lines[name].row.reused for name in TRIALS)
    for name, line in by_name(first).items():
        other = lines[name]
        assert other.means == line.means and other.intervals == line.intervals
        assert other.versus == line.versus and other.row.pairs == line.row.pairs
    assert again.artifacts == first.artifacts and again.tracked_run != first.tracked_run
    assert len(tracked(first.tracked_run, "trial")) == 2
    _same_metrics(tracked(first.tracked_run), tracked(again.tracked_run))
    for name, trial in by_own_name(tracked(first.tracked_run, "trial")).items():
        repeated = by_own_name(tracked(again.tracked_run, "trial"))[name]
        _same_metrics(tracked(trial.info.run_id), tracked(repeated.info.run_id))


def by_own_name(runs):
    return {own_name(run): run for run in runs}


def _same_metrics(before, after) -> None:
    """What is found again has the metrics that it was tracked with first."""
    runs, repeated = by_own_name(before), by_own_name(after)
    assert runs.keys() == repeated.keys()
    for name in runs:
        known, found = dict(runs[name].data.metrics), dict(repeated[name].data.metrics)
        assert found.pop("reused", 1.0) == 1.0
        known.pop("reused", None)
        assert found == pytest.approx(known) and found


def test_the_report_of_another_day_is_the_same(first, path):
    store = TrackingStore(f"sqlite:///{path.parent}/mlflow.db")
    read = read_report(store, store.job("tiny"))
    by_id = read_report(store, store.job(first.tracked_run))
    assert [row.name for row in by_id.rows] == [row.name for row in first.report.rows]
    assert by_id.json()["sets"] == first.report.json()["sets"]
    assert by_id.sets == first.report.sets and by_id.references == ("contrastive",)
    assert by_id.curves.keys() == {*TRIALS, *by_id.curves}
    for name in TRIALS:
        ours = {c.stage: c for c in first.report.curves[name]}
        for curve in by_id.curves[name]:
            expected = {k: v for k, v in ours[curve.stage].series.items() if k in curve.series}
            assert {k: list(v) for k, v in curve.series.items()} == expected
            assert {"loss", "val/nDCG@10"} <= curve.series.keys()
        assert all(first.tracked_run not in link for link in by_id.links[name])
    assert by_id.links == first.report.links and first.report.links.keys() == {
        row.name for row in first.report.rows
    }
    assert read.name == "tiny"
    page = to_html(by_id)
    assert page.count("<svg") >= 3 and "http-equiv" not in page and "src=" not in page


def test_the_best_model_is_registered_unless_its_first_stage_is_better(first, client):
    logged = logged_model(first, client)
    (reached,) = [m.value for m in logged.metrics if m.key == "nDCG_10"]
    (before,) = [
        line.means["nDCG@10"]
        for line in first.report.lines["test"]
        if line.row.kind == "first_stage"
    ]
    versions = client.search_model_versions("name = 'tiny'")
    assert [version.run_id for version in versions] == [first.tracked_run] * (reached >= before)
    assert [version.source for version in versions] == [logged.artifact_location] * len(versions)


def test_the_logged_model_re_ranks(first, client, mlflow_store):
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model(f"models:/{logged_model(first, client).model_id}")
    frame = pd.DataFrame({"query": ["verified a"] * 2, "text": ["verified", "draft"]})
    assert np.ptp(model.predict(frame)["score"]) > 0


def test_a_failing_trial_does_not_stop_the_others(first, path, client):
    space = {
        "stages.distil.loss": {
            "broken": {"type": "infonce", "temperature": 1e-45},  # every score becomes infinite
            "ranknet": {"type": "ranknet"},
        }
    }
    overrides = [
        f"sweep.space={json.dumps(space)}",
        "order=contrastive -> distil",
        "reference=ranknet",
        "resources.worker_failures=0",
    ]
    result = run(load(Experiment, path, overrides), lambda line: None)
    assert list(result.failed) == ["broken"]
    assert "the loss is" in result.failed["broken"] and "lower lr" in result.failed["broken"]
    rows = {row.name: row.error for row in result.report.rows if row.kind == "trained"}
    assert rows.keys() == {"broken", "ranknet"} and rows["ranknet"] == ""
    assert rows["broken"] == result.failed["broken"]
    assert "FAILED broken" in to_markdown(result.report)
    assert result.counts["stages"] == {"distinct": 3, "trained": 1}
    runs = client.search_runs(
        [client.get_run(result.tracked_run).info.experiment_id],
        f"tags.mlflow.parentRunId = '{result.tracked_run}'",
    )
    status = [
        (own_name(run), run.info.status) for run in runs if run.data.tags["raypipe.kind"] == "trial"
    ]
    # tried once more, then reported
    assert sorted(status) == [("broken", "FAILED")] * 2 + [("ranknet", "FINISHED")]
    read = read_report(store := TrackingStore(client.tracking_uri), store.job(result.tracked_run))
    assert [row.name for row in read.failed] == ["broken"]
    assert "the loss is" in read.failed[0].error
    assert read.json()["sets"] == result.report.json()["sets"]
    assert client.get_run(result.tracked_run).info.status == "FINISHED"
    assert client.get_run(result.tracked_run).data.metrics["trials_failed"] == 1


def test_a_killed_trial_is_a_failed_row_and_the_others_go_on(first, path, monkeypatch):
    def silent(trial: Trial) -> None:
        trial._default_result_or_future = None

    # as of a process that died before it described itself: Tune's result has no config then
    monkeypatch.setattr(Trial, "_get_default_result_or_future", silent)

    def trials() -> dict[int, psutil.Process]:
        found = {}
        for one in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
                if one.name().startswith("ray::Implicit"):
                    found[one.pid] = one
        return found

    killed: list[int] = []
    over = threading.Event()

    def kill_one(before: set[int]) -> None:
        while not killed and not over.is_set():
            for pid, process in trials().items():
                if pid not in before and not killed:
                    process.kill()
                    killed.append(pid)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_one, args=(set(trials()),))
    killer.start()
    given = ['sweep.space={"seed": [11, 12]}', "sweep.retries=0", "order=contrastive"]
    try:
        result = run(load(Experiment, path, given), lambda line: None)
    finally:
        over.set()
        killer.join()
    assert killed and len(result.failed) == 1
    rows = [row for row in result.report.rows if row.kind == "trained"]
    (sound,), (lost,) = ([r for r in rows if bool(r.error) == failed] for failed in (False, True))
    assert lost.error == result.failed[lost.name]
    assert sound.seeds != lost.seeds and sound.results["test"]
    assert result.counts["stages"] == {"distinct": 2, "trained": 1}


def test_a_deleted_checkpoint_is_not_trained_again(first, path, tmp_path):
    storage = tmp_path / "storage"
    shutil.copytree(
        path.parent / "storage", storage, ignore=shutil.ignore_patterns("checkpoint", ".*")
    )
    again = run(load(Experiment, path, [f"storage={storage}"]), lambda line: None)
    assert again.failed == {} and again.counts["stages"] == {"distinct": 2, "trained": 0}
    lines = by_name(again)
    for name, line in by_name(first).items():
        assert lines[name].means == line.means
    assert [lines[name].row.pairs for name in TRIALS] == [None, None]
    assert sum("its checkpoint was deleted" in note for note in again.report.notes) == 2


def test_two_workers_train_like_one(first, cluster, path, tmp_path):
    storage = tmp_path / "storage"
    shutil.copytree(
        path.parent / "storage", storage, ignore=shutil.ignore_patterns("checkpoint", ".*")
    )
    overrides = ["order=contrastive", f"storage={storage}"]
    experiment = load(Experiment, path, overrides)
    resources = Resources(workers=2, cpus_per_worker=1)
    builder = Builder(experiment.store(), Context(resources, "fp32", progress_bars=False))
    pair = builder.get(experiment.trained())
    assert pair.counts["workers"] == 2
    alone = trained(path, "order=contrastive")
    assert pair.digest == alone.digest
    for one, two in zip(history(alone), history(pair), strict=True):
        assert one.keys() == two.keys()
        for name, value in one.items():
            exact = name in ("step", "lr", "pairs", "tokens")
            # of twelve rankings, some may swap two documents of nearly one score
            most = 0 if exact else 0.05 if name.startswith("val/") else 1e-4
            assert two[name] == pytest.approx(value, rel=most, abs=most), name
    assert pair.counts["best"] == pytest.approx(alone.counts["best"], abs=0.05)
