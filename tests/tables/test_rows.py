"""Rows of an artifact: any range, across parts, and by query."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.tables.rows import MOST_READS, Rows, unpacked


@dataclass(frozen=True)
class Table(Step):
    """Rows 0..n-1 in parts of the given sizes; every third row belongs to query q0."""

    sizes: tuple[int, ...]
    kind: ClassVar[str] = "tables"
    name: ClassVar[str] = "table"  # type: ignore[misc]

    def spec(self) -> dict[str, Any]:
        return {"sizes": list(self.sizes)}

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        at = 0
        for number, size in enumerate(self.sizes):
            rows = range(at, at + size)
            ids = [f"q{i if i % 3 else 0}" for i in rows]
            table = pa.table({"query_id": pa.array(ids, pa.string()), "value": list(rows)})
            table = table.cast(pa.schema([("query_id", pa.string()), ("value", pa.int64())]))
            attempt.put_table(table, f"part-{number:05d}.parquet")
            at += size
        return {}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("storage")))
    return lambda sizes: Builder(store).get(Table(tuple(sizes)))


@settings(deadline=None, max_examples=60, database=None)
@given(data=st.data())
def test_any_range_in_any_order(tables, data):
    sizes = data.draw(st.sampled_from([(7,), (3, 0, 4), (1,) * 7, (0, 7)]))
    rows = Rows(tables(sizes))
    assert len(rows) == 7
    for _ in range(3):
        start = data.draw(st.integers(0, 7))
        stop = data.draw(st.integers(start, 7))
        found = rows.read(range(start, stop))
        assert found["value"].to_pylist() == list(range(start, stop))
        assert found.column_names == ["query_id", "value"]


def test_only_the_columns_that_are_read(tables):
    rows = Rows(tables((3, 4)), ["query_id"])
    assert rows.read(range(2, 5)).column_names == ["query_id"]
    assert rows.of_queries(["q1"]) == {"q1": [{"query_id": "q1"}]}


def test_by_query(tables):
    rows = Rows(tables((3, 0, 4)))
    found = rows.of_queries(["q4", "nobody", "q0"])
    assert {q: [r["value"] for r in many] for q, many in found.items()} == {
        "q0": [0, 3, 6],
        "q4": [4],
    }


def test_one_part_is_held(tables):
    rows = Rows(tables((3, 4)))
    rows.read(range(0, 7))
    number, table = rows._part
    assert number == 1 and table.num_rows == 4


def test_scattered_queries_do_not_read_every_part_each_time(tables, tmp_path, monkeypatch):
    """Groups from shuffled triples ask for queries of all parts in every chunk."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    opened: list[str] = []
    read_table = pq.read_table

    def counted(path, columns=None):
        opened.append(path.name)
        return read_table(path, columns=columns)

    rows, plain = Rows(tables((1,) * 7), ["query_id", "value"]), Rows(tables((7,)))
    monkeypatch.setattr(pq, "read_table", counted)
    asked = ["q0", "q1", "q5", "q4", "q2"]
    expected = plain.of_queries(asked)
    assert expected["q0"] == [{"query_id": "q0", "value": v} for v in (0, 3, 6)]
    opened.clear()
    for _ in range(20):
        assert rows.of_queries(asked) == expected
    once = 7  # for the index of the queries
    assert len(opened) <= once + MOST_READS * 7 + 7  # each of the 20 calls wants all seven
    assert rows.read(range(2, 6))["value"].to_pylist() == [2, 3, 4, 5]
    assert list((tmp_path / "tmp").iterdir()) == []  # a killed actor leaves nothing on the disk


def test_rows_keep_their_order_beyond_five_digits(tmp_path):
    store, numbers = Store(str(tmp_path)), [0, 10_001, 99_999, 100_000]
    with store.attempt(Table((1,)), {}) as attempt:
        for number in reversed(numbers):
            table = pa.table({"query_id": [f"q{number}"], "value": [number]})
            attempt.put_table(table, f"part-{number:05d}.parquet")
        rows = Rows(attempt.commit({}))
    assert rows.read(range(4))["value"].to_pylist() == numbers
    assert rows.of_queries(["q100000"])["q100000"][0]["value"] == 100_000


def test_unpacked_parts_share_maps(tmp_path):
    """A process may have 65,530 maps; parts without rows and parts of another schema read too."""
    columns = [[1, 2], [], [3], ["a"], ["b", "c"], []]
    kinds = [pa.int64()] * 3 + [pa.string()] * 3
    for number, (column, kind) in enumerate(zip(columns, kinds, strict=True)):
        table = pa.table({"value": pa.array(column, kind), "other": pa.nulls(len(column))})
        table = table.replace_schema_metadata({"part": str(number)})
        pq.write_table(table, tmp_path / str(number))
    paths = [tmp_path / str(number) for number in range(6)]
    maps = Path("/proc/self/maps").read_text().count("raypipe-rows-")
    tables = unpacked(paths, ["value"])
    assert [table["value"].to_pylist() for table in tables] == columns
    assert [table.schema.field(0).type for table in tables] == kinds
    assert Path("/proc/self/maps").read_text().count("raypipe-rows-") == maps + 2


def test_neighbouring_queries_need_no_copy(tables, monkeypatch):
    monkeypatch.setattr("raypipe.tables.rows.unpacked", lambda *a: pytest.fail("copied"))
    rows = Rows(tables((2, 2, 2, 1)))
    for query_id in ("q1", "q2", "q4", "q5"):
        assert [r["value"] for r in rows.of_queries([query_id])[query_id]] == [int(query_id[1])]
