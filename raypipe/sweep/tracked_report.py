"""The comparison and the rankings of a tracked job, from the files that `tracked_rows` wrote."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from raypipe.evaluation.joined_rows import joined_curves, mean_costs
from raypipe.evaluation.report.contents import Report, SearchedTrial, SetFacts, StageHistory
from raypipe.evaluation.report.first_documents import ListHeads
from raypipe.evaluation.results import PerQuery, QueryCost, Row, StageFacts, Statistics
from raypipe.sweep.tracked_rows import (
    COMPARISON,
    ELSEWHERE,
    ERROR_TAG,
    FIRST,
    PER_QUERY,
    PER_QUERY_BEFORE,
    PHASE_TAG,
    REFERENCES_TAG,
    ROW,
    ROW_KINDS,
    ranking_file,
)
from raypipe.tracking.names import SEED_TAG, file_name, metric_name, run_name
from raypipe.tracking.stored_runs import TrackedRun, TrackingStore

_CURVES = ("loss", "val/")


def read_table(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """test set -> measure -> query_id -> value."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for row in _lines(path):
        by_measure = results.setdefault(row["test_set"], {}).setdefault(row["measure"], {})
        by_measure[row["query_id"]] = float(row["value"])
    return results


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of `per_query.csv`, or of the table of jobs of before."""
    if path.suffix == ".parquet":
        yield from pq.read_table(path).to_pylist()
        return
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


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
        path = run.file([PER_QUERY, PER_QUERY_BEFORE], folder) if row is not None else None
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


def _row_runs(store: TrackingStore, job: TrackedRun, folder: Path) -> Iterator[_RowRun]:
    """The runs of a job that make rows, each with its files in a folder of its own below."""
    for run in store.children(job):
        if run.kind in ROW_KINDS and PHASE_TAG not in run.tags:
            yield _RowRun.read(run, folder / run.run_id)


def read_report(store: TrackingStore, job: TrackedRun) -> Report:
    """The comparison of a tracked job, as far as it got.

    Rows come from the job's children, so a job that was killed has the rows that were finished.
    Which rows failed and which were reused the job says at its end; of a job that did not reach its
    end the children say it.
    """
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        facts = job.json(COMPARISON, folder) or {}
        recipe = job.file("recipe.yaml", folder)
        first = job.json(FIRST, folder) or {}
        recipes = {} if recipe is None else {job.name: recipe.read_text("utf-8")}
        row_runs = list(_row_runs(store, job, folder))
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
    if order:  # another row stands for the runs that are left out
        rows = [row for row in rows if row.name in order]
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
        origin=facts.get("origin") or _origin(job),
        first={role: ListHeads.of_json(plain) for role, plain in first.items()},
        recipes=recipes,
    )


@dataclass(frozen=True)
class Ranking:
    """One seed's ranking of a test set."""

    row: str
    seed: int | None
    """None where nothing was trained, and of a row that combines seeds."""
    test_set: str
    content: bytes
    """A TREC run."""


def rankings(store: TrackingStore, job: TrackedRun, test_sets: Sequence[str]) -> Iterator[Ranking]:
    """The rankings that a job's rows tracked; of a seed that was run twice the later one.

    One that was too large to be copied is left out.
    """
    latest: dict[tuple[str, int | None], _RowRun] = {}
    with TemporaryDirectory() as scratch:
        for row_run in _row_runs(store, job, Path(scratch)):
            if row_run.row is not None:
                latest[row_run.name, row_run.seed] = row_run
        for (row, seed), row_run in latest.items():
            folder = Path(scratch) / row_run.run.run_id
            for test_set in test_sets:
                names = [file_name(ranking_file(test_set, suffix)) for suffix in ("txt", "trec")]
                path = row_run.run.file(names, folder)
                content = b"" if path is None else path.read_bytes()
                if content and not content.startswith(ELSEWHERE.encode()):
                    yield Ranking(row, seed, test_set, content)


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
    plain = [_details(row) for row in rows]
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
        depths=joined_curves(plain),
        costs=mean_costs(plain),
    )


def _details(plain: Mapping[str, Any]) -> Row:
    """What `row.json` says of depths and costs; files of earlier versions say nothing."""
    depths = {
        name: [{int(depth): value for depth, value in curve.items()} for curve in curves]
        for name, curves in plain.get("depths", {}).items()
    }
    costs = {name: QueryCost(**cost) for name, cost in plain.get("costs", {}).items()}
    return Row(plain["name"], plain["kind"], {}, depths=depths, costs=costs)


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


def _origin(job: TrackedRun) -> dict[str, str]:
    """Of a job that did not reach its end, or is of an earlier version: when it began, by which
    commit."""
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(job.started / 1000))
    commit = job.tags.get("mlflow.source.git.commit")
    return {"date": began, **({"commit": commit} if commit else {})}


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
