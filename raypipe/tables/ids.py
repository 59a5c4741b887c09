"""Ids of documents and queries become row numbers, through one sorted order per file of ids.

The order is made once per node and file of documents or queries, and mapped into the memory of
every process that asks. A process touches 12 bytes per id, and an id itself only where its first
8 bytes behind the common prefix do not decide.

The order lives in `$RAYPIPE_HOME/cache/ids` only, never in the artifact whose ids it sorts: so it
serves artifacts of every version, no digest and no manifest knows of it, and a lost or damaged
order is made again in seconds.
"""

from __future__ import annotations

import uuid
import warnings
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.config import digest
from raypipe.storage.files import close_file, home, locked, make_folder

Array = np.ndarray[Any, Any]
Asked = Sequence[str] | pa.Array | pa.ChunkedArray
Content = Sequence[Array]
"""The bytes of all ids, padded with `KEY` zeros, and the n + 1 offsets that delimit n ids."""

FORMAT = 1
"""Version of the files in the cache; raised when their content changes."""
BLOCK = 1 << 16
"""Ids looked up at once: what a look-up allocates stays below 10 MB."""
KEY = 8
"""Bytes of an id, after the prefix that all ids share, that are compared as one number."""
CHECKSUM = 4
"""Length of the CRC-32 at the end of a file in the cache."""
# _MASK[n] keeps the first n bytes of a big-endian number.
_MASK = np.array([(1 << 64) - (1 << 8 * (KEY - n)) for n in range(KEY + 1)], np.uint64)


class SortedIds:
    """The ids of one file in ascending order, each with its row in the file.

    All ids begin with the same prefix. The 8 bytes behind it are the id's key, a number, and numpy
    searches the array of keys. Only ids that are longer are compared with each other.

    Args:
        order: what `sorted_order` makes, in memory or mapped.
    """

    def __init__(self, order: pa.RecordBatch) -> None:
        self._prefix: str = order.schema.metadata[b"prefix"].decode()
        self._start = len(self._prefix.encode())
        self._keys, self._rows, *self._ids = (
            order.column(name).values.to_numpy() for name in ("keys", "rows", "bytes", "offsets")
        )

    def __len__(self) -> int:
        return len(self._rows)

    def places(self) -> Array:
        """The place of every row's id among all ids in ascending order, int64: breaks ties."""
        places = np.empty(len(self), np.int64)
        places[self._rows] = np.arange(len(self))
        return places

    def row_of(self, asked: str) -> int:
        """The row of one id, -1 where unknown; 20 times faster than `rows_of` a list of one."""
        text = _without_nul(asked)
        if not text.startswith(self._prefix):
            return -1
        whole = text.encode()
        start = whole[self._start : self._start + KEY].ljust(KEY, b"\0")
        key = np.uint64(int.from_bytes(start, "big"))
        first, last = (int(self._keys.searchsorted(key, side)) for side in ("left", "right"))
        first = bisect_left(range(last), whole, first, key=self._id)
        return int(self._rows[first]) if first < last and self._id(first) == whole else -1

    def rows_of(self, asked: Asked) -> Array:
        """The row of each id, int64 of the same length: the first of equal ids, -1 where unknown.

        Args:
            asked: any ids, in any order and number.
        """
        if not isinstance(asked, pa.Array | pa.ChunkedArray):
            asked = pa.array(asked, pa.string())
        rows = np.full(len(asked), -1, np.int64)
        for start in range(0, len(asked) if len(self) else 0, BLOCK):
            block = _one_array(asked[start : start + BLOCK])
            has_prefix = pc.fill_null(pc.starts_with(block, pattern=self._prefix), False)
            places = np.flatnonzero(has_prefix.to_numpy(zero_copy_only=False))
            rows[start + places] = self._rows_of(_content(block.take(pa.array(places))))
        return rows

    def _rows_of(self, asked: Content) -> Array:
        """Rows of ids that have the common prefix, -1 where unknown."""
        keys = _eight_bytes_at(asked, np.arange(len(asked[1]) - 1), self._start)
        by_key = keys.argsort()  # neighbours read the same pages and cache lines
        first = np.empty(len(keys), np.int64)
        first[by_key] = self._keys.searchsorted(keys[by_key])
        known = self._keys[np.minimum(first, len(self) - 1)] == keys
        long = np.flatnonzero(known & _may_be_longer(keys))
        first[long], known[long] = self._search(first[long], keys[long], asked, long)
        rows = np.full(len(keys), -1)
        rows[known] = self._rows[first[known]]
        return rows

    def _search(
        self, low: Array, keys: Array, asked: Content, numbers: Array
    ) -> tuple[Array, Array]:
        """Binary search among ids of equal keys: the first place where each id may stand, and
        whether it does."""
        end = self._keys.searchsorted(keys, "right")
        high = end.copy()
        while len(undecided := np.flatnonzero(low < high)):
            middle = (low[undecided] + high[undecided]) // 2
            below = self._compare(middle, asked, numbers[undecided]) < 0
            low[undecided[below]] = middle[below] + 1
            high[undecided[~below]] = middle[~below]
        equal = low < end
        equal[equal] = self._compare(low[equal], asked, numbers[equal]) == 0
        return low, equal

    def _compare(self, places: Array, asked: Content, numbers: Array) -> Array:
        """-1, 0 or 1: how our ids compare with those asked for, where their keys are equal."""
        signs = np.zeros(len(places), np.int8)
        undecided, at = np.arange(len(places)), self._start + KEY
        while len(undecided):
            ours = _eight_bytes_at(self._ids, places[undecided], at)
            theirs = _eight_bytes_at(asked, numbers[undecided], at)
            signs[undecided] = (ours > theirs).astype(np.int8) - (ours < theirs)
            undecided, at = undecided[(ours == theirs) & _may_be_longer(ours)], at + KEY
        return signs

    def _id(self, place: int) -> bytes:
        content, offsets = self._ids
        return content[offsets[place] : offsets[place + 1]].tobytes()


