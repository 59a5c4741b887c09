"""Token stores: what is written is read, by row, without a copy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.token_reader import TokenReader, token_table

ROWS = [[1, 2, 3], [], [65535], [4], [5, 6], [7] * 9]


def store(folder: Path, shards: list[list[list[int]]], vocabulary: int = 1 << 16) -> TokenReader:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, rows in enumerate(shards):
        table = token_table(rows, vocabulary)
        with pa.ipc.new_file(str(folder / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    return TokenReader(folder)


def lists(reader: TokenReader) -> list[list[int]]:
    return [reader[row].tolist() for row in range(len(reader))]


@pytest.mark.parametrize("cuts", [(6,), (1, 5), (2, 2, 2), (1,) * 6])
def test_shards_read_as_one_sequence(tmp_path, cuts):
    ends = np.cumsum(cuts)
    shards = [ROWS[end - size : end] for size, end in zip(cuts, ends, strict=True)]
    reader = store(tmp_path / "tokens", shards)
    assert len(reader) == 6 and lists(reader) == ROWS


def test_more_shards_than_one_digit(tmp_path):
    reader = store(tmp_path / "tokens", [[[n]] for n in range(12)])
    assert lists(reader) == [[n] for n in range(12)]


def test_shards_keep_their_order_beyond_five_digits(tmp_path):
    numbers = [0, 9_999, 10_000, 99_999, 100_000, 100_001]
    for number in numbers:
        table = token_table([[number]], 1 << 20)
        with pa.ipc.new_file(str(tmp_path / f"part-{number:05d}.arrow"), table.schema) as writer:
            writer.write_table(table)
    assert lists(TokenReader(tmp_path)) == [[number] for number in numbers]


@settings(deadline=None, max_examples=30, database=None)
@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 70000), max_size=5), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_round_trip(tmp_path_factory, shards):
    reader = store(tmp_path_factory.getbasetemp() / "round", shards, vocabulary=70001)
    assert lists(reader) == [row for shard in shards for row in shard]


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(30522, np.uint16), (1 << 16, np.uint16), ((1 << 16) + 1, np.int32)]
)
def test_ids_are_as_small_as_the_vocabulary_allows(tmp_path, vocabulary, dtype):
    reader = store(tmp_path / "tokens", [ROWS], vocabulary)
    assert {reader[row].dtype for row in range(6)} == {np.dtype(dtype)}
    assert reader[2].tolist() == [65535]


def test_an_id_beyond_the_vocabulary_is_not_wrapped():
    with pytest.raises((pa.ArrowInvalid, OverflowError)):
        token_table([[1 << 16]], 30522)


def test_texts_are_views_into_the_mapped_file(tmp_path):
    reader = store(tmp_path / "tokens", [ROWS[:3], ROWS[3:]])
    for row in (0, 4):
        assert not reader[row].flags.owndata and not reader[row].flags.writeable
    big = store(tmp_path / "big", [[[7] * 100_000]] * 3)
    before = pa.total_allocated_bytes()
    reader = TokenReader(tmp_path / "big")
    assert sum(int(reader[row].sum()) for row in range(3)) == 7 * 300_000 and len(big) == 3
    assert pa.total_allocated_bytes() - before < 10_000  # of 600,000 bytes of tokens


def test_offsets_of_a_sliced_table_are_its_own(tmp_path):
    """A shard is written from a slice of a larger table where a chunk ends."""
    table = token_table(ROWS, 1 << 16).slice(3, 2).combine_chunks()
    with pa.ipc.new_file(str(tmp_path / "part-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert lists(TokenReader(tmp_path)) == ROWS[3:5]


@pytest.mark.parametrize("row", [-1, 6, 99])
def test_rows_that_are_not_there(tmp_path, row):
    reader = store(tmp_path / "tokens", [ROWS[:2], ROWS[2:]])
    with pytest.raises(IndexError, match=f"row {row} of 6"):
        reader[row]


def test_a_numpy_integer_is_a_row(tmp_path):
    reader = store(tmp_path / "tokens", [ROWS])
    assert reader[np.int64(4)].tolist() == [5, 6]
    with pytest.raises(IndexError):
        reader[np.int64(-1)]  # index_of's "unknown"


def test_an_empty_folder_has_no_rows(tmp_path):
    reader = TokenReader(tmp_path)
    assert len(reader) == 0
    with pytest.raises(IndexError, match="row 0 of 0"):
        reader[0]
