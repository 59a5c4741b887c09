"""Rows and comparisons as files of tracked runs: written by a job, read by a later report.

A run of kind trial, baseline or derived has `row.json` and `per_query.parquet`; a job has
`comparison.json`, which says what was compared on what.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluation.report.contents import Report, SearchedTrial, SetFacts, StageHistory
from raypipe.evaluation.results import MAIN, PerQuery, Row, StageFacts, Statistics
from raypipe.storage.artifacts import Artifact
from raypipe.tracking.names import ROW_TAG, metric_name, run_name
from raypipe.tracking.recorder import Kind
from raypipe.tracking.stored_runs import TrackedRun, TrackingStore

if TYPE_CHECKING:  # a report reads jobs without Ray
    from raypipe.tracking.relay import Relay

ROW, PER_QUERY, COMPARISON = "row.json", "per_query.parquet", "comparison.json"
"""Files of tracked runs."""
ERROR_TAG = "raypipe.error"
"""Tag of a trial that failed: the last line of its error."""
SEED_TAG = "raypipe.seed"
"""Tag of a trial."""
REFERENCES_TAG = "raypipe.references"
"""Tag of a job: JSON, names of rows. Jobs of version 0.1 have `raypipe.reference`, one name."""
PHASE_TAG = "raypipe.phase"
"""Tag of a trial that is no row: `select` chooses values, `search` is one draw of a search."""
ROW_KINDS = ("baseline", "trial", "derived")
"""Kinds of the tracked runs that have a row's files."""
_MOST = 64 << 20  # bytes of a ranking that is copied into the tracking store
_CURVES = ("loss", "val/")
_KEYS = ("test_set", "query_id", "measure")
_SCHEMA = pa.schema([*((key, pa.string()) for key in _KEYS), ("value", pa.float64())])

# --- written by a job -----------------------------------------------------------------------------


def log_row(relay: Relay, run: str, row: Row, metrics: Mapping[str, Artifact]) -> None:
    """A row with one seed or none: its facts, its values per query, its rankings.

    Args:
        metrics: by test set, the artifacts that hold the rankings to copy.
    """
    relay.send("log_text", run, json.dumps(row_json(row), indent=1), ROW)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / PER_QUERY
        pq.write_table(table({role: seeds[0] for role, seeds in row.results.items()}), path)
        _send_file(relay, run, path)
    for role, artifact in metrics.items():
        name = "run.trec" if role == MAIN else f"run.{role}.trec"
        path = artifact.local() / "run.trec"
        if path.stat().st_size <= _MOST:
            _send_file(relay, run, path, name)
        else:
            relay.send("log_text", run, f"too large to copy; it is in {artifact.uri}\n", name)


def log_plain_row(relay: Relay, parent: str, row: Row, kind: Kind, label: str) -> None:
    """A run of its own for a row that no trial made.

    Args:
        parent: the relay's id of the job's tracked run.
        label: the run's name: of one seed of a row another than the row's.
    """
    tags = {ROW_TAG: row.name, "raypipe.row_kind": row.kind}
    run = relay.start(label, kind, parent, {}, tags)
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
    plain = {f.name: getattr(row, f.name) for f in fields(row) if f.name != "results"}
    plain["stages"] = [asdict(stage) for stage in row.stages]
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
    }


def table(results: Mapping[str, PerQuery]) -> pa.Table:
    """The content of `per_query.parquet`: one row per test set, query and measure."""
    rows = [
        (role, query_id, measure, value)
        for role, per_query in results.items()
        for measure, values in per_query.items()
        for query_id, value in values.items()
    ]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _SCHEMA]
    return pa.table(columns, schema=_SCHEMA)


# --- read by a report -----------------------------------------------------------------------------