def open_ids(path: str | Path) -> SortedIds:
    """The sorted ids of an Arrow IPC file, whose first column holds them, in a shared memory map.

    The first process of the node that asks makes the file, the others wait for it. Making it takes
    45 bytes and three times its own length per id; afterwards a process holds only the pages that
    it reads. Where the cache cannot be written each process holds an order of its own.
    """
    stat = Path(path).stat()
    times = [stat.st_mtime_ns, stat.st_ctime_ns]  # a tool may set the first one back
    file = [str(Path(path).absolute()), stat.st_dev, stat.st_ino, stat.st_size]
    target = home() / "cache" / "ids" / f"{digest([FORMAT, *file, *times], 32)}.arrow"
    try:
        if not _is_whole(target):
            make_folder(target.parent)
            with locked(target.with_suffix(".lock")):
                if not _is_whole(target):  # another process may have made it meanwhile
                    _write(sorted_order(_ids_in(path)), target)
    except OSError as error:
        warnings.warn(
            f"{target} cannot be written ({error}), so this process sorts the ids of {path} for "
            "itself; set RAYPIPE_HOME to a directory that can be written",
            stacklevel=2,
        )
        return SortedIds(sorted_order(_ids_in(path)))
    pa.default_memory_pool().release_unused()
    mapped = pa.memory_map(str(target)).read_buffer()
    content = pa.BufferReader(mapped.slice(0, mapped.size - CHECKSUM))
    return SortedIds(pa.ipc.open_file(content).get_batch(0))


