"""Look at a data set before anything is made of it: sizes, lengths, judgements, first texts.

raypipe data beir:/data/scifact --split test
raypipe data --corpus docs.tsv --queries queries.tsv --qrels qrels.txt
"""

from __future__ import annotations

from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS
from raypipe.program.options import CorpusOption, QrelsOption, QueriesOption, SplitOption


def data(
    dataset: Annotated[
        str | None, typer.Argument(help="an ir_datasets id, beir:FOLDER, pydoc; or name files")
    ] = None,
    split: SplitOption = None,
    corpus: CorpusOption = None,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
) -> None:
    with errors():
        from raypipe.commands.look import look
        from raypipe.commands.ranked_lists import query_set
        from raypipe.names import printable

        for line in look(query_set(dataset, split, corpus, queries, qrels)):
            print(printable(line))


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("data", help=__doc__, context_settings=OPTIONS)(data)
