"""A tracked job is read as the job itself reported, whatever became of its trials."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tracked_jobs import BASE, QUERIES, failed, report, row, track, track_run

from raypipe.evaluation.bootstrap import interval
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.results import QueryCost
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.recipe.trials import expand
from raypipe.stages.stage import Stage
from raypipe.sweep import table_rows as rows_module
from raypipe.sweep.plan import Plan
from raypipe.sweep.table_rows import trained_row
from raypipe.sweep.tracked_report import read_report
from raypipe.sweep.tracked_rows import (
    COMPARISON,
    ERROR_TAG,
    PHASE_TAG,
    comparison_json,
)
from raypipe.tracking.names import SEED_TAG
from raypipe.tracking.recorder import Recorder
from raypipe.tracking.stored_runs import TrackingStore

SEEDS = row(
    "cl",
    "trained",
    0.2,
    (1, 2, 3),
    spread=0.07,
    depths={"test": [{10: 0.2 + seed / 100, 50: 0.3} for seed in (1, 2, 3)]},
    costs={"test": QueryCost(12.5, 50.0, 0.0, 90_000_000)},
)
DIED = "WorkerCrashedError: the process died"
LONG = "kd / " * 100
"""A name of which MLflow shows two ends."""
JOBS = {
    "resumed": report("resumed", BASE, SEEDS),
    "died": report(
        "died",
        BASE,
        SEEDS,
        failed("kd / seed 2", 2, DIED),
        failed("kd", 1, DIED),
        failed(LONG, 1, DIED),
    ),
    "selected": report("selected", BASE, SEEDS),
    "tried again": report("tried again", BASE, replace(SEEDS, reused=False)),
    "killed": report("killed", BASE, SEEDS),
    "sliced": replace(
        report("sliced", BASE, SEEDS),
        sets=(
            SetFacts(
                "test", ("sliced",), ("nDCG@10",), slices={"half": dict.fromkeys(QUERIES[:3], "x")}
            ),
        ),
    ),
    "two": replace(report("two", BASE, SEEDS), references=("cl", "BM25")),
    "two, killed": replace(report("two, killed", BASE, SEEDS), references=("cl", "BM25")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> TrackingStore:
    uri = f"sqlite:///{tmp_path_factory.mktemp('read-back')}/mlflow.db"
    for name, one in JOBS.items():
        recorder = Recorder(uri, name)
        given = {
            "resumed": {"order": [2, 0, 1]},  # seed 3 stood already, so it was logged first
            "tried again": {"reused": True},  # what the trial itself saw
            "killed": {"finish": False},
            "two, killed": {"finish": False},
        }
        job = track(recorder, one, **given.get(name, {}))
        if name == "died":
            track_run(recorder, job, "kd / seed 2", status=None)
            for dead in ("kd", LONG):
                written = row(dead, "trained", 0.3, (1,))  # it died after its last word
                track_run(recorder, job, dead, written, {SEED_TAG: 1}, status=None)
        if name in ("selected", "killed"):
            for phase in ("select", "search"):
                tags = {PHASE_TAG: phase, SEED_TAG: 1, ERROR_TAG: DIED}
                track_run(recorder, job, f"{phase} / lr=1", tags=tags, status="FAILED")
        if name == "killed":
            for _ in range(2):  # tries
                track_run(
                    recorder,
                    job,
                    "kd / seed 2",
                    tags={SEED_TAG: 2, ERROR_TAG: DIED},
                    status="FAILED",
                )
            track_run(recorder, job, "kd / seed 1", status=None)
        assert recorder.drain() == (0, 0)
        recorder.close()
    return TrackingStore(uri)


def read(store: TrackingStore, name: str) -> Report:
    return read_report(store, store.job(name))


@pytest.mark.parametrize("name", ["resumed", "died", "selected", "tried again", "sliced", "two"])
def test_the_tables_are_those_of_the_job(store, name):
    found = read(store, name)
    assert found.json()["sets"] == JOBS[name].json()["sets"]
    assert found.json()["failed"] == JOBS[name].json()["failed"]


def test_a_row_that_another_one_stands_for_is_none_again(tmp_path):
    """It has a tracked run, and no line in the job's table; its tests would widen the family."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recorder = Recorder(uri, "twins")
    job = track(recorder, report("twins", BASE, SEEDS))
    track_run(recorder, job, "twin", replace(BASE, name="twin"))
    assert recorder.drain() == (0, 0)
    recorder.close()
    assert [row.name for row in read(TrackingStore(uri), "twins").rows] == ["BM25", "cl"]


