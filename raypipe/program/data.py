"""Look at a data set before anything is made of it: sizes, lengths, judgements, first texts.

raypipe data beir:/data/scifact --split test
raypipe data --corpus docs.tsv --queries queries.tsv --qrels qrels.txt
raypipe data --corpus docs.parquet --queries queries.csv --part doc_id=sku --part query=words
raypipe data msmarco-dl          # builds the folder that recipes name; --sources tells what of
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS
from raypipe.program.options import (
    CorpusOption,
    QrelsOption,
    QueriesOption,
    SplitOption,
    TextOption,
)


def data(
    dataset: Annotated[
        str | None,
        typer.Argument(help="an ir_datasets id, beir:FOLDER, pydoc; or a folder of public files"),
    ] = None,
    split: SplitOption = None,
    corpus: CorpusOption = None,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    text: TextOption = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="of the files, any number: doc_id=sku, query_id=nr, query=words, relevance=grade "
            "name columns; clicks=FILE is a log",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="of public files [where recipes look]")
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="say which public files come from where; fetch none")
    ] = False,
) -> None:
    with errors():
        from raypipe.commands import build_data
        from raypipe.commands.look import look
        from raypipe.commands.named_data import query_set
        from raypipe.config import ConfigError
        from raypipe.names import printable
        from raypipe.public_files import FOLDERS

        folder = build_data.published_folder(dataset)
        if folder is None:
            if sources or to is not None:
                raise ConfigError(
                    f"--{'sources' if sources else 'to'} belongs to folders of public files: "
                    f"raypipe data {' or '.join(FOLDERS)}"
                )
            lines = look(query_set(dataset, split, corpus, queries, qrels, text, part or ()))
        else:
            lines = (build_data.sources if sources else build_data.build)(
                folder, to or folder.folder
            )
        for line in lines:
            print(printable(line), flush=True)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("data", help=__doc__, context_settings=OPTIONS)(data)
