"""Groups read from memory-mapped files are those that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raypipe.records import GROUPS, PAIRWISE_GROUPS
from raypipe.train.group_reader import GroupReader

ROWS = [
    {"query_index": 3, "doc_indices": [5, 1, 9], "relevance": [1, 0, -1], "ranks": [0, 1, 2]},
    {"query_index": 0, "doc_indices": [2, 7], "relevance": [2, 0], "ranks": [4, 1]},
    {
        "query_index": 8,
        "doc_indices": [1, 2, 3, 4],
        "relevance": [1, 1, 0, 0],
        "ranks": [1, 2, 3, 4],
    },
]
VALUES = [[0.5, np.nan, -1.0], [2.0, 1.0], [4.0, 3.0, 2.0, 1.0]]


def written(folder: Path, parts: list[slice], teacher: bool) -> GroupReader:
    values = VALUES if teacher else [None] * 3
    rows = [{**row, "teacher_values": said} for row, said in zip(ROWS, values, strict=True)]
    for number, part in enumerate(parts):
        table = pa.Table.from_pylist(rows[part], schema=GROUPS)
        with pa.ipc.new_file(str(folder / f"part-{number:05d}.arrow"), GROUPS) as writer:
            writer.write_table(table)
    return GroupReader(folder)


IN_PARTS = pytest.mark.parametrize(
    "parts",
    [
        [slice(0, 3)],
        [slice(0, 1), slice(1, 3)],
        [slice(0, 1), slice(1, 1), slice(1, 2), slice(2, 3)],  # one part without groups
    ],
    ids=len,
)


@IN_PARTS
def test_groups_read_as_written(tmp_path, parts):
    reader = written(tmp_path, parts, teacher=True)
    assert (len(reader), reader.documents, reader.largest, reader.has_teacher) == (3, 9, 4, True)
    for row, (expected, values) in enumerate(zip(ROWS, VALUES, strict=True)):
        query, docs, relevance, teacher = reader[row]
        assert query == expected["query_index"] and isinstance(query, int)
        assert docs.tolist() == expected["doc_indices"]
        assert relevance.tolist() == expected["relevance"]
        np.testing.assert_array_equal(teacher, values)


@IN_PARTS
def test_without_a_teacher_every_value_is_nan(tmp_path, parts):
    reader = written(tmp_path, parts, teacher=False)
    assert not reader.has_teacher and (len(reader), reader.documents) == (3, 9)
    for row, expected in enumerate(ROWS):
        _, docs, relevance, teacher = reader[row]
        assert docs.tolist() == expected["doc_indices"]
        assert relevance.tolist() == expected["relevance"]
        assert teacher.shape == docs.shape and np.isnan(teacher).all()


def test_groups_keep_their_order_beyond_five_digits(tmp_path):
    for number, query in ((100_000, 2), (10_001, 0), (99_999, 1)):
        row = {**ROWS[0], "query_index": query, "teacher_values": None}
        with pa.ipc.new_file(str(tmp_path / f"part-{number:05d}.arrow"), GROUPS) as writer:
            writer.write_table(pa.Table.from_pylist([row], schema=GROUPS))
    assert [GroupReader(tmp_path)[row][0] for row in range(3)] == [0, 1, 2]


SAID = [([1, 2], [0, 1], [0.9, 0.2]), ([], [], []), ([0], [3], [0.5])]


@IN_PARTS
def test_comparisons_read_as_written(tmp_path, parts):
    columns = ("first", "second", "probabilities")
    said = [dict(zip(columns, one, strict=True)) for one in SAID]
    values = [{"teacher_values": one} for one in VALUES]
    rows = [{**a, **b, **c} for a, b, c in zip(ROWS, said, values, strict=True)]
    for number, part in enumerate(parts):
        table = pa.Table.from_pylist(rows[part], schema=PAIRWISE_GROUPS)
        with pa.ipc.new_file(str(tmp_path / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    reader = GroupReader(tmp_path)
    assert reader.compared == 3 and reader.has_teacher
    for row, expected in enumerate(SAID):
        assert tuple(part.tolist() for part in reader.comparisons(row)) == expected
        np.testing.assert_array_equal(reader[row][3], VALUES[row])
    (tmp_path / "plain").mkdir()
    assert written(tmp_path / "plain", parts, teacher=True).compared is None
