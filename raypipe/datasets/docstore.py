"""Writing documents: streamed into one Arrow IPC file, which `tables.text_table` reads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset
from raypipe.names import quoted
from raypipe.progress import counting
from raypipe.records import DOCS
from raypipe.tables.fields import SeenIds, is_plain

_SPACE = re.compile(r"\s")


def write_docs(
    dataset: Dataset, sink: str | Path | BinaryIO, batch_rows: int = 4096
) -> dict[str, int]:
    """Stream the documents into an uncompressed Arrow IPC file with schema `records.DOCS`.

    Memory: one batch and the set of ids. Rows keep the data set's order.

    Args:
        sink: local path, or a binary file object, which stays open.

    Returns:
        `docs` written, `empty_docs` without text and `duplicate_docs` whose id came before (the
        first stays, even where it was empty), ids with characters that nobody sees if there are
        any, and the data set's own counts.

    Raises:
        ConfigError: an id is refused, or no document has text.
    """
    counts = Counter({"docs": 0, "empty_docs": 0, "duplicate_docs": 0})
    target = str(sink) if isinstance(sink, str | Path) else sink
    total = dataset.docs_count()
    bar = counting("documents", total) if total else nullcontext(lambda position: None)
    with bar as at, pa.ipc.new_file(target, DOCS) as writer:
        for rows in _batched(_usable(dataset, counts), batch_rows):
            writer.write_batch(pa.record_batch([list(c) for c in zip(*rows, strict=True)], DOCS))
            counts["docs"] += len(rows)
            at(counts["docs"] + counts["empty_docs"] + counts["duplicate_docs"])
    if not counts["docs"]:
        raise ConfigError(
            f"dataset {dataset.name}: no document has text; found {counts}; check its text fields"
        )
    return {**counts, **dataset.counts()}


def _usable(dataset: Dataset, counts: Counter[str]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    check = IdCheck(dataset, "document", counts)
    for doc_id, text in dataset.docs():
        if not is_plain(doc_id):
            check(doc_id)
        if doc_id in seen:
            counts["duplicate_docs"] += 1
            continue
        seen.add(doc_id)
        if text:
            yield doc_id, text
        else:
            counts["empty_docs"] += 1


def _batched(rows: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class IdCheck:
    """Looks at the ids of a data set that are not `fields.is_plain`.

    Args:
        kind: document, query or judgement.
        counts: where ids with characters that nobody sees are counted.
    """

    def __init__(self, dataset: Dataset, kind: str, counts: Counter[str]) -> None:
        self._dataset, self._kind = dataset, kind
        self._seen = SeenIds(counts, strict=True)

    def __call__(self, text: str) -> None:
        """Refuse an id that TREC run and qrels files, whose columns white space parts, cannot hold,
        and what `SeenIds` refuses."""
        if not text or _SPACE.search(text):
            raise ConfigError(
                f"{self._place_of(text)}: expected a {self._kind} id without white space, found "
                f"{quoted(text)}; TREC files cannot hold it, so rename it"
            )
        self._seen.look(text, self._place_of)

    def _place_of(self, text: str) -> str:
        return self._dataset.place_of(self._kind, text)
