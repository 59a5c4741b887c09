"""The finished comparison: printed, and handed to the tracked run as text, page and data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from raypipe.commands.teacher_quality import TeacherQuality
from raypipe.evaluation.report import plots
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import print_report, to_markdown
from raypipe.recipe.evaluation_sets import MAIN
from raypipe.sweep.tracked_rows import COMPARISON, comparison_json
from raypipe.tracking.relay import Relay


@dataclass
class Result:
    """What a job hands to its user and to other programs."""

    tracked_run: str
    """The server's id; empty if it was not reached."""
    report: Report
    artifacts: dict[str, str]
    counts: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    """Trial name to error."""
    teachers: Sequence[TeacherQuality] = ()

    @property
    def status(self) -> Literal["FINISHED", "FAILED"]:
        """Of the tracked run: a job whose trials all failed has failed, with a report."""
        trained = [row for row in self.report.rows if row.kind == "trained"]
        return "FINISHED" if any(not row.error for row in trained) else "FAILED"

    def summary(self) -> dict[str, Any]:
        """The content of `--summary FILE`."""
        plain = self.report.json()
        return {
            "tracked_run": self.tracked_run,
            "artifacts": self.artifacts,
            "counts": self.counts,
            "teachers": [dict(one.summary()) for one in self.teachers],
            "rows": plain["sets"][MAIN]["rows"],
            "failed": self.failed,
            "report": plain,
        }


def publish(report: Report, relay: Relay, run: str) -> None:
    """Print, and hand Markdown, page, plot and data to the tracked run."""
    print_report(report)
    relay.send("log_text", run, to_markdown(report), "report.md")
    relay.send("log_text", run, to_html(report), "report.html")
    relay.send("log_text", run, json.dumps(report.json(), indent=1), "report.json")
    relay.send("log_text", run, json.dumps(comparison_json(report), indent=1), COMPARISON)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "report.png"
        plots.save_png(path, plots.intervals(report, report.sets[0]))
        relay.send("log_bytes", run, path.read_bytes(), "report.png")
