"""The table of a comparison: rows from metrics artifacts, report files, JSON for programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raypipe.artifacts import Artifact, Builder
from raypipe.evaluation.report import (
    Line,
    Row,
    compare,
    plot,
    print_table,
    to_markdown,
    to_rows_json,
)
from raypipe.experiment import Experiment
from raypipe.models.backbone import Backbone
from raypipe.sweep.relay import Relay
from raypipe.sweep.space import Trial
from raypipe.sweep.trial import trainer_facts


def baselines(experiment: Experiment, builder: Builder) -> list[Row]:
    """First stage, teacher, oracle, and zero-shot where the backbone ships a trained scorer."""
    first = experiment.first_stage("test")
    rows = [_fixed(experiment.candidates.label, "first_stage", builder, experiment, first)]
    backbone = Backbone(experiment.model.backbone)
    if backbone.has_scorer and experiment.model.keep_layers is None:
        run = experiment.run_of(backbone)
        rows.append(_fixed(f"zero-shot: {backbone.name}", "zero_shot", builder, experiment, run))
    if experiment.teacher is not None:
        name = f"teacher: {experiment.teacher.label}"
        rows.append(_fixed(name, "teacher", builder, experiment, experiment.teacher_run()))
    rows.append(_fixed("oracle", "oracle", builder, experiment, experiment.oracle()))
    return rows


def _fixed(name: str, kind: Any, builder: Builder, experiment: Experiment, run: Any) -> Row:
    metrics = builder.get(experiment.metrics(run))
    return Row(name, kind, (), metrics.digest not in builder.made, per_query(metrics), None, None)


def trained_row(trial: Trial, builder: Builder, made: set[str]) -> Row:
    """The row of a finished trial; `made` holds the digests that this job computed."""
    experiment = trial.experiment
    last = experiment.trained()
    metrics = builder.get(experiment.metrics(experiment.run_of(last)))
    facts = [trainer_facts(builder.get(stage)) for stage in last.chain()]
    return Row(
        trial.name,
        "trained",
        experiment.stage_names,
        not any(stage.digest in made for stage in last.chain()),
        per_query(metrics),
        sum(int(f["pairs"]) for f in facts),
        sum(float(f["seconds"]) for f in facts),
    )


def per_query(metrics: Artifact) -> dict[str, dict[str, float]]:
    """measure -> query_id -> value."""
    found: dict[str, dict[str, float]] = {}
    for row in metrics.table().to_pylist():
        found.setdefault(row["measure"], {})[row["query_id"]] = row["value"]
    return found


@dataclass
class Result:
    """What a job hands to its user and to other programs."""

    tracked_run: str
    lines: list[Line]
    artifacts: dict[str, str]
    counts: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    """Trial name to error; such a trial has no row."""

    def summary(self) -> dict[str, Any]:
        """The content of `--summary FILE`."""
        return {
            "tracked_run": self.tracked_run,
            "artifacts": self.artifacts,
            "counts": self.counts,
            "rows": to_rows_json(self.lines),
            "failed": self.failed,
        }


def heading(experiment: Experiment, counts: Mapping[str, Any]) -> list[str]:
    """The sizes a reader needs to judge the table."""
    data, evaluation = experiment.data, experiment.evaluation
    docs = counts["collection/test"]["docs"]
    queries = {role: counts[f"queries/{role}"]["queries"] for role in ("validation", "test")}
    lines = [
        f"{experiment.name}: {data.test.dataset}{' ' + data.test.split if data.test.split else ''}",
        f"{docs:,} documents; {queries['test']:,} test, {queries['validation']:,} "
        "validation queries",
        f"first {evaluation.depth} of {experiment.candidates.label} re-ranked; "
        f"{experiment.truncation.reads}, {experiment.precision}, seed {experiment.seed}",
    ]
    for key, groups in counts.items():
        name, _, stages = key.partition("/")
        if name == "groups":
            of = f" of {stages}" if stages else ""
            lines.append(
                f"{groups['groups']:,} training groups{of}, {groups['pairs']:,} pairs per epoch"
            )
    return lines


def publish(
    title: list[str], rows: Sequence[Row], experiment: Experiment, relay: Relay, run_id: str
) -> list[Line]:
    """Compare, print, and hand Markdown, plot and JSON to the tracked run."""
    reference = experiment.reference
    if reference is not None and reference not in [row.name for row in rows]:
        title = [*title, f"reference {reference!r} failed: nothing was tested"]
        reference = None
    lines = compare(rows, reference)
    measures = list(experiment.evaluation.measures)
    print_table(title, lines, measures, reference)
    relay.send("log_text", run_id, to_markdown(title, lines, measures, reference), "report.md")
    relay.send("log_text", run_id, json.dumps(to_rows_json(lines), indent=1), "rows.json")
    for line in lines:
        means = {f"{line.name}/{m}": v for m, v in line.metrics.items()}
        if line.kind != "trained":
            relay.send("log", run_id, means)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.png"
        plot(path, lines, measures, reference)
        relay.send("log_artifact", run_id, str(path))
        relay.flush()
    return lines
