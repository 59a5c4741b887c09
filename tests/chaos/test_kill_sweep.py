"""kill -9 in the middle of a sweep: the same command gives the same table.

python -m pytest -m chaos tests/chaos/test_kill_sweep.py -s      prints what was trained again
"""

from __future__ import annotations

import json

import pytest
from killing import finish, kill_driver, sweep, table, trained, until

from raypipe.sweep.tracked_report import read_report
from raypipe.tracking.stored_runs import TrackingStore

pytestmark = pytest.mark.chaos


def test_a_killed_sweep(recipe, tmp_path):
    whole = tmp_path / "whole"
    finish(sweep(recipe, whole), whole)
    expected = table(whole)
    assert len(trained(whole)) == 4

    broken = tmp_path / "broken"
    process = sweep(recipe, broken)
    until(lambda: len(trained(broken)) >= 1, process)
    kill_driver(process)
    there = trained(broken)
    assert there and len(there) < 4
    first = TrackingStore(f"sqlite:///{broken}/mlflow.db").job("tiny")
    finish(sweep(recipe, broken), broken)
    assert table(broken) == expected
    summary = json.loads((broken / "summary.json").read_text())
    assert summary["counts"]["stages"] == {"distinct": 4, "trained": 4 - len(there)}
    # jobs/report.py says the same, though what stood already was logged first
    store = TrackingStore(f"sqlite:///{broken}/mlflow.db")
    read = json.loads(json.dumps(read_report(store, store.job("tiny")).json()))
    assert read["sets"] == summary["report"]["sets"]
    # what the killed job had to say has arrived, and its runs are closed
    again = store.job(first.run_id)
    assert again.status == "KILLED"
    assert all(run.status in ("KILLED", "FINISHED") for run in store.children(again))
    print(f"\ndriver killed with {len(there)} of 4 stages trained; {4 - len(there)} after it")
