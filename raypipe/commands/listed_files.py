"""Which queries and documents a first stage's, a teacher's or triples' files name at their start.

Files of these kinds may have a billion lines: the first `MOST` bytes tell in seconds whether their
ids are those of the data set.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from raypipe.candidates.rankgpt import read_lists
from raypipe.candidates.scored_docs import check_score
from raypipe.config import ConfigError
from raypipe.datasets.dataset import Dataset
from raypipe.datasets.training_reader import form_of, read_groups
from raypipe.groups.triples import SCORES, TRIPLES
from raypipe.tables.text_columns import BLOCK, Columns, blocks, count_columns, read_blocks
from raypipe.tables.trec_run import read_lines
from raypipe.teachers.published.pair_scores import DUO, check_logs
from raypipe.teachers.published.scores import ENSEMBLE, MONO, PLAIN

MOST = 32 << 20
"""Bytes that are read of a file, of about a million lines."""
LISTS = 20_000
"""Lists that are read of a file of JSON lines."""

Wanted = Container[str]
"""Ids of queries of which a malformed number or one that is none counts."""


class Ids(NamedTuple):
    """What some lines of a file have."""

    query_ids: Iterable[str]
    doc_ids: Iterable[str]
    lines: int
    values: int = 0
    """A teacher's values of wanted queries."""
    not_finite: int = 0
    """Of these NaN and infinity."""


@dataclass
class ListedIds:
    """What files name."""

    query_ids: set[str] = field(default_factory=set)
    doc_ids: set[str] = field(default_factory=set)
    lines: int = 0
    values: int = 0
    not_finite: int = 0
    complete: bool = True
    """Whether the files were read to their end."""

    def add(self, part: Ids) -> None:
        """Count some lines more."""
        self.query_ids.update(part.query_ids)
        self.doc_ids.update(part.doc_ids)
        self.lines += part.lines
        self.values += part.values
        self.not_finite += part.not_finite


