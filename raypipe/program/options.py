"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Storage = Annotated[
    str | None,
    typer.Option(help="directory or URI of the artifacts [default: $RAYPIPE_HOME/storage]"),
]
Tracking = Annotated[
    str | None, typer.Option(help="MLflow address [default: MLFLOW_TRACKING_URI, or a file]")
]
Model = Annotated[
    str, typer.Option(help="hub name, folder, package:NAME/FOLDER, or models:/NAME@best of MLflow")
]
Dataset = Annotated[
    str | None, typer.Option(help="an ir_datasets id, beir:FOLDER, pydoc; or name files")
]
Split = Annotated[str | None, typer.Option(help="of beir: and pydoc")]
Corpus = Annotated[
    str | None, typer.Option(metavar="FILE", help="documents, .tsv or .jsonl, plain or .gz")
]
Queries = Annotated[str | None, typer.Option(metavar="FILE", help="queries, likewise")]
Qrels = Annotated[str | None, typer.Option(metavar="FILE", help="judgements, if there are any")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="a TREC run, gzipped for .gz; or .parquet")
]
Length = Annotated[
    int | None, typer.Option("--max-length", min=8, help="tokens [default: the model's own]")
]
Measures = Annotated[str, typer.Option(help="names as in ir-measures, parted by spaces")]
PrecisionName = Annotated[
    str, typer.Option("--precision", help="auto, bf16, fp16 or fp32 [auto: bf16 where it is fast]")
]
