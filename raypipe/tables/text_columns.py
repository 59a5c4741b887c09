"""Text files of columns, plain or gzipped, read in blocks: any size, bounded memory.

Blocks are read by pyarrow's CSV reader, at millions of lines a second. Where that reader refuses a
block, or its caller doubts a value, the lines are read one by one: correct lines are accepted, and
the error of a wrong line names its number. `read_blocks` reads columns parted by any white space
(TREC runs, triples), `blocks` reads columns parted by tabs (published teachers' scores).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from raypipe.config import ConfigError
from raypipe.names import quoted
from raypipe.progress import counting
from raypipe.storage.files import damaged, numbered_lines, open_bytes, packed
from raypipe.tables.fields import SeenIds, real

BLOCK = 8 << 20
"""Bytes of text read at a time; also the longest line."""

_BOM = b"\xef\xbb\xbf"
_ODD_SPACE = b"\t\r\v\f"
_TO_SPACE = bytes.maketrans(_ODD_SPACE, b" " * len(_ODD_SPACE))
_HEX = re.compile(rb"[ \n]-?0[xX]")
_WORDS = {3: "three", 5: "five", 6: "six"}


# --- columns parted by white space ---------------------------------------------------------------


@dataclass(frozen=True)
class TextBlock:
    """Whole lines of a file, whose columns are parted by what `bytes.split` takes for white space.

    `table` is the fast way to read them, `rows` the careful one.
    """

    path: str
    first: int
    """Number of the first line, from 1."""
    data: bytes

    def table(self, columns: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table | None:
        """The columns named in `types`, of every line that is not blank.

        Returns:
            None where a line has another number of columns, is not UTF-8, or has a value that the
            CSV reader cannot convert: then `rows` says what is wrong, if anything is.
        """
        data = self.data
        if data.startswith(_BOM) or not _is_utf8(data):
            return None
        data = _single_spaced(data)
        hexadecimal = (b"x" in data or b"X" in data) and _HEX.search(data)
        if hexadecimal and any(pa.types.is_integer(t) for t in types.values()):
            return None  # 0x1F is an integer to the CSV reader
        try:
            return csv.read_csv(
                pa.BufferReader(data),
                csv.ReadOptions(
                    column_names=list(columns), use_threads=False, block_size=len(data) + 1
                ),
                csv.ParseOptions(delimiter=" ", quote_char=False, double_quote=False),
                csv.ConvertOptions(
                    column_types=dict(types),
                    include_columns=list(types),
                    null_values=[],
                    check_utf8=False,
                ),
            )
        except pa.ArrowInvalid:
            return None

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[bytes], bytes]]:
        """(line number, fields, line) of every line that is not blank; the fields are UTF-8.

        Raises:
            ValueError: text that is not UTF-8, or another number of columns.
        """
        for number, line in enumerate(self.data.split(b"\n"), start=self.first):
            if not line.isascii():
                self._check_utf8(line, number)
            fields = line.split()
            if fields and len(fields) != len(columns):
                expected = f"{_WORDS.get(len(columns), len(columns))} columns"
                expected = f"{expected} ({' '.join(columns)})"
                raise self.wrong(number, expected, str(len(fields)), line)
            if fields:
                yield number, fields, line

    def wrong(self, number: int, expected: str, found: str, line: bytes) -> ValueError:
        """The error of a malformed line."""
        text = quoted(line.decode().strip(), 100)
        return ValueError(
            f"{self.path}, line {number}: expected {expected}, found {found}: {text}; correct it"
        )

    def place_of(self, text: str) -> str:
        """The file and the line that names an id first."""
        before = self.data.count(b"\n", 0, self.data.find(text.encode()))
        return f"{self.path}, line {self.first + before}"

    def _check_utf8(self, line: bytes, number: int) -> None:
        try:
            line.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}, line {number}: {_not_utf8(error)}") from None


def _not_utf8(error: UnicodeDecodeError) -> str:
    return (
        f"expected UTF-8, found {error.reason} at byte {error.start}; convert the file, "
        "for example with iconv"
    )


def read_blocks(path: str | Path) -> Iterator[TextBlock]:
    """The file's lines in blocks of about `BLOCK` bytes, without a byte order mark.

    Raises:
        ValueError: a damaged gzip file, or a line longer than a block.
    """
    first, rest, size = 1, b"", BLOCK
    with open_bytes(path) as stream:
        if (head := stream.read(size)).startswith(_BOM):
            head = head[len(_BOM) :]
        while head:
            cut = head.rfind(b"\n") + 1
            if cut:
                block = TextBlock(str(path), first, rest + head[:cut])
                yield block
                first, rest = first + block.data.count(b"\n"), head[cut:]
            elif len(rest) < BLOCK:
                rest += head
            else:
                raise ValueError(
                    f"{path}, line {first}: expected a text file, found no line end in "
                    f"{len(rest)} bytes; check the path"
                )
            head = stream.read(size)
        if rest:
            yield TextBlock(str(path), first, rest)


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _single_spaced(data: bytes) -> bytes:
    """One space between fields, none at the ends of lines."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if any(data.find(odd) >= 0 for odd in _ODD_SPACE):
        data = data.translate(_TO_SPACE)
    space = np.frombuffer(data, np.uint8) <= 32
    if (space[1:] & space[:-1]).any() or space[:1].any() or data.endswith(b" "):
        data = re.sub(rb" {2,}", b" ", data)
        data = data.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")
    return data