def listed_ids(choice: Any, wanted: Wanted) -> ListedIds | None:
    """The ids in the files of a first stage, a teacher or triples; None where there are none.

    Raises:
        ConfigError: a line of what was read is malformed.
    """
    if choice.type not in _READERS or not _paths(choice):
        return None
    if choice.type in ("triples", "training_file") and _has_texts(_paths(choice)):
        return None  # found by their texts, when the collection is there
    listed = ListedIds()
    for path in _paths(choice):
        parts = _READERS[choice.type](Path(path).expanduser(), wanted)
        for part in islice(parts, MOST // BLOCK):
            listed.add(part)
        listed.complete &= next(parts, None) is None
    return listed


def shipped_ids(dataset: Dataset, wanted: Wanted) -> ListedIds | None:
    """The ids in the beginning of the lists that a data set ships; None where they would have to be
    fetched.

    Raises:
        ConfigError: it ships none, or a score of a wanted query is NaN or infinite.
    """
    if (rows := dataset.first_scoreddocs(LISTS)) is None:
        return None
    for query_id, doc_id, score in rows:
        if query_id in wanted:
            check_score(dataset, query_id, doc_id, score)
    listed = ListedIds(complete=len(rows) < LISTS)
    listed.add(Ids({q for q, *_ in rows}, {d for _, d, _ in rows}, len(rows)))
    return listed


def _paths(choice: Any) -> Sequence[str]:
    if choice.type == "rankgpt":
        return [choice.lists]
    if choice.type == "triples":
        return [] if choice.path is None else [choice.path]
    return [choice.path] if choice.type == "rankgpt_lists" else choice.paths


def _run(path: Path, wanted: Wanted) -> Iterator[Ids]:
    """All queries' ids, and the documents of the wanted ones."""
    seen: dict[str, int] = {}

    def number(query_id: str) -> int:
        row = seen.setdefault(query_id, len(seen))
        return row if query_id in wanted else -1

    try:
        before, counts = 0, Counter[str]()
        for lines in read_lines(path, number, counts):
            docs = lines["doc_id"].unique().to_pylist()
            yield Ids(list(seen), docs, counts["lines"] - before, lines.num_rows)
            before, seen = counts["lines"], {}
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _triples(path: Path, wanted: Wanted) -> Iterator[Ids]:
    if form_of(path) is not None:
        return _training(path, wanted)
    with_scores = (*SCORES, *TRIPLES.names)
    return _spaced(
        path, lambda first: with_scores if first == 5 else tuple(TRIPLES.names), TRIPLES.names[1:]
    )


def _has_texts(paths: Sequence[str]) -> bool:
    """Whether training files have texts; the first lines of each are read.

    Raises:
        ConfigError: one of these is malformed.
    """
    forms = [form_of(path) for path in paths]
    for path, form in zip(paths, forms, strict=True):
        if form is not None and form.has_texts:
            deque(islice(read_groups(path), LISTS // 10), 0)
    return any(form is not None and form.has_texts for form in forms)


def _training(path: Path, wanted: Wanted) -> Iterator[Ids]:
    """Of a training file's ids; a line counts once per positive."""
    lines, share = read_groups(path), LISTS * BLOCK // MOST
    while part := list(islice(lines, share)):
        docs = {str(entry.text_id) for group in part for entry in group.docs}
        scores = [s for g in part if str(g.query.text_id) in wanted for s in g.scores or ()]
        yield Ids(
            {str(group.query.text_id) for group in part},
            docs,
            sum(group.positives for group in part),
            len(scores),
            int((~np.isfinite(scores)).sum()) if scores else 0,
        )


def _spaced(
    path: Path, columns_of: Callable[[int], Sequence[str]], docs: Sequence[str]
) -> Iterator[Ids]:
    """Of columns parted by any white space.

    Args:
        columns_of: given the number of fields in the first line, the columns' names.
        docs: the columns of document ids.
    """
    columns: Sequence[str] = ()
    try:
        for block in read_blocks(path):
            columns = columns or columns_of(len(block.data.split(b"\n", 1)[0].split()))
            table = block.table(columns, dict.fromkeys(["query_id", *docs], pa.string()))
            if table is None:
                rows = [row for _, row, _ in block.rows(columns)]
                by_name = dict(zip(columns, zip(*rows, strict=True), strict=False))
                names = ["query_id", *docs]
                table = pa.table({n: [f.decode() for f in by_name.get(n, ())] for n in names})
            yield Ids(_distinct(table, ["query_id"]), _distinct(table, docs), table.num_rows)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _pairs(path: Path, columns: Columns, wanted: Wanted) -> Iterator[Ids]:
    for block in blocks(path, columns):
        mine = np.fromiter((q in wanted for q in block["query_id"].to_pylist()), bool, len(block))
        numbers = np.stack([block[name].to_numpy()[mine] for name in columns.numbers])
        if columns is DUO:
            check_logs(path, numbers[0])
        finite = np.isfinite(numbers)
        if columns is MONO:  # two logits are one value
            finite = finite.all(0)
        ids = _distinct(block, ["query_id"]), _distinct(block, columns.docs)
        yield Ids(*ids, block.num_rows, finite.size, int((~finite).sum()))


def _mono(path: Path, wanted: Wanted) -> Iterator[Ids]:
    return _pairs(path, PLAIN if count_columns(path) == len(PLAIN.names) else MONO, wanted)


def _rankgpt(path: Path, wanted: Wanted) -> Iterator[Ids]:
    lists, share = read_lists(path), LISTS * BLOCK // MOST
    while part := list(islice(lists, share)):
        doc_ids = [doc_id for *_, listed in part for doc_id in listed]
        yield Ids([query_id for _, query_id, _ in part], doc_ids, len(part))


def _distinct(table: pa.Table | pa.RecordBatch, names: Sequence[str]) -> list[str]:
    return [text for name in names for text in table[name].unique().to_pylist()]


_READERS: Mapping[str, Any] = {
    "trec_run": _run,
    "run_file": _run,
    "mono_scores": _mono,
    "duo_scores": lambda path, wanted: _pairs(path, DUO, wanted),
    "ensemble_scores": lambda path, wanted: _pairs(path, ENSEMBLE, wanted),
    "rankgpt": _rankgpt,
    "rankgpt_lists": _rankgpt,
    "triples": _triples,
    "training_file": _training,
}
"""By `type` of a source, a teacher or triples."""