def read_table(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """test set -> measure -> query_id -> value."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for row in pq.read_table(path).to_pylist():
        by_measure = results.setdefault(row["test_set"], {}).setdefault(row["measure"], {})
        by_measure[row["query_id"]] = row["value"]
    return results


@dataclass(frozen=True)
class _RowRun:
    """A tracked run of the job that makes a row, or one seed of a row."""

    run: TrackedRun
    row: Mapping[str, Any] | None
    """The content of `row.json`; None of a run that did not finish."""
    results: Mapping[str, PerQuery]
    """By test set."""

    @classmethod
    def read(cls, run: TrackedRun, folder: Path) -> _RowRun:
        """Fetch the run's files into the folder, which is made, and read them."""
        folder.mkdir(parents=True)
        row = run.json(ROW, folder)
        path = run.file(PER_QUERY, folder) if row is not None else None
        return cls(run, row, {} if path is None else read_table(path))

    @property
    def name(self) -> str:
        """Of the row, which several seeds share."""
        return str((self.row or {}).get("name", self.run.name))

    @property
    def seed(self) -> int | None:
        """None where nothing was trained, and of a row that combines seeds."""
        seeds = (self.row or {}).get("seeds") or [None]
        return None if len(seeds) > 1 else seeds[0]


def read_report(store: TrackingStore, job: TrackedRun) -> Report:
    """The comparison of a tracked job, as far as it got.

    Rows come from the job's children, so a job that was killed has the rows that were finished.
    Which rows failed and which were reused the job says at its end; of a job that did not reach its
    end the children say it.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        facts = job.json(COMPARISON, folder) or {}
        row_runs = [
            _RowRun.read(run, folder / run.run_id)
            for run in store.children(job)
            if run.kind in ROW_KINDS and PHASE_TAG not in run.tags
        ]
    failed = _failed(facts, row_runs)
    failed_names = {run_name(row.name) for row in failed}
    seeds_by_row: dict[str, list[_RowRun]] = {}
    for row_run in row_runs:
        if row_run.row is not None and row_run.run.name not in failed_names:
            seeds_by_row.setdefault(row_run.name, []).append(row_run)
    reused = facts.get("reused", {})
    finished = [_joined(seeds) for seeds in seeds_by_row.values()]
    rows = [replace(row, reused=reused.get(row.name, row.reused)) for row in finished] + failed
    sets = tuple(map(_set_facts, facts.get("sets", ()))) or _common_sets(rows, job.name)
    order = {name: position for position, name in enumerate(facts.get("rows", ()))}
    rows.sort(key=lambda row: order.get(row.name, len(order)))
    return Report(
        name=facts.get("name", job.name),
        rows=tuple(rows),
        sets=sets,
        references=_references(facts, job, rows),
        statistics=Statistics(**facts.get("statistics", {})),
        mode=facts.get("mode", "compare"),
        notes=tuple(facts.get("notes", ())) or _unfinished(job),
        searched=tuple(SearchedTrial(**trial) for trial in facts.get("searched", ())),
        links={row: [one.run.address for one in seeds] for row, seeds in seeds_by_row.items()},
        curves={row: _curves(store, seeds, sets) for row, seeds in seeds_by_row.items()},
    )


def _failed(facts: Mapping[str, Any], row_runs: Sequence[_RowRun]) -> list[Row]:
    """A row per trial that failed and never finished, however often it was tried."""
    if "failed" in facts:
        return [
            Row(name, "trained", {}, tuple(failure["seeds"]), error=failure["error"])
            for name, failure in facts["failed"].items()
        ]
    finished = {row_run.run.name for row_run in row_runs if row_run.row is not None}
    last_tags = {
        row_run.run.name: row_run.run.tags
        for row_run in row_runs
        if row_run.run.status == "FAILED" and row_run.run.name not in finished
    }
    return [
        Row(
            name,
            "trained",
            {},
            (int(tags[SEED_TAG]),) if SEED_TAG in tags else (),
            error=tags.get(ERROR_TAG, "see its tracked run"),
        )
        for name, tags in last_tags.items()
    ]


def _joined(row_runs: Sequence[_RowRun]) -> Row:
    """The seeds of one row, in order; of a seed that was run twice the later run counts."""
    latest = {row_run.seed: row_run for row_run in row_runs}
    seeds = sorted(latest.values(), key=lambda row_run: row_run.seed or 0)
    rows = [row_run.row for row_run in seeds if row_run.row is not None]
    seconds = [row["seconds"] for row in rows if row["seconds"] is not None]
    common = [name for name in seeds[0].results if all(name in one.results for one in seeds)]
    first = rows[0]
    runs = {name: [d for row in rows for d in row.get("runs", {}).get(name, ())] for name in common}
    tied = {name: sum(row.get("tied", {}).get(name, 0) for row in rows) for name in common}
    return Row(
        name=first["name"],
        kind=first["kind"],
        results={name: [row_run.results[name] for row_run in seeds] for name in common},
        seeds=tuple(one.seed for one in seeds if one.seed is not None) or tuple(first["seeds"]),
        stages=tuple(StageFacts(**stage) for stage in first["stages"]),
        pairs=first["pairs"],
        seconds=sum(seconds) / len(seconds) if seconds else None,
        reused=all(row["reused"] for row in rows),
        error=first["error"],
        runs={name: digests for name, digests in runs.items() if digests},
        tied={name: lists for name, lists in tied.items() if lists},
    )


def _set_facts(plain: Mapping[str, Any]) -> SetFacts:
    """A test set as `comparison.json` has it; files of version 0.1 name one reference or null."""
    keys = ("title", "measures", "sources", "rows", "references")
    lists = {key: tuple(plain.get(key, ())) for key in keys}
    if plain.get("reference"):
        lists["references"] = (plain["reference"],)
    return SetFacts(**{key: v for key, v in plain.items() if key != "reference"} | lists)


def _common_sets(rows: Sequence[Row], job: str) -> tuple[SetFacts, ...]:
    """The test sets that all rows have: what a job compared that ended before it said so."""
    results = [row.results for row in rows if row.results]
    common = [name for name in (results[0] if results else ()) if all(name in r for r in results)]
    return tuple(SetFacts(name, (f"{job}: {name}",), tuple(results[0][name][0])) for name in common)


def _references(facts: Mapping[str, Any], job: TrackedRun, rows: Sequence[Row]) -> tuple[str, ...]:
    """The references that have a row, by the job's `comparison.json`, or else by its tags."""
    one = facts.get("reference") or job.tags.get("raypipe.reference")
    tagged = json.loads(job.tags.get(REFERENCES_TAG, "[]"))
    names = facts.get("references") or tagged or ([one] if one else [])
    sound = {row.name for row in rows if not row.error}
    return tuple(name for name in names if name in sound)


def _unfinished(job: TrackedRun) -> tuple[str, ...]:
    return () if job.status == "FINISHED" else (f"the job is {job.status}: rows may be missing",)


def _curves(
    store: TrackingStore, row_runs: Sequence[_RowRun], sets: Sequence[SetFacts]
) -> list[StageHistory]:
    """What the stages of a row's seeds reported; measures under their own names again."""
    names = {metric_name(f"val/{m}"): f"val/{m}" for test_set in sets for m in test_set.measures}
    return [
        StageHistory(
            stage.name,
            row_run.seed,
            {names.get(name, name): points for name, points in stage.history(_CURVES).items()},
        )
        for row_run in row_runs
        if row_run.run.kind == "trial"
        for stage in store.children(row_run.run)
    ]
