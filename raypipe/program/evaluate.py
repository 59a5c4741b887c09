"""Compare run files on judgements: measures, intervals, paired tests, letters, one page with plots.

raypipe evaluate --qrels qrels.txt --runs bm25.run mine.run --reference bm25.run
raypipe evaluate --dataset beir:data/scifact --split test --runs BM25=a.run.gz ours=b.run
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS


def evaluate(
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE ...]", help="further runs, behind --runs", show_default=False
        ),
    ] = None,
    runs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="a TREC run, plain or .gz, or a .parquet of rerank, or NAME=FILE; more may follow",
        ),
    ] = None,
    qrels: Annotated[
        str | None, typer.Option(metavar="FILE", help="judgements, TREC qrels or BEIR's TSV")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="or a data set with judgements, such as beir:FOLDER")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="of the data set, where its id does not name it")
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN", help="name or file of a run to test against; once for each such run"
        ),
    ] = None,
    measures: Annotated[
        str,
        typer.Option(help="names as in ir-measures, parted by spaces, the most important first"),
    ] = "nDCG@10 RR@10 Judged@10",
    relevance: Annotated[
        int, typer.Option(min=1, help="the lowest relevance that RR, AP, R, P count as relevant")
    ] = 1,
    margin: Annotated[
        float, typer.Option(help="difference below which two runs count as the same")
    ] = 0.01,
    resamples: Annotated[
        int, typer.Option(help="of every bootstrap and permutation test")
    ] = 10_000,
    html: Annotated[Path | None, typer.Option(help="write the page to this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables to this file")] = None,
) -> None:
    with errors():
        from pydantic import ValidationError

        from raypipe.commands.evaluate import report_of
        from raypipe.config import ConfigError
        from raypipe.evaluation.report.writing import check_files, write
        from raypipe.evaluation.results import Statistics

        try:
            statistics = Statistics(margin=margin, resamples=resamples)
        except ValidationError as error:
            (first, *_) = error.errors()
            raise ConfigError(f"--{first['loc'][0]}: {first['msg']}") from None
        check_files(html, markdown)
        given = [*(runs or []), *(more or [])]
        names = measures.split()
        report = report_of(
            qrels, dataset, given, split, reference or [], names, relevance, statistics
        )
        write(report, html, markdown)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("evaluate", help=__doc__, context_settings=OPTIONS)(evaluate)
