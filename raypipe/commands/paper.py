"""What a paper needs of a tracked job, as a folder: tables, values, runs, recipe, lock, BibTeX."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import yaml

from raypipe.commands.citations import references
from raypipe.commands.lock import LOCK
from raypipe.config import ConfigError
from raypipe.evaluation.report.contents import Report
from raypipe.evaluation.report.latex import paper, to_latex
from raypipe.evaluation.results import MAIN
from raypipe.names import counted, path_part
from raypipe.sweep.tracked_report import Ranking, rankings, read_report
from raypipe.tracking.stored_runs import TrackedRun, TrackingStore

RECIPE = "recipe.yaml"
COLUMNS = ("test_set", "row", "seed", "query_id", "measure", "value")


def write_paper(named: str | None, folder: Path, tracking: str | None = None) -> list[str]:
    """Write the folder.

    Args:
        named: a run id, or an experiment, whose latest job is meant; None is the latest of all.
        folder: new or empty.
        tracking: MLflow address; None is the default store.

    Returns:
        A sentence for every part, and for what the job did not track.

    Raises:
        ConfigError: no such job, or one without a finished row.
    """
    store = TrackingStore(tracking)
    job = store.job(named)
    report = read_report(store, job)
    if not any(row.results for row in report.rows):
        raise ConfigError(
            f"tracked job {job.name} ({job.run_id}) has no finished row yet; wait for its first "
            "one, or name another job"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tables = to_latex(report)
    (folder / "table.tex").write_text(tables, "utf-8")
    (folder / "paper.tex").write_text(paper(report.name, tables), "utf-8")
    values = _write_values(report, folder / "per_query.csv")
    lines = [
        f"table.tex: {counted(len(report.sets), 'table')}; paper.tex shows them",
        f"per_query.csv: {counted(values, 'value')}",
        *_runs(report, list(rankings(store, job, [s.name for s in report.sets])), folder),
        *_recipe(job, folder),
        *_lock(job, folder),
    ]
    return [f"{job.name} {job.run_id}, in {folder}", *lines]


def _write_values(report: Report, path: Path) -> int:
    """One line per test set, row, seed, query and measure; how many there are."""
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for line in _values(report):
            writer.writerow(line)
            count += 1
    return count


def _values(report: Report) -> Iterator[tuple[str, str, object, str, str, float]]:
    for test_set in report.sets:
        for row in report.rows_on(test_set):
            for place, per_query in enumerate(row.results.get(test_set.name, ())):
                seed = row.seeds[place] if len(row.seeds) == len(row.results[test_set.name]) else ""
                for measure in test_set.measures:
                    for query_id, value in per_query.get(measure, {}).items():
                        yield test_set.name, row.name, seed, query_id, measure, value


def _runs(report: Report, found: list[Ranking], folder: Path) -> list[str]:
    """Write `runs/row.seed.trec`, of further test sets `row.seed.SET.trec`; say what is missing."""
    (folder / "runs").mkdir(exist_ok=True)
    for ranking in found:
        seed = "" if ranking.seed is None else f".{ranking.seed}"
        of = "" if ranking.test_set == MAIN else path_part(f".{ranking.test_set}")
        name = path_part(ranking.row, f"{seed}{of}.trec")
        (folder / "runs" / name).write_bytes(ranking.content)
    lines = [f"runs: {counted(len(found), 'run')}"]
    tracked = {ranking.row for ranking in found}
    lost = [row.name for row in report.rows if not row.error and row.name not in tracked]
    return [*lines, *(f"runs: none of {name!r} was tracked" for name in lost)]


def _recipe(job: TrackedRun, folder: Path) -> list[str]:
    """The recipe as the job read it, and the BibTeX of what it names."""
    recipe = job.file(RECIPE, folder)
    if recipe is None:
        return [f"{RECIPE}: the job tracked none, so that references.bib is missing too"]
    text = references(yaml.safe_load(recipe.read_text("utf-8")))
    (folder / "references.bib").write_text(text, "utf-8")
    unknown = [line.removeprefix("% ") for line in text.splitlines() if line.startswith("% ")]
    entries = counted(text.count("\n@") + text.startswith("@"), "work")
    return [
        f"{RECIPE}: every field",
        f"references.bib: {entries}",
        *(f"references.bib: {line}" for line in unknown),
    ]


def _lock(job: TrackedRun, folder: Path) -> list[str]:
    if job.file(LOCK, folder) is None:
        return [f"{LOCK}: the job tracked none, as jobs of earlier versions"]
    return [f"{LOCK}: packages, and versions of steps"]
