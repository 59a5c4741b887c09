"""Part files: the name of each, and their order.

A number below 100,000 has five digits in its name, a larger one as many as it needs. So names are
ordered by the numbers in them, not as strings: part-100000 stands behind part-99999.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

MAPPED = 10_000
"""Files of one folder that are memory-mapped; further ones are read into memory. Linux lets a
process have 65,530 maps (vm.max_map_count), and a training worker reads three folders."""
_NUMBER = re.compile("([0-9]+)")


def part_name(number: int, suffix: str = "parquet") -> str:
    """The name of a part, which every writer gives it; parts count from 0."""
    return f"part-{number:05d}.{suffix}"


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted as people count: a number in a name is compared as a number."""
    return sorted(names, key=_by_numbers)


def part_paths(folder: Path, suffix: str) -> list[Path]:
    """The part files of a folder that end in `.suffix`, in order."""
    return sorted(folder.glob(f"part-*.{suffix}"), key=lambda path: _by_numbers(path.name))


def arrow_parts(folder: Path) -> Iterator[pa.ipc.RecordBatchFileReader]:
    """A reader of each part-*.arrow of a folder, in order; the first `MAPPED` share their memory
    with other processes."""
    for number, path in enumerate(part_paths(folder, "arrow")):
        mapped = number < MAPPED
        yield pa.ipc.open_file(pa.memory_map(str(path)) if mapped else path.read_bytes())


def _by_numbers(name: str) -> list[str | int]:
    """The name cut into text, number, text and so on, which compares with other names' cuts."""
    return [int(cut) if place % 2 else cut for place, cut in enumerate(_NUMBER.split(name))]
