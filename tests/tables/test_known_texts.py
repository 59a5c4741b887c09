"""Texts found again by what they say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raypipe.records import DOCS
from raypipe.tables import known_texts
from raypipe.tables.known_texts import KnownTexts
from raypipe.tables.text_table import TextTable


def table(path, *texts: str) -> TextTable:
    rows = pa.table([[str(i) for i in range(len(texts))], list(texts)], schema=DOCS)
    with pa.ipc.new_file(str(path), DOCS) as writer:
        writer.write_table(rows, max_chunksize=2)
    return TextTable(path)


def test_rows_go_through_all_tables(tmp_path):
    tables = [table(tmp_path / "a", "one", "two", "three"), table(tmp_path / "b", "four", "two")]
    known = KnownTexts(tables)
    assert known.rows_of(["four", "Two", "two", "none"]).tolist() == [3, -1, 1, -1]
    assert [known.place(row) for row in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert known.rows_of([]).tolist() == []
    assert KnownTexts([]).rows_of(["one"]).tolist() == [-1]


def test_texts_of_one_hash_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(
        known_texts, "_hashes", lambda texts: np.array([7 for _ in texts], np.uint64)
    )
    known = KnownTexts([table(tmp_path / "a", "one", "two")])
    assert known.rows_of(["one", "three"]).tolist() == [0, -1]
