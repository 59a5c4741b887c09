"""A whole job whose names go astray wherever a place takes them for something else."""

from __future__ import annotations

import pytest
import yaml

from raypipe.commands.compare import run
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import validate
from raypipe.tracking.orphans import send_left_behind
from raypipe.tracking.stored_runs import TrackedRun, TrackingStore

NAME = "../../../x: 'y' #1?"
STAGE = "a/../../..\\ $x{ [/red] `b` *c* | <d> %2e 日本語"
SET = "[red] [bold $ #1? %2f"
REPORT = {"report.md", "report.html", "report.png", "report.json", "README.md"}


@pytest.mark.ray
def test_a_job_leaves_its_report_and_nothing_outside_its_folders(mined_recipe, unprobed, capsys):
    """One stage of two steps."""
    folder, tree = mined_recipe.parent, yaml.safe_load(mined_recipe.read_text())
    settings = {**tree["stages"]["contrastive"], "steps": 2, "validations": 1}
    tree |= {"name": NAME, "stages": {STAGE: settings}, "sweep": {}, "reference": STAGE}
    tree |= {"teacher": None}
    tree["evaluation"]["sets"] = {SET: {"queries": tree["data"]["test"], "depth": 5}}
    outside = set(folder.parent.iterdir())
    result = run(validate(Experiment, tree, "tiny.yaml"))
    assert result.failed == {} and f"{STAGE}: step 2/2" in capsys.readouterr().out
    assert send_left_behind(60) == 0, capsys.readouterr().out  # a busy machine has not sent all
    assert set(folder.parent.iterdir()) == outside
    assert {path.name.partition(".")[0] for path in folder.iterdir()} == {
        *("tiny", "storage", "mlflow", "mlartifacts")
    }
    store = TrackingStore(tree["tracking"])
    job = store.job(NAME)
    assert job.name == NAME and files_of(job) >= REPORT
    (trial,) = [run for run in store.children(job) if run.kind == "trial"]
    assert trial.name == STAGE and len([name for name in files_of(trial) if "run." in name]) == 2


def files_of(run: TrackedRun) -> set[str]:
    return {file.path for file in run.store.client.list_artifacts(run.run_id)}
