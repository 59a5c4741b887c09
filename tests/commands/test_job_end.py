"""The end of a real job: its last lines name what is there, and a paper can be made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raypipe.commands.paper import write_paper

pytestmark = pytest.mark.ray


def test_the_last_lines_name_what_is_there(swept):
    *_, verdict, checkpoint, runs, report, tracked, time = swept.said
    assert re.match(
        r"(this checkpoint of )?contrastive.* is \.\d{3} nDCG@10 (above|below) ", verdict
    )
    assert re.search(r" on 12 queries, .*; these queries (could show \.\d{3}|are too few)", verdict)
    for line, file in ((checkpoint, "checkpoint: "), (runs, "runs: ")):
        assert (Path(line.removeprefix(file)) / "manifest.json").is_file()
    assert Path(report.removeprefix("report: ")).read_text("utf-8").startswith("<!doctype html>")
    assert tracked.startswith("MLflow: sqlite:///") and swept.result.tracked_run in tracked
    assert re.fullmatch(r"time: (\d+ minutes?)?( ?\d+ seconds?)?", time)
    assert not any("instead of 1" in line or "at most 0" in line for line in swept.said)


def test_a_paper_has_every_run_and_a_lock(swept, tmp_path):
    address = f"sqlite:///{swept.recipe.parent}/mlflow.db"
    lines = write_paper("tiny", tmp_path / "paper", address)
    runs = {path.name for path in (tmp_path / "paper" / "runs").iterdir()}
    assert {"BM25.trec", "oracle.trec", "contrastive.1.trec"} <= runs
    assert len(runs) == len(swept.result.report.rows)
    assert not any("was tracked" in line or "tracked none" in line for line in lines)
    assert "# step Stage 2" in (tmp_path / "paper" / "lock.txt").read_text("utf-8")
