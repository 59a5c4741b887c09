"""Tab-separated files, plain or gzipped, in blocks of typed columns; errors name the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from raypipe.config import ConfigError
from raypipe.files import damaged, open_bytes, packed
from raypipe.progress import counting

BLOCK_BYTES = 16 << 20
"""Of text, parsed at once."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file, in order; those of `numbers` are float64, the others ids."""

    names: tuple[str, ...]
    docs: tuple[str, ...]
    numbers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.names)} columns parted by tabs ({' '.join(self.names)})"


def count_columns(path: Path) -> int:
    """Columns of the first line that is not empty; 0 if there is none."""
    lines = (line for _, line in _lines(path) if line.strip())
    return next((line.count(b"\t") + 1 for line in lines), 0)


def blocks(path: Path, columns: Columns) -> Iterator[pa.RecordBatch]:
    """All rows, `BLOCK_BYTES` of text at a time; empty lines are skipped, quotes are plain text.

    Numbers may be nan, inf or -inf.

    Raises:
        ConfigError: a line has other columns, text where a number belongs or bytes that are not
            UTF-8; the gzip file is damaged; the file is empty.
    """
    types = {n: pa.float64() if n in columns.numbers else pa.string() for n in columns.names}
    zipped = packed(path)
    try:
        with (
            pa.OSFile(str(path)) as raw,
            counting(path.name, raw.size()) as at,
            pa.CompressedInputStream(raw, "gzip") if zipped else nullcontext(raw) as stream,
        ):
            for batch in pacsv.open_csv(
                stream,
                pacsv.ReadOptions(column_names=columns.names, block_size=BLOCK_BYTES),
                pacsv.ParseOptions(delimiter="\t", quote_char=False),
                pacsv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
            ):
                at(raw.tell())
                yield batch
    except pa.ArrowInvalid as error:
        raise _explain(path, columns, error) from None
    except OSError as error:
        raise (damaged(path, error) if zipped else error) from None


def find_line(path: Path, columns: Columns, wrong: Callable[[list[float]], bool]) -> int:
    """Number of the first line whose numbers are wrong, for an error message; 0 if there is none.

    Every line of the file must have been read by `blocks` without an error.
    """
    places = [columns.names.index(name) for name in columns.numbers]
    for number, line in _lines(path):
        fields = line.split(b"\t")
        if line and wrong([float(fields[place]) for place in places]):
            return number
    return 0


def _explain(path: Path, columns: Columns, error: Exception) -> ConfigError:
    """Read again, line by line, to say where it went wrong: the fast reader does not know."""
    number = 0
    for number, line in _lines(path):
        if found := _problem(line, columns):
            head = "; if it is a header, delete it" if number == 1 else ""
            shown = line[:80].decode(errors="replace")
            return ConfigError(f"{path}, line {number}: {found}: {shown!r}{head}")
    if not number:
        return ConfigError(f"{path}: expected {columns}, found an empty file")
    return ConfigError(f"{path}: expected {columns}; {error}")


def _problem(line: bytes, columns: Columns) -> str:
    """What is wrong with a line, or nothing."""
    try:
        fields = line.decode().split("\t")
    except UnicodeDecodeError as error:
        return (
            f"expected UTF-8, found {error.reason} at byte {error.start}; convert the file, "
            "for example with iconv"
        )
    if fields == [""]:
        return ""
    if len(fields) != len(columns.names):
        return f"expected {columns}, found {len(fields)}"
    for name, text in zip(columns.names, fields, strict=True):
        if name in columns.numbers and not _is_number(text):
            return f"expected a number as {name}, found {text!r}"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # 1_000 is a number to Python alone


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end and without a byte order mark)."""
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            yield number, text.rstrip(b"\r\n")
