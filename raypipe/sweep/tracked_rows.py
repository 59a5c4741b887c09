"""Rows and comparisons as files of tracked runs, written by a job; `tracked_report` reads them.

A run of kind trial, baseline or derived has `row.json` and `per_query.csv`; a job has
`comparison.json`, which says what was compared on what. MLflow shows text of these suffixes on a
run's page; jobs of before have `per_query.parquet` and `run.trec`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.results import MAIN, PerQuery, Row
from raypipe.names import encodable
from raypipe.storage.artifacts import Artifact
from raypipe.tracking.names import ROW_TAG
from raypipe.tracking.recorder import Kind

if TYPE_CHECKING:  # a report reads jobs without Ray
    from raypipe.tracking.relay import Relay

ROW, PER_QUERY, COMPARISON = "row.json", "per_query.csv", "comparison.json"
FIRST = "first_documents.json"
"""Files of tracked runs."""
PER_QUERY_BEFORE = "per_query.parquet"
"""What jobs of before have in place of `per_query.csv`."""
ERROR_TAG = "raypipe.error"
"""Tag of a trial that failed: the last line of its error."""
REFERENCES_TAG = "raypipe.references"
"""Tag of a job: JSON, names of rows. Jobs of version 0.1 have `raypipe.reference`, one name."""
PHASE_TAG = "raypipe.phase"
"""Tag of a trial that is no row: `select` chooses values, `search` is one draw of a search."""
ROW_KINDS = ("baseline", "trial", "derived")
"""Kinds of the tracked runs that have a row's files."""
ELSEWHERE = "too large to copy; it is in"
"""Begins the file that stands for a ranking."""
_MOST = 64 << 20  # bytes of a ranking that is copied into the tracking store
COLUMNS = ("test_set", "query_id", "measure", "value")
"""Of `per_query.csv`."""


def log_row(relay: Relay, run: str, row: Row, metrics: Mapping[str, Artifact]) -> None:
    """A row with one seed or none: its facts, its values per query, its rankings.

    Args:
        metrics: by test set, the artifacts that hold the rankings to copy.
    """
    relay.send("log_text", run, json.dumps(row_json(row), indent=1), ROW)
    if curves := depth_series(row):
        relay.send("log_series", run, curves)
    values = values_csv({role: seeds[0] for role, seeds in row.results.items()})
    relay.send("log_bytes", run, values, PER_QUERY)
    for role, artifact in metrics.items():
        name = ranking_file(role)
        path = artifact.local() / "run.trec"
        if path.stat().st_size <= _MOST:
            _send_file(relay, run, path, name)
        else:
            relay.send("log_text", run, f"{ELSEWHERE} {artifact.uri}\n", name)


def ranking_file(test_set: str, suffix: str = "txt") -> str:
    """The file of a row's run that holds its ranking of a test set, as a TREC run.

    Args:
        suffix: `trec` of jobs of before.
    """
    return f"run.{suffix}" if test_set == MAIN else f"run.{test_set}.{suffix}"


def log_plain_row(
    relay: Relay,
    parent: str,
    row: Row,
    kind: Kind,
    label: str,
    metrics: Mapping[str, Artifact],
) -> None:
    """A run of its own for a row that no trial made.

    Args:
        parent: the relay's id of the job's tracked run.
        label: the run's name: of one seed of a row another than the row's.
        metrics: by test set, the artifacts that hold the rankings to copy.
    """
    tags = {ROW_TAG: row.name, "raypipe.row_kind": row.kind}
    run = relay.start(label, kind, parent, {}, tags)
    means = {
        (measure if role == MAIN else f"{role}/{measure}"): _mean(values)
        for role, seeds in row.results.items()
        for measure, values in seeds[0].items()
    }
    relay.send("log", run, means)
    log_row(relay, run, row, metrics)
    relay.send("finish", run)


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _send_file(relay: Relay, run: str, path: Path, name: str) -> None:
    """The bytes travel: the writing actor may run on another node."""
    relay.send("log_bytes", run, path.read_bytes(), name)


def depth_series(row: Row) -> dict[str, list[tuple[int, float]]]:
    """The curves of a row's first seed as series, whose step is the number of candidates."""
    return {
        f"{'' if role == MAIN else f'{role}/'}by_depth/{_measure(row, role)}": sorted(
            curves[0].items()
        )
        for role, curves in row.depths.items()
    }


def _measure(row: Row, role: str) -> str:
    return next(filter(tested, row.results[role][0]))


def row_json(row: Row) -> dict[str, Any]:
    """Everything of a row but its values, and how its lists begin, which the job has."""
    left_out = ("results", "first")
    plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name not in left_out}
    plain["stages"] = [asdict(stage) for stage in row.stages]
    plain["costs"] = {test_set: asdict(cost) for test_set, cost in row.costs.items()}
    return {**plain, "seeds": list(row.seeds)}


def comparison_json(report: Report) -> dict[str, Any]:
    """Everything of a report but links, curves, and what the rows' own runs say.

    Which rows were reused or failed stands here too: a row's run knows neither that its process
    died nor what another trial of the job trained.
    """
    return {
        "name": report.name,
        "mode": report.mode,
        "references": list(report.references),
        "statistics": report.statistics.model_dump(mode="json"),
        "notes": list(report.notes),
        "rows": [row.name for row in report.rows],
        "reused": {row.name: row.reused for row in report.rows if not row.error},
        "failed": {
            row.name: {"seeds": list(row.seeds), "error": row.error} for row in report.failed
        },
        "searched": [asdict(trial) for trial in report.searched],
        "sets": [asdict(test_set) for test_set in report.sets],
        "origin": dict(report.origin),
    }


def values_csv(results: Mapping[str, PerQuery]) -> bytes:
    """The content of `per_query.csv`: one line per test set, query and measure; values as exact as
    they are."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(COLUMNS)
    for role, per_query in results.items():
        for measure, values in per_query.items():
            lines.writerows((role, query, measure, repr(value)) for query, value in values.items())
    return encodable(text.getvalue()).encode()
