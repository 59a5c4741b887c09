"""The rows of ids: what a dict says, through an order that is made once per node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.tables import ids as module
from raypipe.tables.ids import SortedIds, open_ids, sorted_order

# Characters on both sides of every border: NUL and its neighbours, one to four bytes in UTF-8.
LETTERS = st.sampled_from("\0\1\2\3aab\x7f\x80é\u07ff\u0800\uffff\U00010000")
TEXTS = st.text(LETTERS, max_size=20) | st.text(max_size=40)
PREFIXES = st.sampled_from(["", "d", "doc_en_", "https://a.org/é/", "\0", "\1\0"])


def looked_up(ids: list[str], asked: list[str]) -> list[int]:
    first: dict[str, int] = {}
    for row, known in enumerate(ids):
        first.setdefault(known, row)
    return [first.get(text, -1) for text in asked]


def file_of(path: Path, ids: list[str], batch_rows: int = 3) -> Path:
    table = pa.table({"doc_id": pa.array(ids, pa.string()), "text": ["x"] * len(ids)})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


@settings(max_examples=300, deadline=None)
@given(PREFIXES, st.lists(TEXTS, max_size=40), st.lists(TEXTS, max_size=20))
def test_rows_are_those_of_a_dict(prefix, ids, others):
    ids = [prefix + text for text in ids]
    asked = [*ids, *others, *(prefix + text for text in others), *(text[:-1] for text in ids)]
    order = SortedIds(sorted_order(pa.array(ids, pa.string())))
    assert order.rows_of(asked).tolist() == looked_up(ids, asked)
    assert [order.row_of(text) for text in asked] == looked_up(ids, asked)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=40, unique=True))
def test_places_are_those_of_python_strings(ids):
    order = SortedIds(sorted_order(pa.array(ids, pa.string())))
    assert order.places().tolist() == [sorted(ids).index(text) for text in ids]


def test_places_over_chunks():
    order = SortedIds(sorted_order(pa.chunked_array([["b", "a10"], ["é", "a9", "Z"]])))
    places = order.places()
    assert places.dtype == np.int64
    assert places.tolist() == [3, 1, 4, 2, 0]


@pytest.mark.parametrize("pattern", ["{}", "doc_en_{:07d}", "{:x}" * 5, "https://a.org/{}/b"])
def test_many_ids_in_several_blocks(monkeypatch, pattern):
    monkeypatch.setattr(module, "BLOCK", 1000)
    ids = [pattern.format(*[n] * 5) for n in np.random.default_rng(0).permutation(5000)]
    asked = [pattern.format(*[n] * 5) for n in range(0, 7000, 2)]
    order = SortedIds(sorted_order(pa.array(ids)))
    assert order.rows_of(asked).tolist() == looked_up(ids, asked)


@pytest.mark.parametrize(
    "asked",
    [
        ["c", "zz", "a", "c"],
        pa.array(["c", "zz", "a", "c"]),
        pa.array(["zz", "c", "zz", "a", "c", "a"]).slice(1, 4),
        pa.array(["c", "zz", "a", "c"], pa.large_string()),
        pa.array(["c", None, "a", "c"]),
        pa.chunked_array([["c", "zz"], [], ["a", "c"]], pa.string()),
    ],
)
def test_what_may_be_asked(asked):
    order = SortedIds(sorted_order(pa.chunked_array([["a", "b"], [], ["c"]], pa.string())))
    rows = order.rows_of(asked)
    assert rows.dtype == np.int64
    assert rows.tolist() == [2, -1, 0, 2]


@pytest.mark.parametrize("nothing", [[], pa.array([], pa.string()), pa.chunked_array([[]], "str")])
def test_nothing_asked_and_nothing_there(nothing):
    assert SortedIds(sorted_order(pa.array(["a"]))).rows_of(nothing).shape == (0,)
    empty = SortedIds(sorted_order(pa.array([], pa.string())))
    assert len(empty) == 0
    assert empty.rows_of(nothing).shape == (0,)
    assert empty.rows_of(["a", ""]).tolist() == [-1, -1]
    assert empty.row_of("a") == -1
    assert empty.places().shape == (0,)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def cached(home: Path) -> list[Path]:
    return sorted((home / "cache" / "ids").glob("*.arrow"))


def test_the_order_is_made_once(home, tmp_path, monkeypatch):
    path = file_of(tmp_path / "docs.arrow", ["b", "c", "a", "d"])
    assert open_ids(path).rows_of(["a", "d", "x"]).tolist() == [2, 3, -1]
    (made,) = cached(home)
    written = made.stat()
    monkeypatch.setattr(module, "sorted_order", pytest.fail)
    again = open_ids(path)
    assert again.rows_of(["a", "d", "x"]).tolist() == [2, 3, -1]
    assert made.stat() == written
    assert [entry.suffix for entry in sorted(made.parent.iterdir())] == [".arrow", ".lock"]


def test_another_file_has_an_order_of_its_own(home, tmp_path):
    first = open_ids(file_of(tmp_path / "docs.arrow", ["b", "a"]))
    (tmp_path / "docs.arrow").rename(tmp_path / "old.arrow")
    second = open_ids(file_of(tmp_path / "docs.arrow", ["a", "b"]))
    assert first.rows_of(["a"]).tolist() == [1]
    assert second.rows_of(["a"]).tolist() == [0]
    assert len(cached(home)) == 2


def test_a_file_rewritten_in_place_at_its_old_time_has_an_order_of_its_own(home, tmp_path):
    path = file_of(tmp_path / "docs.arrow", ["b", "a"])
    assert open_ids(path).rows_of(["a"]).tolist() == [1]
    before = path.stat()
    content = file_of(tmp_path / "other.arrow", ["a", "b"]).read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    assert open_ids(path).rows_of(["a"]).tolist() == [0]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _emptied(content: bytes) -> bytes:
    return b""


def _flipped(content: bytes) -> bytes:
    at = content.index(b"doc_a")
    return content[:at] + b"dog_a" + content[at + 5 :]


def _zeros(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.mark.parametrize("damage", [_cut, _emptied, _flipped, _zeros, lambda content: b"???"])
def test_a_damaged_order_is_made_again(home, tmp_path, damage):
    ids = ["doc_b", "doc_a", "doc_c"]
    path = file_of(tmp_path / "docs.arrow", ids)
    open_ids(path)
    (made,) = cached(home)
    good = made.read_bytes()
    made.unlink()
    made.write_bytes(damage(good))
    assert open_ids(path).rows_of(ids).tolist() == [0, 1, 2]
    assert made.read_bytes() == good


def test_a_writer_that_fails_leaves_nothing(home, tmp_path, monkeypatch):
    path = file_of(tmp_path / "docs.arrow", ["a"])
    with monkeypatch.context() as patch:
        patch.setattr(module, "_checksum", lambda file, size: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_ids(path)
    assert [entry.suffix for entry in (home / "cache" / "ids").iterdir()] == [".lock"]
    assert open_ids(path).rows_of(["a"]).tolist() == [0]


def test_a_cache_that_cannot_be_written_only_costs_memory(home, tmp_path):
    home.write_text("a file where a folder belongs")
    path = file_of(tmp_path / "docs.arrow", ["b", "a"])
    with pytest.warns(UserWarning, match="cannot be written.*set RAYPIPE_HOME"):
        assert open_ids(path).rows_of(["a", "c"]).tolist() == [1, -1]


PROCESS = """
import sys
from raypipe.tables import ids
write = ids._write
def told(order, target):
    print("made")
    write(order, target)
ids._write = told
print(ids.open_ids(sys.argv[1]).rows_of(["7", "x", "4999"]).tolist())
"""


def test_two_processes_at_once_make_one_order(home, tmp_path):
    path = file_of(tmp_path / "docs.arrow", [str(n) for n in range(5000)], 500)
    command = [sys.executable, "-c", PROCESS, str(path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for process in running for line in process.communicate()[0].splitlines()]
    assert sorted(lines) == ["[7, -1, 4999]", "[7, -1, 4999]", "made"]
    assert len(cached(home)) == 1


def test_the_order_is_mapped_not_read(home, tmp_path):
    path = file_of(tmp_path / "docs.arrow", [str(n) for n in range(5000)], 500)
    before = pa.total_allocated_bytes()
    order = open_ids(path)
    (made,) = cached(home)
    assert pa.total_allocated_bytes() == before
    assert str(made) in Path("/proc/self/maps").read_text("utf-8")
    assert len(order) == 5000
