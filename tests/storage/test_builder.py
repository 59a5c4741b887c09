"""Building: each step once, after what it reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from number_steps import Number, Sum, read

from raypipe.storage.artifacts import Attempt, Store
from raypipe.storage.builder import Builder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def test_every_step_is_made_once_and_found_by_other_builders(store):
    one, two = Number(1, "one"), Number(2, "two")
    inner = Sum((one, two))
    lines: list[str] = []
    builder = Builder(store, announce=lines.append)
    assert read(builder.get(Sum((inner, one, Number(1, "copy")))).local()) == 5
    assert lines == ["numbers one", "numbers two", "sums sum", "sums sum"]
    assert (one.log, two.log, inner.log) == (["one"], ["two"], ["sum"])
    assert len(builder.made) == 4
    later = Builder(store, announce=lines.append)
    assert read(later.get(Sum((inner, two))).local()) == 5
    assert len(later.made) == 1 and len(lines) == 5
    assert inner.log == ["sum"] and later.find(inner) == builder.find(inner)


def test_what_a_step_needs_is_made_and_handed_to_it(store):
    made = Builder(store).get(Sum((Number(1),), hint=Number(10)))
    assert read(made.local()) == 11
    assert set(made.manifest["inputs"]) == {"part0", "hint"}


def test_inputs_are_not_made_if_the_artifact_stands(store):
    part = Number(1)
    made = Builder(store).get(Sum((part,)))
    shutil.rmtree(Path(store.root) / "numbers")
    builder = Builder(store)
    assert builder.get(Sum((part,))) == made
    assert builder.made == set() and builder.find(part) is None


def test_the_context_reaches_the_work(store):
    class Told(Number):
        def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
            return {"context": context}

    assert Builder(store, context=41).get(Told(1)).counts == {"context": 41}


def test_downstream_manifests_hold_the_checksums_of_their_inputs(store):
    part, total = Number(1), Sum((Number(1),))
    builder = Builder(store)
    made = builder.get(total)
    recorded = made.manifest["inputs"]["part0"]
    assert recorded == {"path": part.path, "checksum": store.find(part).checksum}
    shutil.rmtree(Path(store.root) / "numbers")
    again = Builder(store).get(part)  # another attempt: another manifest
    assert again.digest == part.digest and again.checksum != recorded["checksum"]
