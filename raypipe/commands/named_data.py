"""The data set that a command line names: an id, or files."""

from __future__ import annotations

from pathlib import Path

from raypipe.config import ConfigError
from raypipe.datasets.own_files import files_id
from raypipe.datasets.steps import QuerySet


def query_set(
    dataset: str | None,
    split: str | None,
    corpus: str | None,
    queries: str | None,
    qrels: str | None,
    text: str | None = None,
) -> QuerySet:
    """The data set of a command line: an id, or files.

    Raises:
        ConfigError: both, neither, or a part of one with the other.
    """
    if dataset is not None and (corpus is not None or queries is not None):
        raise ConfigError("--dataset, and --corpus or --queries, too: name one kind of data")
    if dataset is not None and qrels is not None:
        raise ConfigError("--qrels belongs to --corpus; a data set has its own judgements")
    if dataset is not None and text is not None:
        raise ConfigError("--text belongs to --corpus; an id may name it: files:...,text={title}")
    if dataset is None and split is not None:
        raise ConfigError("--split belongs to --dataset")
    if dataset is None and (corpus is None) != (queries is None):
        missing = "--corpus" if corpus is None else "--queries"
        raise ConfigError(f"{missing} FILE is missing: documents and queries go together")
    if dataset is not None:
        return QuerySet(dataset=dataset, split=split)
    if corpus is not None and queries is not None:
        named = {"corpus": corpus, "queries": queries, "qrels": qrels}
        paths = {k: Path(v).expanduser().absolute() for k, v in named.items() if v is not None}
        return QuerySet(dataset=files_id(**paths, text=text))
    raise ConfigError("name the data: either --dataset ID, or --corpus FILE and --queries FILE")
