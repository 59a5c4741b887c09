import io

import numpy as np
import pyarrow as pa
import pytest
from fixed_dataset import Fixed

from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.records import DOCS
from raypipe.tables.text_table import TextTable

ROWS = [("a", "one"), ("b", ""), ("c", "three"), ("a", "again"), ("b", "late"), ("d", "vier ü")]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_writes_in_order_and_counts_drops(tmp_path, batch_rows):
    path = tmp_path / "docs.arrow"
    counts = write_docs(Fixed(ROWS), path, batch_rows)
    assert counts == {"docs": 3, "empty_docs": 1, "duplicate_docs": 2, "merged": 3}
    table = TextTable(path)
    assert len(table) == 3
    assert table.ids().to_pylist() == ["a", "c", "d"]
    assert [table.text(i) for i in range(3)] == ["one", "three", "vier ü"]
    assert table.texts(np.array([2, 0, 2])) == ["vier ü", "one", "vier ü"]


def test_the_file_is_plain_arrow_and_a_stream_gets_the_same_bytes(tmp_path):
    sink = io.BytesIO()
    write_docs(Fixed(ROWS), sink)
    write_docs(Fixed(ROWS), tmp_path / "docs.arrow")
    assert sink.getvalue() == (tmp_path / "docs.arrow").read_bytes()
    assert pa.ipc.open_file(sink.getvalue()).schema == DOCS
    assert b"vier" in sink.getvalue()  # not compressed, so that a memory map needs no copy


def test_ids_that_trec_files_cannot_hold(tmp_path):
    for doc_id in ("a b", "a\tb", "", "a\u00a0b"):
        with pytest.raises(ConfigError, match="fixed: expected a document id without white space"):
            write_docs(Fixed([("x", "t"), (doc_id, "t")]), tmp_path / "docs.arrow")


def test_nothing_with_text_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"no document has text; found.*'empty_docs': 1"):
        write_docs(Fixed([("a", "")]), tmp_path / "docs.arrow")


@pytest.mark.parametrize("doc_id", ["a\x00", "\x1b[31m", "a\u2028", "a\x85", "\ud800", "a" * 5000])
def test_ids_that_break_files_are_refused(tmp_path, doc_id):
    with pytest.raises(ConfigError, match=r"without white space|control|half|at most 4,096"):
        write_docs(Fixed([(doc_id, "t")]), tmp_path / "docs.arrow")


@pytest.mark.parametrize("doc_id", ["a\u200b", "\u202ea", "a\u00ad"])
def test_ids_with_characters_that_nobody_sees_are_kept_and_counted(tmp_path, doc_id):
    with pytest.warns(UserWarning, match="a character that nobody sees"):
        counts = write_docs(Fixed([(doc_id, "t")]), tmp_path / "docs.arrow")
    assert counts["docs"] == counts["ids_with_invisible_characters"] == 1
