"""Re-rank a run with a model that exists, a cross-encoder or a bi-encoder, anybody's.

raypipe rerank --model MODEL --dataset beir:/data/scifact --split test --run bm25.run --out new.run
raypipe rerank --model MODEL --corpus docs.tsv --queries queries.tsv --out new.run.gz
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
    ModelOption,
    OutOption,
    PrecisionOption,
    QrelsOption,
    QueriesOption,
    SplitOption,
    StorageOption,
    TextOption,
    TrackingOption,
)


def rerank(
    model: ModelOption,
    run: Annotated[
        str | None, typer.Option(metavar="FILE", help="a TREC run; without one, BM25's first 100")
    ] = None,
    dataset: DatasetOption = None,
    split: SplitOption = None,
    corpus: CorpusOption = None,
    queries: QueriesOption = None,
    qrels: QrelsOption = None,
    text: TextOption = None,
    depth: Annotated[int, typer.Option(min=1, help="documents of each list to re-rank")] = 100,
    out: OutOption = None,
    label: Annotated[
        int | None, typer.Option(min=0, help="of a head with several labels, the relevant one")
    ] = None,
    max_length: LengthOption = None,
    measures: MeasuresOption = "nDCG@10 RR@10 Judged@10",
    precision: PrecisionOption = "auto",
    storage: StorageOption = None,
    tracking: TrackingOption = None,
) -> None:
    with errors("rerank"):
        from raypipe.commands import ranked_lists as work
        from raypipe.commands.named_data import query_set
        from raypipe.program.written_lists import checked_out, place, shown

        checked_out(out)
        data = query_set(dataset, split, corpus, queries, qrels, text)
        where = place(storage, precision)
        shown(
            work.rerank(
                model_folder(model, tracking),
                data,
                run,
                depth,
                where,
                max_length=max_length,
                label=label,
                measures=measures.split(),
            ),
            out,
        )


def model_folder(model: str, tracking: str | None) -> str:
    """The model, or the folder that a registered one was copied to."""
    if not model.startswith("models:/"):
        return model
    from raypipe.tracking.registered import local_checkpoint

    return str(local_checkpoint(model, tracking))


def add(app: typer.Typer) -> None:
    """Add the command to a program."""
    app.command("rerank", help=__doc__, context_settings=OPTIONS)(rerank)
