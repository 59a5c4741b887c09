"""A hash of values: the same after a file, another after any change."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.tables.fingerprint import fingerprint

COLUMNS = {
    "text": pa.array(["a", "", None, "déjà vu"]),
    "large text": pa.array(["a", "b" * 100, None, ""], pa.large_string()),
    "bytes": pa.array([b"\0", None, b"", b"xyz"]),
    "numbers": pa.array([1, None, 3, 4], pa.int32()),
    "scores": pa.array([0.1, float("nan"), None, -0.0], pa.float32()),
    "flags": pa.array([True, None, False, True]),
    "ids": pa.array([["a", "b"], [], None, ["c"]], pa.list_(pa.string())),
    "tokens": pa.array([[1, 2], [], [3], [70]], pa.large_list(pa.uint16())),
    "vectors": pa.array([[0.5, 1], [2, 3], [6, 7], [4, 5]], pa.list_(pa.float32(), 2)),
    "pairs": pa.array([{"i": 1, "s": "x"}, {"i": None, "s": "y"}, {"i": 3, "s": None}, None]),
    "names": pa.array(["x", "y", "x", None]).dictionary_encode(),
}


def by_parquet(table: pa.Table) -> pa.Table:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return pq.read_table(io.BytesIO(sink.getvalue()))


def by_arrow(table: pa.Table) -> pa.Table:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_file(io.BytesIO(sink.getvalue())).read_all()


@pytest.mark.parametrize("name", COLUMNS)
def test_a_file_changes_nothing(name):
    column = COLUMNS[name]
    table = pa.table({name: column})
    before = fingerprint(table)
    assert fingerprint(by_parquet(table)) == fingerprint(by_arrow(table)) == before
    halves = pa.concat_tables([table.slice(0, 2), table.slice(2)])
    assert fingerprint(halves) == before
    padded = pa.table({name: pa.concat_arrays([column.slice(1, 1), column])})
    assert fingerprint(padded.slice(1)) == before


@pytest.mark.parametrize("name", COLUMNS)
def test_every_change_of_a_value_changes_it(name):
    column = COLUMNS[name]
    hashes = {fingerprint(pa.table({name: column}))}
    for order in ([1, 0, 2, 3], [0, 1, 3, 2], [0, 1, 2], [0, 1, 2, 2]):
        changed = column.take(pa.array(order))
        if not changed.equals(column):
            hashes.add(fingerprint(pa.table({name: changed})))
    assert len(hashes) == 5


def test_names_types_and_nulls_count():
    one = pa.table({"a": pa.array([0], pa.int32())})
    others = [
        one.rename_columns(["b"]),
        pa.table({"a": pa.array([0], pa.int64())}),
        pa.table({"a": pa.array([None], pa.int32())}),
        pa.table({"a": pa.array([], pa.int32())}),
    ]
    assert len({fingerprint(table) for table in (one, *others)}) == 5


def test_where_one_list_ends_counts():
    left = pa.table({"ids": pa.array([["a"], ["b", "c"]])})
    right = pa.table({"ids": pa.array([["a", "b"], ["c"]])})
    assert fingerprint(left) != fingerprint(right)
    assert fingerprint(pa.table({"t": ["ab", "c"]})) != fingerprint(pa.table({"t": ["a", "bc"]}))


def test_a_flipped_bit_of_a_number_is_found():
    values = np.random.default_rng(3).random(1000, np.float32)
    changed = values.copy()
    changed.view(np.uint32)[517] ^= 1
    assert fingerprint(pa.table({"v": values})) != fingerprint(pa.table({"v": changed}))
