"""Texts and ids of a memory-mapped file by row, rows by id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from fixed_dataset import Fixed

from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.records import QUERIES
from raypipe.tables.text_table import TextTable


def test_random_access_over_many_batches(tmp_path):
    rows = [(f"d{i}", f"text {i}") for i in range(101)]
    write_docs(Fixed(rows), tmp_path / "docs.arrow", batch_rows=7)
    table = TextTable(tmp_path / "docs.arrow")
    assert table.ids().num_chunks == 15
    assert table.texts(range(101)) == [text for _, text in rows]
    for few in (range(101), range(0), range(3, 5), range(6, 8), range(13, 101), range(100, 101)):
        assert list(table.iter_texts(few)) == table.texts(few)
    assert list(table.iter_texts()) == table.texts(range(101))
    for index in (-1, 101):
        with pytest.raises(IndexError, match=f"index {index}: expected 0 to 100"):
            table.text(index)


def test_another_arrow_file_is_refused(tmp_path):
    path = tmp_path / "x.arrow"
    table = pa.table({"n": [1]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ConfigError, match=r"expected columns \['doc_id', 'text'\] .*found \['n'\]"):
        TextTable(path)


def test_a_file_of_queries_reads_alike(tmp_path):
    table = pa.table([["q1", "q2"], ["first", "second"]], schema=QUERIES)
    with pa.ipc.new_file(str(tmp_path / "queries.arrow"), QUERIES) as writer:
        writer.write_table(table, max_chunksize=1)
    queries = TextTable(tmp_path / "queries.arrow")
    assert queries.ids().to_pylist() == ["q1", "q2"]
    assert queries.texts([1, 0]) == ["second", "first"]


def test_rows_of_ids_and_ids_of_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    ids = [f"d{n}" for n in np.random.default_rng(0).permutation(101)]
    write_docs(Fixed([(doc_id, "text") for doc_id in ids]), tmp_path / "docs.arrow", batch_rows=7)
    table = TextTable(tmp_path / "docs.arrow")
    asked = ["d7", "d101", "d0", "d7"]
    rows = table.rows_of(asked)
    assert rows.tolist() == [ids.index("d7"), -1, ids.index("d0"), ids.index("d7")]
    assert [table.row_of(doc_id) for doc_id in asked] == rows.tolist()
    assert table.places().tolist() == [sorted(ids).index(doc_id) for doc_id in ids]
    assert table.ids_at(rows[[3, 2, 0]]).to_pylist() == ["d7", "d0", "d7"]
    assert table.ids_at(np.arange(101)).equals(table.ids().combine_chunks())
    assert table.ids_at(rows[:0]).equals(pa.array([], pa.string()))
