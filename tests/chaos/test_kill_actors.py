"""kill -9 of the helpers of a sweep, again and again: they start again, and the job ends as usual.

python -m pytest -m chaos tests/chaos/test_kill_actors.py -s      prints who was killed when
"""

from __future__ import annotations

import contextlib
import json

import psutil
import pytest
from killing import finish, sweep, table, trained, until

from raypipe.sweep.tracked_report import read_report
from raypipe.tracking.stored_runs import TrackingStore

pytestmark = pytest.mark.chaos
HELPERS = ("ray::_Writer", "ray::Registry", "log_monitor.py")
"""In the command lines of the actors that track and that hold claims, and of the process that
brings what workers print to the driver, which Ray does not start again."""


def helpers(process) -> dict[str, psutil.Process]:
    """The helpers that live below the job."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(child.cmdline())
            found |= {name: child for name in HELPERS if name in title}
    return found


def kill(process) -> list[str]:
    killed = []
    for name, helper in helpers(process).items():
        with contextlib.suppress(psutil.NoSuchProcess):
            helper.kill()
            killed.append(name)
    return killed


def test_helpers_that_are_killed(recipe, tmp_path):
    process = sweep(recipe, tmp_path)
    moments = {
        "at the start": lambda: True,
        "before a stage was trained": lambda: list((tmp_path / "storage" / "groups").glob("*")),
        "after one stage": lambda: len(trained(tmp_path)) >= 1,
        "after three stages": lambda: len(trained(tmp_path)) >= 3,
        "in the tests": lambda: list((tmp_path / "storage" / "metrics").glob("*/manifest.json")),
    }
    killed = {}
    for moment, is_there in moments.items():
        until(lambda is_there=is_there: is_there() and "ray::_Writer" in helpers(process), process)
        killed[moment] = kill(process)
    out = finish(process, tmp_path)
    assert "Tests are paired by query" in out  # below the table
    assert len(trained(tmp_path)) == 4 and len(table(tmp_path)) >= 2
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["failed"] == {} and summary["counts"]["stages"]["trained"] == 4
    store = TrackingStore(f"sqlite:///{tmp_path}/mlflow.db")
    tracked_job = store.job("tiny")
    assert tracked_job.run_id == summary["tracked_run"] and tracked_job.status == "FINISHED"
    runs = store.children(tracked_job)
    assert {run.status for run in runs} == {"FINISHED"}
    names = [run.name for run in runs]
    assert len(names) == len(set(names))  # no run was begun twice
    read = json.loads(json.dumps(read_report(store, tracked_job).json()))
    assert read["sets"] == summary["report"]["sets"]
    assert not list((tmp_path / "home" / "spool").iterdir())  # everything has arrived
    print("".join(f"\n{moment}: killed {', '.join(who)}" for moment, who in killed.items()))
