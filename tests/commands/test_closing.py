"""The last lines of a job, without a job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tracked_jobs import BASE, report, row

from raypipe.commands.closing import closing_lines, duration, places_of
from raypipe.commands.result import Result

CL = row("cl", "trained", 0.4, (1,))
JOB = Result("", report("a", BASE, CL), {}, {}, {}, best="cl")
SENT = {"experiment_id": "3", "place": "http://host:5000", "files": ""}


def test_verdict_then_places_then_time():
    artifacts = {"checkpoint": "/s/checkpoint/x", "metrics": "/s/metrics/y", "tokens": "/s/t"}
    places = {"report": "/t/report.html", "MLflow": "http://host/run"}
    verdict, *others = closing_lines(replace(JOB, artifacts=artifacts, places=places), 61.2)
    assert verdict.startswith("this checkpoint of cl (one seed) is .200 nDCG@10 above BM25 on 6 q")
    assert others == [
        "checkpoint: /s/checkpoint/x",
        "runs: /s/metrics/y",
        "report: /t/report.html",
        "MLflow: http://host/run",
        "time: 1 minute 1 second",
    ]


def test_a_job_without_a_model_and_without_a_server():
    lines = closing_lines(replace(JOB, best=""), 0.2)
    assert lines[0].startswith("no model was trained") and lines[1:] == ["time: less than a second"]


def test_places_of_a_server_and_of_a_folder(tmp_path):
    page = "http://host:5000/#/experiments/3/runs/abc?workflowType=machine_learning"
    expected = {"report": f"report.html of {page}", "MLflow": page}
    assert places_of(SENT, "abc") == expected
    local = {**SENT, "files": (tmp_path / "my files").as_uri()}
    assert places_of(local, "abc") == expected  # an earlier job gave the experiment another folder
    file = tmp_path / "my files" / "abc" / "artifacts" / "report.html"
    file.parent.mkdir(parents=True)
    file.touch()
    assert places_of(local, "abc") == {**expected, "report": str(file)}
    assert places_of(SENT, "") == {} == places_of({"runs": {}}, "abc")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "less than a second"),
        (59.6, "1 minute"),
        (60 * 20 + 5, "20 minutes 5 seconds"),
        (7200, "2 hours"),
        (90061, "25 hours 1 minute"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
