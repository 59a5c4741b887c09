"""What MLflow shows of a job on the page of its run."""

from __future__ import annotations

from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.text import to_markdown
from raypipe.evaluation.report.verdict import verdict_sentence

_MOST = 5000
"""Characters of a tag's value, at most, in every version of MLflow."""


def note_of(report: Report, best: str) -> str:
    """The verdict, then the report as far as a tag holds it, then where the whole one is.

    Args:
        best: the row of the model that the job hands out; empty if none was trained.
    """
    end = "\n\nWith plots and every query: `report.html` among the artifacts."
    text = f"**{verdict_sentence(report, best)}**\n\n{to_markdown(report)}"
    if len(text) + len(end) <= _MOST:
        return text + end
    kept = text[: _MOST - len(end) - len("\n\n...")]
    return f"{kept[: kept.rfind(chr(10))]}\n\n...{end}"  # no half line of a table
