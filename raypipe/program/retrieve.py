"""Retrieve from a corpus with a bi-encoder that exists, or with BM25.

raypipe retrieve --model MODEL --corpus docs.tsv --queries queries.tsv --depth 100 --out dense.run
raypipe retrieve --model bm25 --dataset beir:/data/scifact --split test --out bm25.run.gz
"""

from __future__ import annotations

from typing import Annotated

import typer

from raypipe.commands.command_line import errors
from raypipe.program import OPTIONS
from raypipe.program.options import (
    CorpusOption,
    DatasetOption,
    LengthOption,
    MeasuresOption,
    OutOption,
    PrecisionOption,
    QrelsOption,
    QueriesOption,
    SplitOption,
    StorageOption,
    TextOption,
    TrackingOption,
)
from raypipe.program.rerank import model_folder


def retrieve(
    model: Annotated[
        str,
        typer.Option(
            help="hub name, folder or package:NAME/FOLDER of a bi-encoder, models:/NAME@best of "
            "MLflow, or bm25"
        ),
    ],
    dataset: DatasetOption = None,
    split: SplitOption = None,
    corpus: CorpusOption = None,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    text: TextOption = None,
    depth: Annotated[int, typer.Option(min=1, help="documents per query")] = 100,
    out: OutOption = None,
    max_length: LengthOption = None,
    measures: MeasuresOption = "nDCG@10 RR@10 Judged@10",
    precision: PrecisionOption = "auto",
    storage: StorageOption = None,
    tracking: TrackingOption = None,
) -> None:
    with errors("retrieve"):
        from raypipe.commands import ranked_lists as work
        from raypipe.commands.named_data import query_set
        from raypipe.program.written_lists import checked_out, place, shown

        checked_out(out)
        data = query_set(dataset, split, corpus, queries, qrels, text)
        where = place(storage, precision)
        chosen = model_folder(model, tracking)
        ranked = work.retrieve(
            chosen, data, depth, where, max_length=max_length, measures=measures.split()
        )
        shown(ranked, out)


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("retrieve", help=__doc__, context_settings=OPTIONS)(retrieve)
