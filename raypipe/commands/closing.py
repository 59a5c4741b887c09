"""The last lines of a job: what it found, where everything is, and the time that it took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from raypipe.evaluation.report.verdict import verdict_sentence
from raypipe.progress import duration
from raypipe.tracking.names import run_page

if TYPE_CHECKING:
    from raypipe.commands.result import Result


def closing_lines(result: Result, seconds: float) -> list[str]:
    """The verdict, then a line for each place, then the time."""
    found = {
        "checkpoint": result.artifacts.get("checkpoint"),
        "runs": result.artifacts.get("metrics"),  # run.trec stands beside the values
        **result.places,
        **({"report": result.page} if result.page else {}),
    }
    lines = [verdict_sentence(result.report, result.best)]
    lines += [f"{what}: {place}" for what, place in found.items() if place]
    return [*lines, f"time: {duration(seconds)}"]


def places_of(sent: Mapping[str, Any], tracked_run: str) -> dict[str, str]:
    """Where the report and the tracked run are.

    Args:
        sent: what `Relay.drain` returns.
        tracked_run: the server's id of the job's run; empty if the server did not take it.
    """
    if not tracked_run or "place" not in sent:
        return {}
    page = run_page(sent["place"], sent["experiment_id"], tracked_run)
    files = urlsplit(sent["files"])
    report = Path(url2pathname(files.path)) / tracked_run / "artifacts" / "report.html"
    is_here = files.scheme == "file" and report.is_file()
    return {"report": str(report) if is_here else f"report.html of {page}", "MLflow": page}