def sorted_order(ids: pa.Array | pa.ChunkedArray) -> pa.RecordBatch:
    """The content of the file: one row of lists, all in ascending order of the ids.

    `keys` and `rows` have an entry per id, `offsets` one more, and `bytes` are those of all ids.
    Equal ids keep the order of their rows.
    """
    ids = _one_array(ids)
    order = pc.sort_indices(ids)
    ids = ids.take(order)
    prefix = _shared(ids[0].as_py(), ids[-1].as_py()) if len(ids) else ""
    content = _content(ids)
    blocks = (np.arange(at, min(at + BLOCK, len(ids))) for at in range(0, len(ids), BLOCK))
    start = len(prefix.encode())
    columns = {
        "keys": np.concatenate(
            [np.empty(0, np.uint64), *(_eight_bytes_at(content, b, start) for b in blocks)]
        ),
        "rows": order.cast(pa.uint32()),
        "bytes": content[0],
        "offsets": content[1].astype(np.uint32 if content[1][-1] < 1 << 32 else np.uint64),
    }
    lists = [pa.LargeListArray.from_arrays([0, len(c)], pa.array(c)) for c in columns.values()]
    return pa.record_batch(lists, list(columns)).replace_schema_metadata({"prefix": prefix})


def _shared(first: str, last: str) -> str:
    """What two ids, and so all that sort between them, begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in pairs)


def _ids_in(path: str | Path) -> pa.ChunkedArray:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    return pa.chunked_array([batch.column(0) for batch in batches], pa.string())


def _one_array(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """As one array without NUL, with 64-bit offsets, which hold any number of ids."""
    ids = ids.cast(pa.large_string())
    ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if _bytes_and_offsets(ids)[0].min(initial=KEY) > 1:  # no id has NUL or the escape, byte 1
        return ids
    return pc.replace_substring(pc.replace_substring(ids, "\1", "\1\2"), "\0", "\1\1")


def _without_nul(text: str) -> str:
    """The text with NUL escaped, so that escaped texts sort as the texts do."""
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def _bytes_and_offsets(ids: pa.Array) -> tuple[Array, Array]:
    _, offsets, content = ids.buffers()
    offsets = np.frombuffer(offsets or bytes(8), np.int64)[ids.offset :][: len(ids) + 1]
    return np.frombuffer(content or b"", np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _content(ids: pa.Array) -> Content:
    content, offsets = _bytes_and_offsets(ids)
    return np.append(content, np.zeros(KEY, np.uint8)), offsets


def _eight_bytes_at(ids: Content, places: Array, at: int) -> Array:
    """Bytes `at` to `at` + 8 of the ids at some places as numbers, padded with NUL."""
    content, offsets = ids
    stops = offsets[places + 1].astype(np.int64)
    starts = np.minimum(offsets[places].astype(np.int64) + at, stops)
    from_every_byte = np.ndarray(len(content) - KEY + 1, ">u8", content, strides=(1,))
    return from_every_byte[starts].astype(np.uint64) & _MASK[np.minimum(stops - starts, KEY)]


def _may_be_longer(words: Array) -> Array:
    """Where an id may be longer than these 8 bytes: the last one is no padding."""
    return words & np.uint64(0xFF) != 0


def _write(order: pa.RecordBatch, target: Path) -> None:
    """Write the file under another name, then rename it: readers never find a part of it."""
    staged = target.with_suffix(f".{uuid.uuid4().hex[:8]}")
    try:
        with pa.ipc.new_file(str(staged), order.schema) as writer:
            writer.write_batch(order)
        with staged.open("r+b") as file:
            file.write(_checksum(file, staged.stat().st_size))
        close_file(staged)
        staged.replace(target)
    finally:
        staged.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Whether the file is there with the checksum at its end: 0.1 s per 100 MB."""
    try:
        size = path.stat().st_size - CHECKSUM
        with path.open("rb") as file:
            return size > 0 and _checksum(file, size) == file.read()
    except FileNotFoundError:
        return False


def _checksum(file: Any, size: int) -> bytes:
    """The CRC-32 of the next `size` bytes."""
    checksum, left = 0, size
    while block := file.read(min(left, 1 << 20)):
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    return checksum.to_bytes(CHECKSUM, "big")
