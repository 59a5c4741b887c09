"""What a finished job hands over: the report in every form, the best model, a summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from raypipe.commands.export import card_of
from raypipe.commands.teacher_quality import TeacherQuality
from raypipe.evaluation.report import plots
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.page import to_html
from raypipe.evaluation.report.text import print_report, to_markdown
from raypipe.evaluation.results import MAIN
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.names import path_part
from raypipe.runs.metrics import Metrics
from raypipe.storage.artifacts import Step
from raypipe.storage.builder import Builder
from raypipe.storage.files import home, make_folder, open_own
from raypipe.sweep.best import Best
from raypipe.sweep.tracked_rows import COMPARISON, FIRST, comparison_json
from raypipe.tracking.relay import Relay


@dataclass
class Result:
    """What a job hands to its user and to other programs."""

    tracked_run: str
    """The server's id; empty if the server was not reached."""
    report: Report
    artifacts: dict[str, str]
    """Kind to URI, from the best model's collection to its metrics; empty without a model."""
    counts: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    """Trial name to error."""
    teachers: Sequence[TeacherQuality] = ()
    best: str = ""
    """The row of the model that the job hands out; empty if it trained none."""
    page: str = ""
    """The report's page on this machine, if it shows texts that the tracked one does not."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Where a reader finds `report` and `MLflow`; empty if the server was not reached."""

    @property
    def status(self) -> Literal["FINISHED", "FAILED"]:
        """Of the tracked run: a job whose trials all failed has failed, with a report."""
        trained = [row for row in self.report.rows if row.kind == "trained"]
        return "FINISHED" if any(not row.error for row in trained) else "FAILED"

    def summary(self) -> dict[str, Any]:
        """The content of `--summary FILE`."""
        plain = self.report.json()
        return {
            "tracked_run": self.tracked_run,
            "artifacts": self.artifacts,
            "counts": self.counts,
            "teachers": [dict(quality.summary()) for quality in self.teachers],
            "rows": plain["sets"][MAIN]["rows"],
            "failed": self.failed,
            "report": plain,
        }


def publish(report: Report, relay: Relay, run: str) -> None:
    """Hand data, Markdown, page and plot to the tracked run; then, or if that fails, print.

    The job said the report's notes before.
    """
    try:
        relay.send("log_text", run, json.dumps(comparison_json(report), indent=1), COMPARISON)
        relay.send("log_text", run, json.dumps(report.json(), indent=1), "report.json")
        if report.first:
            first = {role: documents.json() for role, documents in report.first.items()}
            relay.send("log_text", run, json.dumps(first), FIRST)
        relay.send("log_text", run, to_markdown(report), "report.md")
        relay.send("log_text", run, to_html(report), "report.html")
        plot = plots.png(plots.intervals(report, report.sets[0]))
        relay.send("log_bytes", run, plot, "report.png")
        relay.stored()
    finally:
        print_report(report, notes=False)


def local_page(report: Report, run: str) -> str:
    """Write the page below raypipe's home, with everything that the report shows; its path."""
    page = home() / "reports" / path_part(report.name, f"-{run[:8]}.html")
    make_folder(page.parent)
    with open_own(page, "w") as sink:
        sink.write(to_html(report))
    return str(page)


def record_best(best: Best, builder: Builder, relay: Relay, run: str) -> list[str]:
    """Track the best model with its card; one that is mixed with its first stage, with the weight.

    The server registers the model under the recipe's name if it is new there; its alias `best` goes
    to no model that is worse than the first stage, or than the holder on the same test set. A
    bi-encoder is registered as it is, whatever its scores are mixed with.

    Returns:
        Why the model is not registered, in a sentence; empty if it may be.
    """
    relay.send("tag", run, {"raypipe.best": best.name})
    checkpoint = builder.get(best.plan.last(best.trial))
    experiment = best.trial.experiment
    relay.send("log_text", run, str(card_of(best, builder)), "README.md")
    vectors = isinstance(experiment.last_model, TrainedBiEncoder)
    if vectors:
        best = replace(best, mixed=None)
    means = builder.get(best.metrics).counts["means"]
    first = builder.get(experiment.metrics(experiment.first_stage("test")))
    measure = experiment.measures()[0]
    reached, before = means.get(measure, 0.0), first.counts["means"].get(measure, 0.0)
    contest = {"test": f"{measure} {first.digest}", "value": reached}
    registered = experiment.registered_model if reached >= before else None
    name = "retriever" if vectors else "reranker"
    weights = (str(checkpoint.local()), name, registered, means, best.digest(), contest)
    relay.send("log_model", run, *weights, best.interpolation(builder))
    if registered:
        return []
    return [
        f"{best.name} is not registered as the best model of {experiment.registered_model}: its "
        f"{measure} on the test queries is {reached:.3f}, the first stage's {before:.3f}"
    ]


def line_of(metrics: Metrics, builder: Builder) -> dict[str, str]:
    """Kind to URI of the standing artifacts on the line from collection to these metrics; of
    several of a kind the one nearest to the metrics."""
    uris: dict[str, str] = {}
    seen: set[str] = set()
    level: list[Step] = [metrics]
    while level:
        here = {step.kind: artifact.uri for step in level if (artifact := builder.find(step))}
        uris = {**here, **uris}
        seen |= {step.digest for step in level}
        below = [s for step in level for s in {**step.inputs(), **step.needs()}.values()]
        level = list({step.digest: step for step in below if step.digest not in seen}.values())
    return dict(sorted(uris.items()))