# --- columns parted by tabs ----------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """The columns of a file parted by tabs."""

    names: tuple[str, ...]
    """All of them, in order."""
    docs: tuple[str, ...]
    """Those with document ids."""
    numbers: tuple[str, ...]
    """Those with float64 numbers; the others are strings."""

    def __str__(self) -> str:
        return f"{len(self.names)} columns parted by tabs ({' '.join(self.names)})"


def count_columns(path: Path) -> int:
    """The number of columns of the first line that is not empty; 0 without such a line."""
    lines = (line for _, line in _lines(path) if line.strip())
    return next((line.count(b"\t") + 1 for line in lines), 0)


def blocks(
    path: Path, columns: Columns, counts: Counter[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """All rows, `BLOCK` bytes of text at a time; empty lines are skipped, quotes are plain text.

    Numbers may be nan, inf or -inf.

    Args:
        counts: where ids with characters that nobody sees are counted.

    Raises:
        ConfigError: a line has other columns, text where a number belongs, an id that is refused or
            bytes that are not UTF-8; the gzip file is damaged; the file is empty.
    """
    ids = [name for name in columns.names if name not in columns.numbers]
    seen = SeenIds(Counter() if counts is None else counts)
    types = {n: pa.float64() if n in columns.numbers else pa.string() for n in columns.names}
    zipped = packed(path)
    try:
        with (
            pa.OSFile(str(path)) as raw,
            counting(path.name, raw.size()) as at,
            pa.CompressedInputStream(raw, "gzip") if zipped else nullcontext(raw) as stream,
        ):
            for batch in csv.open_csv(
                stream,
                csv.ReadOptions(column_names=columns.names, block_size=BLOCK),
                csv.ParseOptions(delimiter="\t", quote_char=False),
                csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
            ):
                at(raw.tell())
                for name in ids:
                    seen.look_at(batch[name], lambda text: _place_of(path, text))
                yield batch
    except pa.ArrowInvalid as error:
        raise _explain(path, columns, error) from None
    except OSError as error:
        raise (damaged(path, error) if zipped else error) from None


def find_line(path: Path, columns: Columns, wrong: Callable[[list[float]], bool]) -> int:
    """Number of the first line whose numbers are wrong, for an error message; 0 if there is none.

    Call it on a file that `blocks` has read without an error.
    """
    positions = [columns.names.index(name) for name in columns.numbers]
    for number, line in _lines(path):
        fields = line.split(b"\t")
        if line and wrong([float(fields[i]) for i in positions]):
            return number
    return 0


def _place_of(path: Path, text: str) -> str:
    """The file and the line that names an id first."""
    numbers = (number for number, line in _lines(path) if text.encode() in line)
    return f"{path}, line {next(numbers, 0)}"


def _explain(path: Path, columns: Columns, error: Exception) -> ConfigError:
    """The error of the first wrong line, found by reading line by line: pyarrow's names none."""
    number = 0
    for number, line in _lines(path):
        if problem := _problem(line, columns):
            remedy = "if it is a header, delete it" if number == 1 else "correct it"
            shown = quoted(line[:100].decode(errors="replace"), 80)
            return ConfigError(f"{path}, line {number}: {problem}: {shown}; {remedy}")
    if not number:
        return ConfigError(f"{path}: expected {columns}, found an empty file; name another one")
    return ConfigError(
        f"{path}: expected {columns}, found what pyarrow cannot read ({error}); write it anew"
    )


def _problem(line: bytes, columns: Columns) -> str:
    """What is wrong with a line; empty if nothing is."""
    if len(line) > BLOCK:
        return f"expected at most {BLOCK:,} bytes, found {len(line):,}"
    try:
        fields = line.decode().split("\t")
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    if fields == [""]:
        return ""
    if len(fields) != len(columns.names):
        return f"expected {columns}, found {len(fields)}"
    for name, text in zip(columns.names, fields, strict=True):
        try:
            _ = real(text) if name in columns.numbers else None
        except ValueError:
            return f"expected a number as {name}, found {quoted(text)}"
    return ""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end and without a byte order mark)."""
    with open_bytes(path) as stream:
        for number, line in numbered_lines(path, stream):
            text = line.removeprefix(_BOM) if number == 1 else line
            yield number, text.rstrip(b"\r\n")
