"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StorageOption = Annotated[
    str | None,
    typer.Option(help="directory or URI of the artifacts [default: $RAYPIPE_HOME/storage]"),
]
TrackingOption = Annotated[
    str | None, typer.Option(help="MLflow address [default: MLFLOW_TRACKING_URI, or a file]")
]
ModelOption = Annotated[
    str, typer.Option(help="hub name, folder, package:NAME/FOLDER, or models:/NAME@best of MLflow")
]
DatasetOption = Annotated[
    str | None, typer.Option(help="an ir_datasets id, beir:FOLDER, pydoc; or name files")
]
SplitOption = Annotated[str | None, typer.Option(help="of beir:, msmarco:, trec: and pydoc")]
CorpusOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="documents: .tsv, .jsonl, .csv, .parquet, folder"),
]
QueriesOption = Annotated[str | None, typer.Option(metavar="FILE", help="queries, likewise")]
TextOption = Annotated[
    str | None,
    typer.Option(metavar="TEMPLATE", help="a document's text from columns: '{title} | {body}'"),
]
QrelsOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="judgements, if there are any")
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="a TREC run, gzipped for .gz; or .parquet, a row per query: query_id, doc_ids, scores",
    ),
]
LengthOption = Annotated[
    int | None, typer.Option("--max-length", min=8, help="tokens [default: the model's own]")
]
MeasuresOption = Annotated[str, typer.Option(help="names as in ir-measures, parted by spaces")]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="auto, bf16, fp16 or fp32 [auto: bf16 where it is fast]")
]
