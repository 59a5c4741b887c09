"""Tells the form of a training file by its first line, and reads its groups.

JSON lines, Parquet, Arrow (a folder of either), CSV and TSV with a header hold the forms of
`training_forms`; lines of three texts parted by tabs are query, positive and negative, as MS
MARCO's triples.train.small.tsv.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from raypipe.config import ConfigError
from raypipe.datasets.own_rows import (
    Header,
    OwnRow,
    json_values,
    kind_of,
    own_rows,
    tab_lines,
    table_files,
)
from raypipe.datasets.training_forms import ANCHORS, READ, SHAPES, FileEntry, FileGroup, looks_like
from raypipe.names import quoted
from raypipe.storage.files import signature


class TrainingForm(NamedTuple):
    """How the lines of a file are understood."""

    name: str
    has_texts: bool
    is_triples: bool
    """Whether a line is one query, one positive and one negative."""
    has_scores: bool


def form_of(path: str | Path) -> TrainingForm | None:
    """The form of a file, by its first line; None of lines of ids parted by white space, and of
    what is no file.

    Raises:
        ConfigError: it is no form that is read; says what it looks like.
    """
    place = Path(path).expanduser()
    if not place.exists():
        return None
    return _form(place, signature(place))


@lru_cache(maxsize=64)
def _form(path: Path, signed: Any) -> TrainingForm | None:
    first = table_files(path, "training file")[0]
    if kind_of(first) == "tsv" and not _names_columns(first):
        line = next((fields for _, fields in tab_lines(first)), [])
        if len(line) != 3 or not all(" " in field for field in line[1:]):
            return None
        return TrainingForm("text triples", True, True, False)
    groups = list(islice(read_groups(path), 1))
    if not groups:
        raise ConfigError(f"training file {path}: expected groups, found an empty file")
    group = groups[0]
    texts = all(entry.text is not None for entry in (group.query, *group.docs))
    triples = group.positives == 1 and len(group.docs) == 2 and group.scores is None
    return TrainingForm(_shape(path)[0], texts, triples, group.scores is not None)


def _shape(path: Path) -> tuple[str, Any]:
    """(name of the form, its reader) of a file with named columns or JSON."""
    first = next(_records(table_files(path)[0]), None)
    if first is None:
        raise ConfigError(f"training file {path}: expected groups, found an empty file")
    place, value = first
    for name, fits, read in SHAPES:
        if fits(value):
            return name, read
    looks = looks_like(value)
    raise ConfigError(f"training file {place}: found {looks}; what is read: {READ}")


def read_groups(path: str | Path) -> Iterator[FileGroup]:
    """The groups of a file, or of a folder of parts, in order; see the module.

    Raises:
        ConfigError: a line is not of the form of the first; its number, and what was expected.
    """
    place = Path(path).expanduser()
    files = table_files(place, "training file")
    if kind_of(files[0]) == "tsv" and not _names_columns(files[0]):
        for file in files:
            yield from _text_triples(file)
        return
    name, read = _shape(place)
    for file in files:
        for where, value in _records(file):
            try:
                yield read(where, value)
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(
                    f"{where}: expected {name} as in the first line, found {quoted(value, 80)}: "
                    f"{error}; correct it"
                ) from None


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    if kind_of(path) == "json":
        for number, value in json_values(path):
            yield f"{path}:{number}", value
        return
    header = Header(lambda fields: True, lambda number: None, "a first line of column names")
    for row in own_rows(path, header):
        yield row.place, row.values


def _names_columns(path: Path) -> bool:
    """Whether the first line of tab-separated columns names a query and a positive."""
    line = next((fields for _, fields in tab_lines(path)), [])
    names = {field.casefold() for field in line}
    return bool(names & {*ANCHORS}) and bool(names & {"positive", "pos"})


def _text_triples(path: Path) -> Iterator[FileGroup]:
    for number, fields in tab_lines(path):
        if len(fields) != 3 or not all(fields):
            row = OwnRow(path, number, {})
            raise row.wrong("query, positive and negative parted by tabs", "\t".join(fields))
        query, *docs = (FileEntry(None, field) for field in fields)
        yield FileGroup(f"{path}:{number}", query, docs, 1)
