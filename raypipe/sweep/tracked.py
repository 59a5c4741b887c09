"""Rows and comparisons as files of tracked runs, which `read_back` reads.

A run of kind trial, baseline or derived has `row.json` and `per_query.parquet`; a job has
`comparison.json`, which says what was compared on what.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.artifacts import Artifact
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.rows import PerQuery, Row
from raypipe.judging import MAIN
from raypipe.sweep.relay import ROW_TAG, Relay
from raypipe.tracking import Kind

ERROR = "raypipe.error"
"""Tag of a trial that failed: the last line of its error."""
SEED = "raypipe.seed"
"""Tag of a trial."""
ROW, PER_QUERY, COMPARISON = "row.json", "per_query.parquet", "comparison.json"
_SCHEMA = pa.schema(
    [
        ("test_set", pa.string()),
        ("query_id", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)
_MOST = 64 << 20  # bytes of a ranking that is copied into the tracking store


def log_row(relay: Relay, run: str, row: Row, metrics: Mapping[str, Artifact]) -> None:
    """A row with one seed or none: its facts, its values per query, its rankings."""
    relay.send("log_text", run, json.dumps(row_json(row), indent=1), ROW)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / PER_QUERY
        pq.write_table(table({role: one[0] for role, one in row.results.items()}), path)
        _send_file(relay, run, path)
    for role, artifact in metrics.items():
        name = "run.trec" if role == MAIN else f"run.{role}.trec"
        path = artifact.local() / "run.trec"
        if path.stat().st_size <= _MOST:
            _send_file(relay, run, path, name)
        else:
            relay.send("log_text", run, f"too large to copy; it is in {artifact.uri}\n", name)


def log_plain_row(relay: Relay, parent: str, row: Row, kind: Kind) -> None:
    """A run of its own for a row that no trial made."""
    tags = {ROW_TAG: row.name, "raypipe.row_kind": row.kind}
    run = relay.start(row.name, kind, parent, {}, tags)
    means = {
        (measure if role == MAIN else f"{role}/{measure}"): _mean(values)
        for role, seeds in row.results.items()
        for measure, values in seeds[0].items()
    }
    relay.send("log", run, means)
    log_row(relay, run, row, {})
    relay.send("finish", run)


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _send_file(relay: Relay, run: str, path: Path, name: str | None = None) -> None:
    """The bytes travel: the writing actor may run on another node."""
    relay.send("log_bytes", run, path.read_bytes(), name or path.name)


def row_json(row: Row) -> dict[str, Any]:
    """Everything of a row but its values."""
    plain = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "results"}
    plain["stages"] = [dataclasses.asdict(stage) for stage in row.stages]
    return {**plain, "seeds": list(row.seeds)}


def comparison_json(report: Report) -> dict[str, Any]:
    """Everything of a report but links, curves, and what a row's own run says of it.

    A row's run knows neither that its process died nor what another trial of the job trained.
    """
    return {
        "name": report.name,
        "mode": report.mode,
        "reference": report.reference,
        "statistics": report.statistics.model_dump(mode="json"),
        "notes": list(report.notes),
        "rows": [row.name for row in report.rows],
        "reused": {row.name: row.reused for row in report.rows if not row.error},
        "failed": {r.name: {"seeds": list(r.seeds), "error": r.error} for r in report.failed},
        "searched": [dataclasses.asdict(one) for one in report.searched],
        "sets": [dataclasses.asdict(one) for one in report.sets],
    }


def table(results: Mapping[str, PerQuery]) -> pa.Table:
    rows = [
        (role, query_id, measure, value)
        for role, per_query in results.items()
        for measure, values in per_query.items()
        for query_id, value in values.items()
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _SCHEMA]
    return pa.table(columns, schema=_SCHEMA)


def read_table(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        by_measure = found.setdefault(row["test_set"], {}).setdefault(row["measure"], {})
        by_measure[row["query_id"]] = row["value"]
    return found
