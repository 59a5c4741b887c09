"""Reports of tracked jobs, also of jobs that ended long ago, one or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raypipe.config import ConfigError, nearest
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import print_report, to_markdown
from raypipe.evaluation.results import Row
from raypipe.sweep.tracked_rows import read_report
from raypipe.tracking.stored_runs import TrackingStore


def report_of(
    names: Sequence[str],
    tracking: str | None = None,
    reference: str | None = None,
    margin: float | None = None,
) -> Report:
    """The comparison of one tracked job, or of all rows of several.

    Args:
        names: run ids of jobs, or names of experiments, whose latest job is meant; none means the
            latest job of all.
        tracking: MLflow address; None is the default store.
        reference: another reference row; None is the job's own.
        margin: another margin of the equivalence tests.

    Raises:
        ConfigError: no such job, a job without rows, or jobs judged on different queries.
    """
    store = TrackingStore(tracking)
    named = [store.job(name) for name in names] or [store.job()]
    jobs = list({job.run_id: job for job in named}.values())
    reports = [read_report(store, job) for job in jobs]
    for report, job in zip(reports, jobs, strict=True):
        if not any(row.results for row in report.rows):
            raise ConfigError(
                f"tracked job {job.name} ({job.run_id}) has no finished row yet; wait for its "
                "first one, or name another job"
            )
    report = reports[0]
    for other, job in zip(reports[1:], jobs[1:], strict=True):
        report = beside(report, other, f"{job.name} {job.run_id[:6]}")
    if reference is not None:
        rows = [row.name for row in report.rows if not row.error]
        if reference not in rows:
            raise ConfigError(f"--reference: no row {reference!r}{nearest(reference, rows)}")
        report = replace(report, reference=reference)
    if margin is not None:
        report = replace(report, statistics=report.statistics.replace(margin=margin))
    return report


def beside(report: Report, other: Report, name: str) -> Report:
    """Rows of another comparison beside those of this one.

    Test sets remain that both have, with the same queries. Baselines that are equal stand once;
    another row whose name is taken gets the other job's name behind its own.

    Args:
        name: of the other job; no job that is there already has this name.

    Raises:
        ConfigError: they have no test set in common.
    """
    common = tuple(facts for facts in report.sets if _same_queries(report, other, facts.name))
    if not common:
        raise ConfigError(
            f"{report.name} and {name} have no test set with the same queries; report them one by "
            "one"
        )
    known = {row.name: row for row in report.rows}
    names: dict[str, str] = {}
    rows = list(report.rows)
    for row in other.rows:
        if row.name in known and _equal(row, known[row.name], [facts.name for facts in common]):
            continue
        names[row.name] = row.name if row.name not in known else f"{row.name} ({name})"
        rows.append(replace(row, name=names[row.name]))
    return replace(
        report,
        name=f"{report.name}, {other.name}" if other.name != report.name else report.name,
        rows=tuple(rows),
        sets=common,
        notes=(*report.notes, *(note for note in other.notes if note not in report.notes)),
        links={**report.links, **{names[k]: v for k, v in other.links.items() if k in names}},
        curves={**report.curves, **{names[k]: v for k, v in other.curves.items() if k in names}},
    )


def _same_queries(report: Report, other: Report, test_set: str) -> bool:
    left, right = (
        next((row.results[test_set][0] for row in each.rows if test_set in row.results), None)
        for each in (report, other)
    )
    if left is None or right is None or left.keys() != right.keys():
        return False
    return all(left[measure].keys() == right[measure].keys() for measure in left)


def _equal(row: Row, other: Row, sets: Sequence[str]) -> bool:
    if row.kind != other.kind or row.error or other.error:
        return bool(row.error)
    return all(list(row.results[name]) == list(other.results[name]) for name in sets)


def write(report: Report, html: Path | None, markdown: Path | None) -> None:
    """Write the files that are named, and print the report."""
    if html is not None:
        html.write_text(to_html(report), "utf-8")
    if markdown is not None:
        markdown.write_text(to_markdown(report), "utf-8")
    print_report(report)
    for kind, path in (("page", html), ("markdown", markdown)):
        if path is not None:
            print(f"{kind}: {path}")
