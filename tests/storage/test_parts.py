"""Part files: every number keeps its place, also those with more digits than the others."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pyarrow as pa
import pytest

import raypipe
from raypipe.storage import parts
from raypipe.storage.parts import arrow_parts, in_order, part_name, part_paths

NUMBERS = [0, 1, 9, 10, 9_999, 10_000, 10_001, 99_999, 100_000, 100_001, 999_999, 1_000_000]


def test_names_of_artifacts_that_stand_do_not_change():
    assert part_name(0) == "part-00000.parquet" and part_name(7, "arrow") == "part-00007.arrow"
    assert part_name(99_999) == "part-99999.parquet"
    assert part_name(100_000) == "part-100000.parquet"  # as raypipe 0.1 named it


def test_numbers_decide_the_order_of_names():
    names = [part_name(number) for number in NUMBERS]
    assert in_order(random.Random(1).sample(names, len(names))) == names
    others = ["config.json", "model-2-of-10.safetensors", "model-10-of-10.safetensors", "x/y.json"]
    assert in_order(others[::-1]) == others


def test_the_parts_of_a_folder(tmp_path):
    for number in (10, 100_000, 9, 99_999):
        (tmp_path / part_name(number)).touch()
    (tmp_path / "part-00001.arrow").touch()
    (tmp_path / "docs.parquet").touch()
    names = [path.name for path in part_paths(tmp_path, "parquet")]
    assert names == [part_name(number) for number in (9, 10, 99_999, 100_000)]


def test_files_beyond_those_that_a_process_may_map_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "MAPPED", 2)
    for number in (3, 99_999, 100_000):
        table = pa.table({"n": [number]})
        with pa.ipc.new_file(str(tmp_path / part_name(number, "arrow")), table.schema) as writer:
            writer.write_table(table)
    tables = [reader.read_all() for reader in arrow_parts(tmp_path)]
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 2
    assert [table["n"].to_pylist() for table in tables] == [[3], [99_999], [100_000]]


def source_files() -> list[Path]:
    return sorted(Path(raypipe.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.stem)
def test_part_files_are_named_and_ordered_in_one_place(path):
    """A writer or reader with a pattern of its own would sort 100,000 before 10,001 again."""
    if path.name == "parts.py":
        return
    tree = ast.parse(path.read_text("utf-8"))
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]
    assert not [text for text in strings if text.startswith("part-")]