def test_a_job_has_its_references_again(store):
    for name in ("two", "two, killed"):
        assert read(store, name).references == ("cl", "BM25")
        assert read(store, name).lines["test"][1].versus.keys() == {"BM25"}


def test_a_job_of_an_earlier_version_has_its_reference_again(tmp_path):
    """It named one row, or null, where lists stand now."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    recorder = Recorder(uri, "early")
    tags = {"raypipe.reference": "BM25"}
    recorder.start("early", "early", "job", tags=tags)
    track_run(recorder, "early", "BM25", BASE)
    store = TrackingStore(uri)
    assert recorder.drain() == (0, 0)
    assert read(store, "early").references == ("BM25",)
    facts = comparison_json(report("early", BASE))
    facts["sets"] = [
        {**{k: v for k, v in one.items() if k != "references"}, "reference": "BM25"}
        for one in facts["sets"]
    ]
    facts["reference"] = facts.pop("references")[0]
    recorder.log_text("early", json.dumps(facts), COMPARISON)
    assert recorder.drain() == (0, 0)
    recorder.close()
    found = read(store, "early")
    assert found.references == ("BM25",) and found.sets[0].references == ("BM25",)


def test_seeds_stand_in_order_whichever_was_logged_first(store):
    one = next(row for row in read(store, "resumed").rows if row.name == "cl")
    assert one.seeds == (1, 2, 3) and one.results == SEEDS.results
    values = [list(seed["nDCG@10"].values()) for seed in one.results["test"]]
    assert interval(values) != interval([values[2], values[0], values[1]])  # the order matters


def test_a_trial_whose_process_died_is_a_failed_row(store):
    found = {row.name: row for row in read(store, "died").rows}
    assert list(found) == ["BM25", "cl", "kd / seed 2", "kd", LONG]
    assert found["kd / seed 2"].error == found["kd"].error == DIED
    assert (found["kd / seed 2"].seeds, found["kd"].seeds) == ((2,), (1,))


def test_what_chose_values_is_no_row(store):
    assert [row.name for row in read(store, "selected").rows] == ["BM25", "cl"]


def test_a_killed_job_has_the_trials_that_failed_before(store):
    found = read(store, "killed")
    assert found.failed == [failed("kd / seed 2", 2, DIED)]
    assert [row.name for row in found.rows] == ["BM25", "cl", "kd / seed 2"]


def test_whether_a_row_was_reused_is_what_the_job_says(store):
    (one,) = [row for row in read(store, "tried again").rows if row.name == "cl"]
    assert not one.reused


def test_the_jobs_own_rows_have_their_seeds_in_order(recipe, monkeypatch):
    given = ['sweep.space={"seed": [3, 1, 2]}', "reference=null", "order=contrastive"]
    trials = expand(load(Experiment, recipe, given))
    assert [trial.experiment.seed for trial in trials] == [3, 1, 2]

    class Standing:
        """A builder that gives the seed of what is asked for."""

        def get(self, step):
            seed = step.seed if isinstance(step, Stage) else step.run_step.weights.seed
            return SimpleNamespace(seed=seed, counts={"queries_with_constant_scores": seed})

        def find(self, step):
            return None

    facts = {"steps": 10, "pairs": 640, "seconds": 5.0}
    monkeypatch.setattr(rows_module, "chain_facts", lambda chain, builder: [facts])
    monkeypatch.setattr(
        rows_module, "per_query", lambda artifact: {"nDCG@10": {"q": artifact.seed / 10}}
    )
    one = trained_row("contrastive", Plan.of(trials), Standing(), set(), ["test"])
    assert one.seeds == (1, 2, 3) and one.tied == {"test": 6}
    runs = [Plan.of(trials).metrics(trial, "test").run_step.digest for trial in trials]
    assert one.runs == {"test": [runs[1], runs[2], runs[0]]}
    assert [seed["nDCG@10"]["q"] for seed in one.results["test"]] == [0.1, 0.2, 0.3]
