"""Rows and comparisons as files of tracked runs, which `read_back` reads.

A run of kind trial, baseline or derived has `row.json` and `per_query.parquet`; a job has
`comparison.json`, which says what was compared on what.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluation.report.contents import Report, SearchedTrial, SetFacts, StageHistory
from raypipe.evaluation.results import PerQuery, Row, StageFacts, Statistics
from raypipe.recipe.evaluation_sets import MAIN
from raypipe.storage.artifacts import Artifact
from raypipe.tracking.names import metric_name
from raypipe.tracking.recorder import Kind
from raypipe.tracking.relay import ROW_TAG, Relay
from raypipe.tracking.stored_runs import TrackedRun, TrackingStore

ERROR_TAG = "raypipe.error"
"""Tag of a trial that failed: the last line of its error."""
SEED_TAG = "raypipe.seed"
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


KINDS = ("baseline", "trial", "derived")
_CURVES = ("loss", "val/")


def read_report(store: TrackingStore, job: TrackedRun) -> Report:
    """The comparison of a tracked job, as far as it got.

    Rows come from the job's children, so a job that was killed has those that were finished. What
    failed and what was reused is what the job said at its end; of a job that did not come so far,
    what the children say.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        facts = job.json(COMPARISON, folder) or {}
        children = [o for o in store.children(job) if o.kind in KINDS and PHASE_TAG not in o.tags]
        found = [_Read(one, folder / one.run_id) for one in children]
        failed = _failed(facts, found)
        lost = {row.name for row in failed}
        parts = [one for one in found if one.row is not None and one.run.name not in lost]
        names = list(dict.fromkeys(one.name for one in parts))
        rows = [_merged([one for one in parts if one.name == name]) for name in names]
        reused = facts.get("reused", {})
        rows = [replace(row, reused=reused.get(row.name, row.reused)) for row in rows] + failed
        sets = tuple(_set_facts(one) for one in facts.get("sets", ())) or _sets_of(rows, job.name)
        order = {name: i for i, name in enumerate(facts.get("rows", ()))}
        rows.sort(key=lambda row: order.get(row.name, len(order)))
        return Report(
            name=facts.get("name", job.name),
            rows=tuple(rows),
            sets=sets,
            reference=_reference(facts.get("reference") or job.tags.get("raypipe.reference"), rows),
            statistics=Statistics(**facts.get("statistics", {})),
            mode=facts.get("mode", "compare"),
            notes=tuple(facts.get("notes", ())) or _unfinished(job),
            searched=tuple(SearchedTrial(**one) for one in facts.get("searched", ())),
            links={name: [one.run.address for one in parts if one.name == name] for name in names},
            curves={
                name: _curves(store, [o for o in parts if o.name == name], sets) for name in names
            },
        )


def _failed(facts: Mapping[str, Any], found: Sequence[_Read]) -> list[Row]:
    """A row per trial that failed, however often it was tried, and never finished."""
    if "failed" in facts:
        said = facts["failed"].items()
        return [Row(n, "trained", {}, tuple(o["seeds"]), error=o["error"]) for n, o in said]
    finished = {one.run.name for one in found if one.row is not None}
    last = {
        one.run.name: one.run.tags
        for one in found
        if one.run.status == "FAILED" and one.run.name not in finished
    }
    return [
        Row(
            name,
            "trained",
            {},
            (int(tags[SEED_TAG]),) if SEED_TAG in tags else (),
            error=tags.get(ERROR_TAG, "see its tracked run"),
        )
        for name, tags in last.items()
    ]


class _Read:
    """A row's files, read."""

    def __init__(self, run: TrackedRun, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.run = run
        self.row = run.json(ROW, folder)
        path = run.file(PER_QUERY, folder) if self.row is not None else None
        self.results: Mapping[str, PerQuery] = {} if path is None else read_table(path)

    @property
    def name(self) -> str:
        return str((self.row or {}).get("name", self.run.name))

    @property
    def seed(self) -> int | None:
        seeds = (self.row or {}).get("seeds") or [None]
        return None if len(seeds) > 1 else seeds[0]


def _merged(parts: Sequence[_Read]) -> Row:
    """Seeds of one row, in order; of a seed that was run twice the later run counts."""
    latest = sorted({one.seed: one for one in parts}.values(), key=lambda one: one.seed or 0)
    first = dict(latest[0].row or {})
    seconds = [one.row["seconds"] for one in latest if one.row and one.row["seconds"] is not None]
    sets = [name for name in latest[0].results if all(name in one.results for one in latest)]
    return Row(
        name=first["name"],
        kind=first["kind"],
        results={name: [one.results[name] for one in latest] for name in sets},
        seeds=tuple(one.seed for one in latest if one.seed is not None) or tuple(first["seeds"]),
        stages=tuple(StageFacts(**stage) for stage in first["stages"]),
        pairs=first["pairs"],
        seconds=sum(seconds) / len(seconds) if seconds else None,
        reused=all(bool(one.row and one.row["reused"]) for one in latest),
        error=first["error"],
    )


def _set_facts(plain: Mapping[str, Any]) -> SetFacts:
    lists = {key: tuple(plain[key]) for key in ("title", "measures", "sources")}
    return SetFacts(**{**plain, **lists})


def _sets_of(rows: Sequence[Row], name: str) -> tuple[SetFacts, ...]:
    """Of a job that ended before it said what it compares."""
    sound = [row for row in rows if row.results]
    common = [s for s in (sound[0].results if sound else ()) if all(s in r.results for r in sound)]
    return tuple(
        SetFacts(one, (f"{name}: {one}",), tuple(sound[0].results[one][0])) for one in common
    )


def _reference(named: str | None, rows: Sequence[Row]) -> str | None:
    return named if any(row.name == named and not row.error for row in rows) else None


def _unfinished(job: TrackedRun) -> tuple[str, ...]:
    return () if job.status == "FINISHED" else (f"the job is {job.status}: rows may be missing",)


def _curves(
    store: TrackingStore, parts: Sequence[_Read], sets: Sequence[SetFacts]
) -> list[StageHistory]:
    ours = {metric_name(f"val/{m}"): f"val/{m}" for one in sets for m in one.measures}
    return [
        StageHistory(
            stage.name,
            part.seed,
            {ours.get(name, name): points for name, points in stage.history(_CURVES).items()},
        )
        for part in parts
        if part.run.kind == "trial"
        for stage in store.children(part.run)
    ]


PHASE_TAG = "raypipe.phase"
"""Tag of the tracked runs of this phase, whose value is `select`."""
