"""Rows of the tables that people have, each with its place: CSV, TSV, JSON lines, Parquet, Arrow.

A folder is a table in parts: Parquet shards, or what Hugging Face's `save_to_disk` wrote. Text
files may be gzipped and begin with a byte order mark; in CSV, quotes hold commas and line ends.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config import ConfigError, nearest
from raypipe.datasets.lines import numbered, wrong
from raypipe.names import quoted
from raypipe.storage.files import LONGEST_LINE, near_names, open_bytes, read_bounded
from raypipe.tables.json_text import parse_json

LARGEST_ARRAY = 512 << 20
"""Bytes of a JSON file that is one list: it is read whole."""
BATCH = 1024
"""Rows of a binary table that are Python objects at a time."""
_SHARD = re.compile(r"^(.*?)-?\d+-of-\d+")
_KINDS = {
    "csv": "csv", "tsv": "tsv", "json": "json", "jsonl": "json", "ndjson": "json",
    "parquet": "parquet", "arrow": "arrow", "feather": "arrow",
}  # fmt: skip
"""By the ending of a name; any other file is told by its beginning."""


class OwnRow(NamedTuple):
    """One row of a table."""

    path: Path
    number: int
    """Of its first line, or, in a binary table, of the row, from 1."""
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """FILE:LINE, as errors begin."""
        return f"{self.path}:{self.number}"

    def wrong(self, expected: str, found: Any = None, remedy: str = "correct it") -> ConfigError:
        """The error of this row."""
        shown = dict(self.values) if found is None else found
        return ConfigError(wrong(self.path, self.number, expected, shown, remedy))


class Header(NamedTuple):
    """How the first line of a text table is understood."""

    is_header: Callable[[Sequence[str]], bool]
    """Whether it names the columns."""
    names_of: Callable[[int], Sequence[str] | None]
    """The columns' names, given their number, where the first line is a row; None refuses it."""
    expected: str
    """What is said of a table that is refused."""
    needed: Sequence[str] = ()
    """Columns that a header must have."""


def kind_of(path: Path) -> str:
    """csv, tsv, json, parquet or arrow: by the name's ending, else by the first bytes."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending in _KINDS:
        return _KINDS[ending]
    with open_bytes(path) as stream:
        head = stream.read(64)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    plain = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if plain.startswith((b"{", b"[")) else "tsv"


def table_files(path: Path, what: str = "table") -> list[Path]:
    """The files of a table in order: the file itself, or the parts in a folder or behind a `*`.

    Raises:
        ConfigError: there is none, or a folder holds several splits.
    """
    if path.is_file():
        return [path]
    if "*" in path.name and path.parent.is_dir():
        if found := sorted(p for p in path.parent.glob(path.name) if p.is_file()):
            return found
        raise ConfigError(f"{what} {path}: no file there has such a name; correct the pattern")
    if not path.is_dir():
        raise ConfigError(f"{what} {path}: no file there{near_names(path, '*')}")
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.name for p in path.iterdir() if p.is_dir())
        raise ConfigError(
            f"{what} {path}: expected one split, found a folder of {', '.join(splits)}; name one "
            f"of these, as in {path / splits[0] if splits else path}"
        )
    if (state := path / "state.json").is_file():
        return [path / part["filename"] for part in parse_json(state.read_bytes())["_data_files"]]
    parts = sorted(
        p
        for p in path.rglob("*")
        if p.is_file() and p.name.removesuffix(".gz").rpartition(".")[2].lower() in _KINDS
        and not any(part.startswith((".", "_")) for part in p.relative_to(path).parts)
    )  # fmt: skip
    return _one_split(path, parts, what)


def _one_split(folder: Path, parts: list[Path], what: str) -> list[Path]:
    if not parts:
        raise ConfigError(
            f"{what} {folder}: expected .parquet, .arrow, .jsonl, .csv or .tsv files in the "
            "folder, found none; name a file"
        )
    if len(kinds := sorted({kind_of(part) for part in parts})) > 1:
        raise ConfigError(
            f"{what} {folder}: expected files of one kind, found {' and '.join(kinds)}; name a "
            "file, or some with *"
        )
    names = [_SHARD.match(part.name) for part in parts]
    splits = sorted({match[1] for match in names if match})
    if len(splits) > 1:
        raise ConfigError(
            f"{what} {folder}: expected the parts of one split, found those of "
            f"{', '.join(splits)}; name some, as in {folder}/{splits[0]}-*"
        )
    return parts


def own_rows(
    path: Path, header: Header, keep: Callable[[Sequence[str]], Sequence[str]] = list
) -> Iterator[OwnRow]:
    """The rows of one file.

    Args:
        keep: given the columns' names of a binary table, those that are read.

    Raises:
        ConfigError: a row is malformed (with its line), or the file is damaged.
    """
    kind = kind_of(path)
    if kind in ("csv", "tsv"):
        yield from _text_rows(path, kind, header)
    elif kind == "json":
        yield from _json_rows(path)
    else:
        yield from _binary_rows(path, kind, keep)


def _text_rows(path: Path, kind: str, header: Header) -> Iterator[OwnRow]:
    names: Sequence[str] = ()
    fields_of = csv_lines(path) if kind == "csv" else tab_lines(path)
    for at, (number, fields) in enumerate(fields_of):
        if at == 0 and header.is_header(fields):
            names = fields
            if twice := {name for name in names if names.count(name) > 1}:
                raise ConfigError(wrong(path, number, "each column once", min(twice)))
            for name in header.needed:
                if name not in names:
                    raise no_column(OwnRow(path, number, dict.fromkeys(names)), name)
            continue
        of_row = names or header.names_of(len(fields))
        if of_row is None or len(fields) != len(of_row):
            expected = f"{len(names)} columns ({', '.join(names)})" if names else header.expected
            raise ConfigError(wrong(path, number, expected, "\t".join(fields)))
        yield OwnRow(path, number, dict(zip(of_row, fields, strict=True)))


def tab_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a file of tab-separated columns; quotes are plain text."""
    for number, line in numbered(path):
        yield number, [field.strip() for field in line.rstrip("\r\n").split("\t")]


def csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, fields) of every row; `;` or tabs part columns where the first
    line has no comma."""
    at, first = 0, next((line for _, line in numbered(path)), "")
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    csv.field_size_limit(LONGEST_LINE)

    def lines() -> Iterator[str]:
        nonlocal at
        for number, line in numbered(path, blank=True):
            at = number
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    while True:
        begins = at + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            expected = "CSV, in which quotes come in pairs"
            raise ConfigError(wrong(path, begins, expected, str(error))) from None
        if any(field.strip() for field in fields):
            yield begins, [field.strip() for field in fields]


def _json_rows(path: Path) -> Iterator[OwnRow]:
    for number, value in json_values(path):
        if not isinstance(value, dict):
            raise ConfigError(wrong(path, number, "a JSON object", value))
        yield OwnRow(path, number, value)


def json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number, value) of JSON lines; of a file that is one list of objects, (place, object).

    Raises:
        ConfigError: a line is not JSON.
    """
    if _is_array(path):
        remedy = "write one object per line"
        try:
            yield from enumerate(parse_json(read_bounded(path, "a list", LARGEST_ARRAY, remedy)), 1)
        except ValueError as error:
            raise ConfigError(f"{path}: expected JSON, found {error}; correct it") from None
        return
    for number, line in numbered(path):
        try:
            value = parse_json(line)
        except ValueError as error:
            remedy = f"correct it ({error})"
            text = "one JSON object per line"
            raise ConfigError(wrong(path, number, text, line, remedy)) from None
        yield number, value


def _is_array(path: Path) -> bool:
    """Whether a JSON file is one list of objects; a line of ids may be a list too."""
    with open_bytes(path) as stream:
        head = stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf")
    return re.match(rb"\s*\[\s*(\{|\])", head) is not None


def _binary_rows(
    path: Path, kind: str, keep: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[OwnRow]:
    number = 0
    try:
        for batch in _parquet(path, keep) if kind == "parquet" else _arrow(path, keep):
            for values in batch.to_pylist():
                number += 1
                yield OwnRow(path, number, values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ConfigError(
            f"{path}: expected a table in {kind} format, found one that is damaged after row "
            f"{number} ({quoted(error, 100)}); copy the file again"
        ) from None


def _parquet(
    path: Path, keep: Callable[[Sequence[str]], Sequence[str]]
) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(BATCH, columns=list(keep(file.schema_arrow.names)))


def _arrow(path: Path, keep: Callable[[Sequence[str]], Sequence[str]]) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            file = pa.ipc.open_file(source)
            batches = (file.get_batch(at) for at in range(file.num_record_batches))
        else:
            source.seek(0)
            batches = pa.ipc.open_stream(source)
        for batch in batches:
            kept = batch.select(list(keep(batch.schema.names)))
            for start in range(0, len(kept), BATCH):
                yield kept.slice(start, BATCH)


def no_column(row: OwnRow, name: str) -> ConfigError:
    """The error of a row without a column that the user named."""
    return ConfigError(f"{row.place}: there is no column {name!r}{nearest(name, row.values)}")
