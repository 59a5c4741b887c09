"""The data set that a command line names: an id, or files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from raypipe.config import ConfigError
from raypipe.datasets.own_files import one_line
from raypipe.datasets.steps import QuerySet


def query_set(
    dataset: str | None,
    split: str | None,
    corpus: str | None,
    queries: str | None,
    qrels: str | None,
    text: str | None = None,
    parts: Sequence[str] = (),
) -> QuerySet:
    """The data set of a command line: an id, or files.

    Args:
        parts: further ones of the files, as NAME=VALUE: columns, or a log of clicks.

    Raises:
        ConfigError: both, neither, or a part of one with the other.
    """
    if parts and corpus is None:
        raise ConfigError("--part belongs to --corpus; an id may name it: files:...,query_id=nr")
    if dataset is not None and (corpus is not None or queries is not None):
        raise ConfigError("--dataset, and --corpus or --queries, too: name one kind of data")
    if dataset is not None and qrels is not None:
        raise ConfigError("--qrels belongs to --corpus; a data set has its own judgements")
    if dataset is not None and text is not None:
        raise ConfigError("--text belongs to --corpus; an id may name it: files:...,text={title}")
    if dataset is None and split is not None:
        raise ConfigError("--split belongs to --dataset")
    further = dict(part.partition("=")[::2] for part in parts)
    if corpus is not None and queries is None and "clicks" in further:
        queries = ""  # the log has them
    if dataset is None and (corpus is None) != (queries is None):
        missing = "--corpus" if corpus is None else "--queries"
        raise ConfigError(f"{missing} FILE is missing: documents and queries go together")
    if dataset is not None:
        return QuerySet(dataset=dataset, split=split)
    if corpus is not None and queries is not None:
        named = {"corpus": corpus, "queries": queries, "qrels": qrels}
        paths = {k: str(Path(v).expanduser().absolute()) for k, v in named.items() if v}
        if "clicks" in further:
            further["clicks"] = str(Path(further["clicks"]).expanduser().absolute())
        return QuerySet(dataset=one_line({**paths, "text": text, **further}))
    raise ConfigError("name the data: either --dataset ID, or --corpus FILE and --queries FILE")
