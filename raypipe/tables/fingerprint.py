"""A hash of a table's values, equal before it is written to a file and after it is read back."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def fingerprint(table: pa.Table) -> str:
    """Hexadecimal SHA-256 of the names, types and values of a table's columns.

    Chunks, offsets, spare capacity and what stands behind a null count for nothing.
    """
    total = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name)
        total.update(f"{name} {_type(column.type)} {len(column)}\n".encode())
        _add(total, pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([]))
    return total.hexdigest()


def _type(kind: pa.DataType) -> str:
    """The type's name; Parquet calls a list's field otherwise than Arrow does."""
    if pa.types.is_fixed_size_list(kind):
        return f"list[{kind.list_size}]<{_type(kind.value_type)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{'large_' * pa.types.is_large_list(kind)}list<{_type(kind.value_type)}>"
    return str(kind)


def _add(total: Any, array: pa.Array) -> None:
    """Add nulls, lengths and values, level by level."""
    kind = array.type
    if array.null_count:
        total.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_dictionary(kind):
        _add(total, array.dictionary_decode())
    elif pa.types.is_struct(kind):
        for values in array.flatten():
            _add(total, values)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        total.update(pc.list_value_length(array).fill_null(0).to_numpy(False).tobytes())
        _add(total, array.flatten())
    elif pa.types.is_fixed_size_list(kind):
        _add(total, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        _add_bytes(total, array.fill_null("" if pa.types.is_string(kind) else b""), np.int32)
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        _add_bytes(total, array.fill_null("" if "string" in str(kind) else b""), np.int64)
    elif pa.types.is_null(kind):
        pass
    else:
        total.update(_numbers(array).tobytes())


def _add_bytes(total: Any, array: pa.Array, offset_type: Any) -> None:
    """Add the lengths and the bytes of strings."""
    _, offsets, data = array.buffers()
    if not len(array):
        return
    starts = np.frombuffer(offsets, offset_type)[array.offset : array.offset + len(array) + 1]
    total.update(np.diff(starts).astype(np.int64).tobytes())
    total.update(memoryview(data)[starts[0] : starts[-1]] if data is not None else b"")


def _numbers(array: pa.Array) -> np.ndarray:
    """Values as numpy has them; those behind nulls are zero."""
    filled = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    return np.asarray(filled.to_numpy(zero_copy_only=False))
