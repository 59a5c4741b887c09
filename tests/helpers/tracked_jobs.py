"""Tracked jobs as their Recorder leaves them, without a job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.results import Row, StageFacts, Statistics
from raypipe.sweep.tracked_rows import (
    COMPARISON,
    PER_QUERY,
    REFERENCES_TAG,
    ROW,
    comparison_json,
    row_json,
    values_csv,
)
from raypipe.tracking.names import NAME_TAG, SEED_TAG
from raypipe.tracking.recorder import Recorder

QUERIES = [f"q{i}" for i in range(6)]
FEW = Statistics(resamples=200)
"""Resamples: the default takes a second per report, and no test reads a figure of one."""


def row(name: str, kind: str, shift: float, seeds=(), queries=QUERIES, spread=0.0, **more) -> Row:
    """Seeds differ by `spread`, each on other queries."""

    def values(seed: int) -> dict[str, dict[str, float]]:
        bump = [spread * ((i * seed) % 5) for i in range(len(queries))]
        return {"nDCG@10": {q: shift + 0.1 * (i % 3) + bump[i] for i, q in enumerate(queries)}}

    facts = StageFacts("contrastive", "infonce", 1e-4, 8, 10, 80, 640, "abc")
    trained = {"stages": (facts,), "pairs": 640, "seconds": 5.0} if kind == "trained" else {}
    results = [values(seed) for seed in seeds or (0,)]
    return Row(name, kind, {"test": results}, tuple(seeds), **{**trained, **more})


def failed(name: str, seed: int, error: str) -> Row:
    return Row(name, "trained", {}, (seed,), error=error)


def report(name: str, *rows: Row) -> Report:
    facts = (SetFacts("test", (name,), ("nDCG@10",)),)
    reference = [row.name for row in rows if not row.error][-1]
    return Report(name, rows, facts, (reference,), FEW)


def own_name(run: Any) -> str:
    """What raypipe calls an MLflow run, whose title has seed and time behind it."""
    return str(run.data.tags[NAME_TAG])


BASE = row("BM25", "first_stage", 0.2)


def track_run(
    recorder: Recorder,
    job: str,
    name: str,
    one: Row | None = None,
    tags: Mapping[str, object] = {},
    status: str | None = "FINISHED",
) -> None:
    """A child of a job.

    Args:
        one: its row, of one seed; None if it did not come so far.
        status: None leaves it running.
    """
    run = f"{job}-{name}-{recorder.spool.written}"
    kind = "baseline" if one is not None and one.kind != "trained" else "trial"
    recorder.start(run, name, kind, job, tags=tags)
    if one is not None:
        recorder.log_text(run, json.dumps(row_json(one)), ROW)
        values = values_csv({role: seeds[0] for role, seeds in one.results.items()})
        recorder.log_bytes(run, values, PER_QUERY)
    if status is not None:
        recorder.finish(run, status)


def track(
    recorder: Recorder, one: Report, *, number=1, finish: bool = True, order=None, **changed
) -> str:
    """As a job leaves it; returns our id of the job.

    Args:
        number: of the job among those of the name.
        order: of the seeds' runs; None is the rows' own.
        changed: fields of the rows as their trials wrote them.
    """
    job = f"job-{one.name}-{number}"
    recorder.start(job, one.name, "job", tags={REFERENCES_TAG: json.dumps(one.references)})
    for r in one.rows:
        if r.error:
            continue
        results = r.results["test"]
        for place in order if order and r.seeds else range(len(results)):
            seeds = r.seeds[place : place + 1]
            curves = {name: [of[place]] for name, of in r.depths.items()}
            single = replace(
                r, seeds=seeds, results={"test": [results[place]]}, depths=curves, **changed
            )
            track_run(recorder, job, r.name, single, {SEED_TAG: seeds[0]} if seeds else {})
    if finish:
        recorder.log_text(job, json.dumps(comparison_json(one)), COMPARISON)
        recorder.finish(job)
    return job
