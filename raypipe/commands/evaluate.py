"""Judges run files that exist: every measure, every test, the whole report, without a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from raypipe.commands.origin import origin
from raypipe.config import ConfigError, nearest
from raypipe.evaluation.measures import bounded, evaluate
from raypipe.evaluation.report.contents import Report, SetFacts
from raypipe.evaluation.results import MAIN, PerQuery, Row, Statistics
from raypipe.names import counted, quoted
from raypipe.tables.qrels import read_qrels
from raypipe.tables.run_table import is_run_table, read_run_table
from raypipe.tables.trec_run import ranks_tie, read_trec_run

MEASURES = ("nDCG@10", "RR@10", "Judged@10")


def report_of(
    qrels: str | None,
    dataset: str | None,
    runs: Sequence[str],
    split: str | None = None,
    references: Sequence[str] = (),
    measures: Sequence[str] = MEASURES,
    positive_relevance: int = 1,
    statistics: Statistics = Statistics(),  # noqa: B008 - frozen
) -> Report:
    """The comparison of run files on the same judgements.

    Every judged query counts for every run: a query that a run lacks counts as 0, and is said.

    Args:
        qrels: a file of judgements, or None.
        dataset: a data set's id, or None; exactly one of both is given.
        split: of the data set.
        runs: TREC runs, plain or gzipped, or tables of `raypipe rerank`; `NAME=FILE` names a row,
            without it the file does.
        references: rows by name or file, which the others are tested against; without any,
            letters alone say who is better than whom.
        positive_relevance: the lowest relevance that binary measures count as relevant.

    Raises:
        ConfigError: a file or data set that cannot be read, a measure that is unknown, two rows of
            one name, a reference that is none of them, or a run without any judged query.
    """
    if not measures:
        raise ConfigError("--measures: name at least one, such as nDCG@10")
    if split is not None and dataset is None:
        raise ConfigError("--split belongs to --dataset")
    judgements, source = _judgements(qrels, dataset, split)
    if (highest := max(judgements["relevance"].to_pylist())) < positive_relevance:
        raise ConfigError(
            f"--relevance {positive_relevance}: no judgement of {source} reaches it, the highest "
            f"is {highest}"
        )
    files = _named(runs)
    judged = set(judgements["query_id"].to_pylist())
    tables = {name: _read(path, judged) for name, path in files.items()}
    depth = max((len(d) for t, _ in tables.values() for d in t["doc_ids"]), default=1)
    names = tuple(dict.fromkeys(bounded(name, depth) for name in measures))
    rows, notes = [], []
    for name, (table, said) in tables.items():
        try:
            values = evaluate(table, judgements, names, positive_relevance)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        rows.append(Row(name, "run", {MAIN: [_per_query(values)]}))
        notes += [f"{name}: {sentence}" for sentence in said]
    title = (
        f"{len(judged)} judged queries of {source}",
        f"{counted(len(files), 'run')}, first {depth}",
    )
    facts = SetFacts(MAIN, title, names)
    chosen = tuple(_row(reference, files) for reference in references)
    return Report(
        "runs", tuple(rows), (facts,), chosen, statistics, notes=tuple(notes), origin=origin()
    )


def _judgements(qrels: str | None, dataset: str | None, split: str | None) -> tuple[pa.Table, str]:
    """The judgements, and what to call them."""
    if (qrels is None) == (dataset is None):
        raise ConfigError("name judgements: either --qrels FILE or --dataset ID")
    if qrels is not None:
        return read_qrels(qrels)[0], qrels
    from raypipe.datasets.ir import open_dataset
    from raypipe.datasets.queries import select_queries

    opened = open_dataset(str(dataset), split)
    opened.check()
    return select_queries(opened, require_positive=False).qrels, opened.name


def _named(runs: Sequence[str]) -> dict[str, str]:
    """Row name to file, in order.

    Raises:
        ConfigError: no run, or one name for two files.
    """
    if not runs:
        raise ConfigError("name at least one run file: --runs FILE ...")
    files: dict[str, str] = {}
    for run in runs:
        name, named, path = run.partition("=")
        if not named or Path(run).expanduser().is_file():
            name, path = _stem(run), run
        if not name.strip():
            raise ConfigError(f"--runs {quoted(run)}: expected NAME=FILE, found no name")
        if name in files:
            raise ConfigError(
                f"--runs: {files[name]} and {path} are both called {name!r}; name one of them, as "
                f"in other={path}"
            )
        files[name] = path
    return files


def _stem(path: str) -> str:
    """The file's name without .gz, .run, .trec, .txt and .parquet."""
    name = Path(path).name.removesuffix(".gz")
    return next(
        (name[: -len(end)] for end in (".run", ".trec", ".txt", ".parquet") if name.endswith(end)),
        name,
    )


def _row(reference: str, files: dict[str, str]) -> str:
    if reference in files:
        return reference
    if named := [name for name, path in files.items() if path == reference]:
        return named[0]
    if _stem(reference) in files and Path(reference).name != reference:
        raise ConfigError(f"--reference {reference}: not among --runs; add the file there")
    raise ConfigError(f"--reference: no run {reference!r}{nearest(reference, files)}")


def _read(path: str, judged: set[str]) -> tuple[pa.Table, list[str]]:
    """The lists of the judged queries, and what a reader should know of the file."""
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "no file there"
        raise ConfigError(f"--runs {path}: {what}; name a run file")
    if not file.stat().st_size:
        raise ConfigError(f"--runs {path}: the file is empty; name a run file")
    table, said = (_table if is_run_table(path) else _lines)(path, judged)
    if not len(table):
        raise ConfigError(
            f"{path}: none of its queries is judged; its query ids must be those of the judgements"
        )
    if missing := len(judged) - len(table):
        missed = f"{missing} of {len(judged)} judged queries are not in {path}, they count as 0"
        said.insert(0, missed)
    return table, said


def _table(path: str, judged: set[str]) -> tuple[pa.Table, list[str]]:
    table, others = read_run_table(path, judged)
    return table, [f"lines of queries that nobody judged: {others}"] if others else []


def _lines(path: str, judged: set[str]) -> tuple[pa.Table, list[str]]:
    try:
        table, counts = read_trec_run(Path(path).expanduser(), judged)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    said = []
    if ranks_tie(Path(path).expanduser()):
        said.append("documents share a rank or have none; these are ordered by score")
    elif rising := sum(bool((np.diff(row) > 0).any()) for row in table["scores"].to_pylist()):
        said.append(f"scores contradict the ranks in {rising} lists; the rank column is the order")
    if counts["other_queries"]:
        said.append(f"lines of queries that nobody judged: {counts['other_queries']}")
    if counts["duplicates"]:
        said.append(f"lines that name a document of the same list again: {counts['duplicates']}")
    return table, said


def _per_query(metrics: pa.Table) -> PerQuery:
    values: dict[str, dict[str, float]] = {}
    columns = (metrics[name].to_pylist() for name in ("query_id", "measure", "value"))
    for query_id, measure, value in zip(*columns, strict=True):
        values.setdefault(measure, {})[query_id] = value
    return values
